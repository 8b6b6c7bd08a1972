"""Settings of fine-tuning, and the papers' own as presets of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ...errors import UserError
from ...settings import (
    Count,
    Length,
    NotNegative,
    PartShare,
    Positive,
    Range,
    Seed,
    Share,
    Side,
    Workers,
    check_ranges,
)
from ..table import check_name, task

AUTO = "auto"
# What the papers' released code does, by task. What differs from it in all of them: the best epoch
# is picked on validation images and never on those reported, draws are random and nested instead of
# the first files of a folder, pixels labelled 255 are left out, and images have the statistics that
# the weights were trained with. Image size is the model's own unless set (theirs is 224, or 256 for
# segmentation; TOV's EuroSAT 64).
_TOV_VIEWS: dict[str, Any] = {"augment": "flips", "crop_scale": [0.8, 1.0]}
PROTOCOLS: dict[str, dict[str, dict[str, Any]]] = {
    # GeoX-Lab/G-RSIM, TOV_v1: linear classifier on a frozen trunk; FCN_d8, all of it trained.
    "tov": {
        "classification": {
            "labels": "20/class",
            "tune": "frozen",
            "optimizer": "adam",
            "learning_rate": 4e-3,
            "weight_decay": 0.0,
            "warmup": 0.0,
            "epochs": 200,
            "batch_size": 64,
            **_TOV_VIEWS,
        },
        "segmentation": {
            "labels": "1%",
            "head": "fcn",
            "optimizer": "adam",
            "learning_rate": 5e-3,
            "weight_decay": 1e-5,
            "warmup": 0.0,
            "epochs": 200,
            "evaluations": 40,
            "augment": "flips",
            "crop_scale": [0.6, 1.0],
        },
    },
    # GeoX-Lab/G-RSIM, T-SS-GLCNet: all of DeepLabV3+. Theirs also shifts hues and stretches by a
    # tenth; ours changes brightness and contrast.
    "glcnet": {
        "segmentation": {
            "labels": "1%",
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 1e-5,
            "schedule": "exponential",
            "warmup": 0.0,
            "epochs": 150,
            "evaluations": 150,
            "crop_scale": [0.8, 1.0],
        }
    },
    # GeoX-Lab/FALSE: frozen backbone. Theirs has depthwise separable ASPP (rates 12, 24, 36) and an
    # auxiliary FCN head; ours is GLCNet's DeepLabV3+ at output stride 8. Its rate ends at 1e-4,
    # ours at 0.
    "false": {
        "segmentation": {
            "labels": "1%",
            "head_settings": {"output_stride": 8, "atrous_rates": [12, 24, 36]},
            "tune": "frozen",
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "weight_decay": 5e-4,
            "schedule": "poly",
            "warmup": 0.0,
            "max_steps": 1300,
            "crop_scale": [0.25, 1.0],
        }
    },
    # GeoX-Lab/G-RSIM, T-SC-STICL: linear classifier on a frozen encoder in evaluation mode.
    "sticl": {
        "classification": {
            "labels": "20/class",
            "tune": "frozen",
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "weight_decay": 0.0,
            "schedule": "steps",
            "warmup": 0.0,
            "epochs": 150,
            "batch_size": 256,
            "augment": "flips",
            "crop_scale": [0.08, 1.0],
        }
    },
    # ErenTuring/RSISC_SSL_Paradigm, mode 41: everything but the classifier frozen.
    "rsisc": {
        "classification": {
            "labels": "20/class",
            "tune": "frozen",
            "optimizer": "adam",
            "learning_rate": 4e-4,
            "weight_decay": 0.0,
            "warmup": 0.0,
            "epochs": 200,
            "batch_size": 64,
            "crop_scale": [0.4, 1.0],
        }
    },
    # LaST has no code: its abstract compares 1.5 % of the labels with a supervised network's 10 %.
    # The share is theirs (labels=10% on random weights is the other side), the rest is how DINO's
    # transformers are commonly fine-tuned.
    "last": {
        "classification": {
            "labels": "1.5%",
            "optimizer": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 0.05,
            "warmup": 0.1,
            "epochs": 100,
            "batch_size": 64,
            "augment": "overhead",
        }
    },
}

# With images without labels: what is known at first is kept (small rates, the statistics of the
# pretraining, images nearly whole, as they are tested), and no label is held out. On UC Merced's
# validation images (RSISC mini, five labels a class, three draws) a frozen backbone had 51.6 %, the
# start, after two steps, 52.8 %, and 150 steps of these 54.2 %.
SELF_TRAINING: dict[str, Any] = {
    "freeze_norm": True,
    "crop_scale": [0.8, 1.0],
    "learning_rate": 1e-4,
    "head_learning_rate": 3e-4,
    "holdout": 0.0,
}


@dataclass
class FinetuneData:
    """The labelled images.

    Attributes:
        name: Known set, Hub id, local folder or `synthetic`.
        label: Name in the results; null is the Hub id, or the last part of a path.
        revision: Commit or tag of a Hub data set.
        train_split: Split that labels are drawn from.
        validation_split: Split that early stopping looks at. `auto` is the data's own, where it has
            one; without one, and for null, a part of the draw is held out.
        test_split: Split that is counted, once, at the end.
        bands: Bands to read; null takes the model's. A stem is adapted by name where they differ.
        columns: Our column name to the data's, e.g. `{mask: annotation}`.
        classes: Class names of masks, which carry none; null numbers them.
        ignored_classes: Mask values beside 255 that are neither learned nor counted.
        mask_values: Stored value of masks (17, "255,0,0" or "#ff0000") to class number, null for no
            class; null takes the stored values for class numbers.
        box_format: What the four numbers of a box are: `xywh` (corner and sides) or `xyxy` (two
            corners).
        place: Column that says where an image is. Then each place of the train split is tested in
            turn by what was learned of all others, with the first seed; `test_split` is not opened.
        strict: Stop at an image that cannot be read; false reads all of them once before anything
            is trained, leaves such images out and counts them.
    """

    name: str = "synthetic"
    label: str | None = None
    revision: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str = "test"
    bands: str | list[str] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    ignored_classes: list[Annotated[int, Range(least=0, most=255)]] = field(default_factory=list)
    mask_values: dict[Any, Any] | None = None
    box_format: Literal["xywh", "xyxy"] = "xywh"
    place: str | None = None
    strict: bool = True


@dataclass
class SelfTraining:
    """How images without labels help, in classification: the train split's beside the drawn ones.

    Attributes:
        weight: Weight of their loss beside that of the labelled images; 0 leaves them out.
        neighbours: Number of neighbours of an image in the graph that labels are spread over.
        alpha: Share of an image's first answer that comes from its neighbours.
        switch: Share of the steps after which the network's own answers are the targets.
        confidence: Least probability of an own answer that is learned.
        ratio: Images without labels to a labelled one in a step.
        average: Share of the past in the running mean of the weights, which answers and is tested.
    """

    weight: NotNegative = 0.0
    neighbours: Count = 15
    alpha: PartShare = 0.8
    switch: Share = 0.5
    confidence: PartShare = 0.95
    ratio: Count = 2
    average: PartShare = 0.97


@dataclass
class FinetuneConfig:
    """What to fine-tune on what, and how.

    Attributes:
        task: classification, multilabel (a `labels` column, or the classes that a mask holds),
            segmentation (`mask`) or detection (`objects`).
        model: Native folder, Hub id or timm name, `baseline:random-<backbone>` for random weights,
            or a segmentation folder of a GLCNet run, whose decoder is kept.
        name: In the results; null takes the model's own.
        revision: Commit or tag of the model on the Hub.
        data: The labelled images.
        labels: `20/class`, `1%`, a number of images, or `all`. Draws are seeded and nested.
        protocol: `tov`, `glcnet`, `false`, `sticl` or `rsisc`: that paper's settings, over which
            settings of your own go; null is ours.
        head: Head of segmentation: `deeplabv3plus`, `fcn` or `upernet`. Other tasks have one head.
        head_settings: Fields of the head's config, e.g. `{decoder_channels: 64}`.
        tune: `full`, `frozen` (the head alone learns) or `layer_decay` (rates fall towards the
            stem).
        layer_decay: Rate of a layer over that of the next.
        freeze_norm: Keep the backbone's BatchNorm statistics, for small batches.
        optimizer: `adam`, `adamw` or `sgd` (momentum 0.9).
        learning_rate: Peak rate of the backbone.
        head_learning_rate: Peak rate of the head; null is `learning_rate`.
        weight_decay: On weights of two or more dimensions.
        schedule: `cosine` or `poly` (power 0.9) to 0, `constant`, `exponential` (x 0.98 an epoch)
            or `steps` (x 0.1 at 8/15 and 4/5).
        warmup: Share of the steps in which the rate rises.
        epochs: Passes over the labelled images.
        max_steps: Optimizer steps instead.
        batch_size: Images a process and step.
        class_weights: `balanced` weighs classes by their inverse frequency in the labels.
        augment: `overhead` (crops, flips, quarter turns, brightness and contrast), `flips` (crops
            and flips) or `none`.
        crop_scale: Smallest and largest area of a crop, over the square of side `image_size`, or
            over the whole image where that is smaller (always so in classification).
        image_size: Side of training crops; null is the model's training size in classification,
            and the stored size (of the first image) elsewhere. Masks and boxes are tested on whole
            images.
        evaluations: Looks at the validation images in a run; the best weights are kept.
        patience: Looks without progress after which a run stops; null never stops early.
        holdout: Share of the labels for validation where there is no validation split.
        self_training: Images without labels, which `self_training.weight=1` lets help; the command
            then takes small rates, `freeze_norm`, large crops and no `holdout`, unless told
            otherwise.
        seeds: One run each: of the draw, the head and the order.
        precision: `no` (float32) or `bf16`.
        workers: Processes that read images.
        output_dir: Folder of the runs, the model of the first seed and `results/`.
        results_dir: Folder of the results files; null is `output_dir/results`.
        report_to: Trackers, e.g. `[tensorboard]`.
        dry_run: Build everything, try one step, write nothing.
        json: Print the result as JSON.
    """

    task: str = "classification"
    model: str = "baseline:random-resnet_mini"
    name: str | None = None
    revision: str | None = None
    data: FinetuneData = field(default_factory=FinetuneData)
    labels: str | Count = "20/class"
    protocol: Literal["tov", "glcnet", "false", "sticl", "rsisc", "last"] | None = None
    head: Literal["deeplabv3plus", "fcn", "upernet"] = "deeplabv3plus"
    head_settings: dict[str, Any] = field(default_factory=dict)
    tune: Literal["full", "frozen", "layer_decay"] = "full"
    layer_decay: Annotated[float, Range(above=0, most=1)] = 0.75
    freeze_norm: bool = False
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    head_learning_rate: Positive | None = None
    weight_decay: NotNegative = 1e-2
    schedule: Literal["cosine", "poly", "constant", "exponential", "steps"] = "cosine"
    warmup: PartShare = 0.05
    epochs: Positive = 50
    max_steps: Count | None = None
    batch_size: Count = 16
    class_weights: Literal["none", "balanced"] = "none"
    augment: Literal["overhead", "flips", "none"] = "overhead"
    crop_scale: Annotated[list[Annotated[float, Range(above=0, most=1)]], Length(2, 2)] = field(
        default_factory=lambda: [0.4, 1.0]
    )
    image_size: Side | None = None
    evaluations: Count = 20
    patience: Count | None = None
    holdout: PartShare = 0.2
    self_training: SelfTraining = field(default_factory=SelfTraining)
    seeds: Annotated[list[Seed], Length(different=True)] = field(
        default_factory=lambda: [0, 1, 2, 3, 4]
    )
    precision: Literal["no", "bf16"] = "no"
    workers: Workers = 0
    output_dir: str = "outputs/finetune"
    results_dir: str | None = None
    report_to: list[str] = field(default_factory=list)
    dry_run: bool = False
    json: bool = False


def preset(protocol: str | None, task_name: str, *, self_training: bool = False) -> dict[str, Any]:
    """Settings of a paper's protocol, over those of self-training where images without labels help.

    Raises:
        UserError: No such protocol, or none for the task.
    """
    first = SELF_TRAINING if self_training else {}
    if protocol is None:
        return dict(first)
    if protocol not in PROTOCOLS:
        raise UserError(f"Unknown protocol '{protocol}': use one of {', '.join(PROTOCOLS)}.")
    check_name(task_name)
    by_task = PROTOCOLS[protocol]
    if task_name not in by_task:
        raise UserError(
            f"The protocol '{protocol}' is for {' and '.join(by_task)}, not for {task_name}: leave "
            "it out, or choose another."
        )
    return {**first, **by_task[task_name]}


def check(config: FinetuneConfig) -> None:
    """Refuses settings that contradict each other, before anything is loaded.

    Raises:
        UserError: Naming the key.
    """
    check_ranges(config)
    parse_labels(config.labels)
    kind = task(config.task)
    if str(config.labels).endswith("/class") and not kind.one_class:
        raise UserError(
            f"The setting labels={config.labels} needs one class an image, which {config.task} "
            "does not have: use a share such as 1%, or a number of images."
        )
    if config.self_training.weight > 0 and not kind.one_class:
        raise UserError(
            f"The setting self_training needs one class an image, which {config.task} does not "
            "have: leave it out."
        )
    if config.crop_scale[0] > config.crop_scale[1]:
        raise UserError(
            f"The setting crop_scale is {config.crop_scale}: give [smallest, largest] area."
        )
    if config.class_weights != "none" and not kind.weighs_classes:
        raise UserError(
            f"The setting class_weights={config.class_weights} needs one class an image or pixel, "
            f"which {config.task} does not have."
        )


def parse_labels(labels: str | int) -> tuple[str, float]:
    """("class", n), ("share", 0 to 1], ("images", n) or ("all", 1).

    Raises:
        UserError: What stands for none of them.
    """
    text = str(labels).strip().lower()
    match = re.fullmatch(r"(all)|([1-9]\d*)/class|(\d*\.?\d+)%|([1-9]\d*)", text)
    if match is None or (match[3] and not 0 < float(match[3]) <= 100):
        raise UserError(
            f"The setting labels is {labels!r}: write 20/class, 1%, a number of images, or all."
        )
    if match[1]:
        return "all", 1.0
    if match[2]:
        return "class", float(match[2])
    return ("share", float(match[3]) / 100) if match[3] else ("images", float(match[4]))


def protocol_name(config: FinetuneConfig) -> str:
    """Name of the protocol in results: finetune-n20, frozen-n20, segmentation-1%, tov-n20, ..."""
    unit, number = parse_labels(config.labels)
    amount = {
        "all": "all",
        "class": f"n{number:g}",
        "share": f"{100 * number:g}%",
        "images": f"{number:g}",
    }[unit]
    first = config.protocol or task(config.task).protocol(frozen=config.tune == "frozen")
    if config.self_training.weight > 0:
        first += "-self"
    return f"{first}-{amount}" + ("-leave-one-out" if config.data.place else "")
