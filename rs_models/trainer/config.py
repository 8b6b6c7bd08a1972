"""Settings of a pretraining run: one dataclass, every key checked before anything is trained."""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import yaml

from ..bands import resolve_bands
from ..data.names import data_name
from ..errors import UserError
from ..settings import (
    Count,
    Finite,
    Length,
    NotNegative,
    PartShare,
    Positive,
    Seed,
    Share,
    Side,
    build,
    check_ranges,
    differences,
    merge,
)
from .trackers import Tracker

# The file that a run leaves its settings in, and that travels with the weights.
RECIPE = "run.yaml"


@dataclass
class DataSettings:
    """Which images a run learns from.

    Attributes:
        name: Known set, Hub id, local folder (images, Parquet, GeoTIFF tiles) or `synthetic`.
        split: Split to learn from.
        revision: Commit or tag of a Hub data set.
        image_size: Side in pixels at which images are cached; null keeps the stored size.
        sampling: `natural` frequency, or `class_balanced` by the guidance label.
        guidance: Column with the guidance label of class-balanced sampling.
        place: Column that tells where (or of which class) an image is; STICL then takes scenes from
            elsewhere. Null takes them from any other image.
        limit: Use the first so many images of a seeded permutation; null uses all.
        streaming: Read a set larger than disk or memory as it comes (needs `max_steps`).
        cache_dir: Folder of the decoded images; null is the user's cache folder.
        strict: Stop at a corrupt image instead of skipping and counting it.
        columns: Our column name to the data's, e.g. `{image: picture, label: category}`.
    """

    name: str = "synthetic"
    split: str = "train"
    revision: str | None = None
    image_size: Side | None = None
    sampling: Literal["natural", "class_balanced"] = "natural"
    guidance: str = "label"
    place: str | None = None
    limit: Count | None = None
    streaming: bool = False
    cache_dir: str | None = None
    strict: bool = False
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerSettings:
    """Optimizer and rate schedule.

    Attributes:
        name: `sgd`, `lars` (timm's), `adam` or `adamw`.
        lr: Rate for a global batch of 256 images if `scale_lr`, else as it is.
        scale_lr: Multiply `lr` by batch_size / 256.
        weight_decay: On weights of two or more dimensions only.
        final_weight_decay: Where a cosine takes it by the end; null keeps it.
        momentum: Momentum of sgd and lars.
        betas: Betas of adam and adamw.
        schedule: `cosine` (linear warm-up, then cosine), `dino` (the same, the warm-up's last step
            being at the peak) or `warm_restart` (FALSE's; its warm-up starts at an eighth).
        warmup_epochs: Epochs of linear warm-up.
        final_lr_ratio: Last rate over the peak rate.
    """

    name: Literal["sgd", "lars", "adam", "adamw"] = "sgd"
    lr: NotNegative = 0.06
    scale_lr: bool = True
    weight_decay: NotNegative = 5e-4
    final_weight_decay: NotNegative | None = None
    momentum: PartShare = 0.9
    betas: Annotated[list[PartShare], Length(2, 2)] = field(default_factory=lambda: [0.9, 0.999])
    schedule: Literal["cosine", "dino", "warm_restart"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    final_lr_ratio: Share = 0.0


@dataclass
class EvaluationSettings:
    """The k-NN that runs during training and the small table after it.

    Attributes:
        name: Labelled data set; null means the training set's if it has labels and such splits.
        train_split: Split whose features are the neighbours.
        validation_split: Split that picks the best export during training.
        test_split: Split of the table after training.
        every: Epochs between two k-NN evaluations; 0 switches them off.
        beside: Another model whose k-NN stands in the table after training.
        limit: At most so many images a split.
        columns: Columns of `name`, as in `data.columns`.
    """

    name: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    every: NotNegative = 0.0
    beside: str | None = None
    limit: Count | None = 5000
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunConfig:
    """One pretraining run.

    Attributes:
        output_dir: Folder of the run: `checkpoints/`, `pretraining/`, `export/`, `metrics.jsonl`.
        method: `name` and any field of the method's config, e.g. `{name: tov, temperature: 0.5}`.
        backbone: `resnet18`, `resnet50`, `swin_tiny`, `vit_small_patch16`, ...
        init_from: Start from these weights: a native folder, a Hub id, or a timm name.
        bands: `rgb`, `rgbn`, `sentinel2`, or a list of band names.
        image_mean: Per band after scaling by the value range; null is 0.5 for RGB, else measured.
        image_std: Per band, as the mean; null is 0.5 for RGB, else measured.
        image_size: Side of the views in pixels.
        data: What to learn from.
        epochs: Passes over the data; 0 with `max_steps`.
        max_steps: Optimizer steps; null means by epochs.
        batch_size: Images of one optimizer step over all processes and accumulated micro-batches.
        gradient_accumulation: Micro-batches of a step. A contrastive loss sees one at a time.
        clip_norm: Largest gradient norm; null does not clip.
        optimizer: Optimizer and schedule.
        precision: `no` (float32) or `bf16`.
        channels_last: Convolutions in channels-last memory format.
        compile: torch.compile the backbone.
        small_maps: On CPU, train convolutions over maps of a few pixels as matrix products, which
            is faster and differs in rounding alone. Not with `compile`.
        sync_batchnorm: BatchNorm statistics over all GPUs.
        deterministic: On a GPU, only algorithms that give the same bits each time: slower, and a
            run that was stopped then ends in the weights of one that was not. On CPU it is so.
        seed: Seed of everything random.
        log_every: Steps between two log lines.
        checkpoint_every: Epochs between two checkpoints; with `max_steps` alone, of a tenth each.
        keep_last: Checkpoints to keep.
        evaluation: k-NN during and after training.
        trackers: Names that accelerate knows: tensorboard, trackio, wandb. JSON lines always.
        resume: Continue the newest complete checkpoint of `output_dir`.
        dry_run: Print parameters, memory, steps and hours from a few timed steps, and stop.
        stop_on_collapse: Stop when the meters say that the features have collapsed.
        stages: Overrides of these settings, a stage each; a stage starts from the last one's
            weights (TOV's learning path from general to remote sensing images).
    """

    output_dir: str = "outputs/run"
    method: dict[str, Any] = field(default_factory=lambda: {"name": "tov"})
    backbone: str = "resnet50"
    init_from: str | None = None
    bands: str | list[str] = "rgb"
    image_mean: list[Finite] | None = None
    image_std: list[Positive] | None = None
    image_size: Side = 224
    data: DataSettings = field(default_factory=DataSettings)
    epochs: NotNegative = 200.0
    max_steps: Count | None = None
    batch_size: Count = 256
    gradient_accumulation: Count = 1
    clip_norm: Positive | None = None
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    precision: Literal["no", "bf16"] = "no"
    channels_last: bool = True
    compile: bool = False
    small_maps: bool = True
    sync_batchnorm: bool = True
    deterministic: bool = False
    seed: Seed = 0
    log_every: Count = 10
    checkpoint_every: Positive = 1.0
    keep_last: Count = 2
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    trackers: list[Tracker] = field(default_factory=list)
    resume: bool = False
    dry_run: bool = False
    stop_on_collapse: bool = True
    stages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def band_names(self) -> tuple[str, ...]:
        """The bands by their canonical names, in channel order.

        Raises:
            UserError: A name that is no band.
        """
        return resolve_bands(self.bands)

    def expand(self) -> list[RunConfig]:
        """The stages as whole configs, in order; a run without stages is one stage.

        Raises:
            UserError: A key of a stage that is unknown, of a wrong type, or the run's alone.
        """
        if not self.stages:
            return [self]
        whole = []
        for number, overrides in enumerate(self.stages, start=1):
            if not isinstance(overrides, dict):
                raise UserError(f"The setting stages[{number}] should be a group of settings.")
            for key in ("stages", "output_dir", "resume", "dry_run", "trackers", "precision"):
                if key in overrides:
                    raise UserError(f"The setting stages[{number}].{key} belongs to the whole run.")
            values = dataclasses.asdict(self)
            values["stages"] = []
            if number > 1 and "init_from" not in overrides:
                values["init_from"] = None  # the previous stage's weights, set when it is done
            merge(values, copy.deepcopy(overrides))
            stage = build(RunConfig, values, f"stages[{number}].")
            stage.check()
            whole.append(stage)
        return whole

    def recipe(self) -> str:
        """The settings that repeat this run, as YAML: all that differ from the defaults.

        What belongs to one machine stays out: where it writes, its caches and trackers, and the
        way to a local folder of images, of which the name is kept.
        """
        values = copy.deepcopy(differences(self))
        for key in ("output_dir", "resume", "dry_run", "trackers"):
            values.pop(key, None)
        values.get("data", {}).pop("cache_dir", None)
        for stage in (values, *values.get("stages", [])):
            stage.get("data", {}).pop("cache_dir", None)
            for group in (stage.get("data", {}), stage.get("evaluation", {})):
                if group.get("name") is not None:
                    group["name"] = _placeless(data_name(group["name"]))
            if stage.get("init_from") is not None:
                stage["init_from"] = _placeless(stage["init_from"])
            if teachers := stage.get("method", {}).get("teachers"):
                stage["method"]["teachers"] = [_placeless(teacher) for teacher in teachers]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def check(self) -> None:
        """Refuses values that no run could use.

        Raises:
            UserError: Naming the setting and what it should be.
        """
        check_ranges(self)
        resolve_bands(self.bands)
        if self.max_steps is None and self.epochs <= 0:
            raise UserError(
                f"The run has no length at epochs={self.epochs}: set epochs above 0, or max_steps."
            )
        if self.data.streaming and self.max_steps is None:
            raise UserError(
                "The setting data.streaming=true does not know the set's length: set max_steps."
            )
        if self.data.streaming and self.data.sampling != "natural":
            raise UserError(
                "The setting data.sampling=class_balanced needs a cached set: data.streaming=false."
            )
        if self.data.streaming and self.data.place is not None:
            raise UserError("The setting data.place needs a cached set: data.streaming=false.")
        if self.data.streaming and self.method.get("teacher_readout") == "stages":
            raise UserError(
                "The setting method.teacher_readout=stages reads images before training, and "
                "needs a cached set: data.streaming=false."
            )
        if "name" not in self.method:
            raise UserError("The method has no name: write method.name=tov.")
        teachers = self.method.get("teachers")
        if teachers is not None and (
            not isinstance(teachers, list | tuple)
            or not all(isinstance(teacher, str) and teacher for teacher in teachers)
        ):
            raise UserError(
                f"The setting method.teachers={teachers!r:.60} should be a list of models' names: "
                "write method.teachers=[rs/tov-resnet50]."
            )


def _placeless(name: str) -> str:
    """A name without the way to it on this machine: of a local folder, the folder's own."""
    local = os.path.isabs(name) or name.startswith((".", "~")) or os.path.isdir(name)
    return os.path.basename(os.path.normpath(name)) if local else name
