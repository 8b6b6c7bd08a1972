"""A network of each task over a native backbone, and the loss that it learns by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel

from ... import backbones
from ...backbones.loading import load_weights, read_config
from ...bands import resolve_bands
from ...errors import UserError
from ...evaluation.baselines import PREFIX
from ...evaluation.features import weights_hash
from ...evaluation.loading import load_encoder
from ...preprocessing import Preprocessing
from ...zoo import resolve, run_name
from .. import classification, segmentation, upernet
from ..detection import FasterRcnnForObjectDetection
from ..segmentation_scores import scores_of
from .config import FinetuneConfig
from .data import IGNORED, Split, statistics

_RANDOM = f"{PREFIX}random-"


@dataclass
class Start:
    """Where fine-tuning starts from, looked up before any data is read.

    Attributes:
        source: Folder, id, or timm name; the backbone's name where it is random.
        kind: "backbone", "random" or "segmentation" (a whole network, decoder included).
        name: For results.
        revision: For results; None where weights are drawn anew each seed.
        pretrained_on: For results.
        preprocessing: Of the weights; None for random ones.
    """

    source: str
    kind: str
    name: str
    revision: str | None
    pretrained_on: Any
    preprocessing: Preprocessing | None


def find_start(config: FinetuneConfig) -> Start:
    """Looks the model up.

    Raises:
        UserError: Nothing by that name, or a network that does not fit the task.
    """
    name = config.model
    if name.startswith(_RANDOM):
        backbone = name.removeprefix(_RANDOM)
        backbones.backbone_config(backbone)  # refuses an unknown name
        return Start(backbone, "random", config.name or name, None, None, None)
    if name.startswith(PREFIX):
        raise UserError(f"model={name} has no weights to fine-tune: use {_RANDOM}<backbone>.")
    source = resolve(name)
    folder = Path(source)
    if folder.is_dir():
        settings = read_config(source)
        if str(settings.get("model_type")) in ("rs_deeplabv3plus", "rs_fcn"):
            return _whole_network(config, source, settings)
    encoder: Any = load_encoder(name, revision=config.revision)
    return Start(
        source=name,
        kind="backbone",
        name=config.name or encoder.name,
        revision=encoder.revision,
        pretrained_on=encoder.pretrained_on,
        preprocessing=encoder.preprocessing,
    )


def _whole_network(config: FinetuneConfig, source: str, settings: dict[str, Any]) -> Start:
    if config.task != "segmentation":
        raise UserError(
            f"{config.model} is a segmentation network ({settings['model_type']}), task is "
            f"{config.task}: give the backbone, which a run keeps in `export`."
        )
    if config.head_settings:
        raise UserError(f"head_settings are those of {config.model}: leave them out.")
    record = settings.get("rs_models") or (settings.get("backbone_config") or {}).get("rs_models")
    if record is None:
        raise UserError(f"{config.model} does not say how its images are normalised (rs_models).")
    return Start(
        source=source,
        kind="segmentation",
        name=config.name or f"{Path(run_name(source)).name}-with-decoder",
        revision=None,
        pretrained_on=record.get("data"),
        preprocessing=Preprocessing.of(record),
    )


@dataclass
class Network:
    """A network ready to learn.

    Attributes:
        model: Native, in evaluation mode.
        preprocessing: Of its images.
        revision: Hash of the weights that it starts from.
    """

    model: PreTrainedModel
    preprocessing: Preprocessing
    revision: str


def build(
    start: Start,
    config: FinetuneConfig,
    split: Split,
    rows: np.ndarray,
    bands: Sequence[str],
    classes: Sequence[str],
    size: int,
) -> Network:
    """The network of a task; its new parts are drawn from torch's generator.

    Args:
        start: From `find_start`.
        config: Settings.
        split: Training split, whose statistics serve where the weights have none.
        rows: Labelled rows.
        bands: Of the images.
        classes: Names.
        size: Side of training images in pixels.

    Raises:
        UserError: A backbone that does not fit the head, or unknown settings of the head.
    """
    preprocessing = _preprocessing(start, split, rows, bands, size)
    id2label = dict(enumerate(classes))
    if start.kind == "segmentation":
        model = _reheaded(start, id2label, bands)
        return Network(model, preprocessing, f"sha256:{weights_hash(model)}")
    if start.kind == "random":
        backbone = backbones.build(start.source, bands=bands, image_size=size)
        revision = "random"
    else:
        backbone = backbones.load(start.source, bands=bands, revision=config.revision)
        revision = start.revision or "unknown"
    record = getattr(backbone.config, "rs_models", None) or {}
    backbone.config.rs_models = {**record, **preprocessing.record()}
    return Network(_over(backbone, config, id2label), preprocessing, revision)


def _preprocessing(
    start: Start, split: Split, rows: np.ndarray, bands: Sequence[str], size: int
) -> Preprocessing:
    known = start.preprocessing
    if known is not None and known.bands == tuple(bands):
        return known
    value_range, mean, std = statistics(split, rows, bands)
    if known is not None:  # bands that the weights have not seen take the data's statistics
        if known.value_range != value_range:
            raise UserError(
                f"{start.name} was trained on stored values up to {known.value_range[1]:g}, but "
                f"the images hold them up to {value_range[1]:g}: convert the data."
            )
        place = {band: i for i, band in enumerate(known.bands)}
        have = [place.get(band) for band in bands]
        mean = tuple(mean[i] if k is None else known.image_mean[k] for i, k in enumerate(have))
        std = tuple(std[i] if k is None else known.image_std[k] for i, k in enumerate(have))
    train_size = known.train_size if known is not None else size
    return Preprocessing(resolve_bands(list(bands)), value_range, mean, std, train_size)


def _over(
    backbone: PreTrainedModel, config: FinetuneConfig, id2label: dict[int, str]
) -> PreTrainedModel:
    label2id = {name: number for number, name in id2label.items()}
    settings: dict[str, Any] = {"num_labels": len(id2label), **config.head_settings}
    if config.task in ("classification", "multilabel"):
        return classification.over(backbone, id2label, multilabel=config.task == "multilabel")
    model: PreTrainedModel
    if config.task == "detection":
        model = FasterRcnnForObjectDetection.over(backbone, **settings)
    elif config.head == "upernet":
        settings.setdefault("use_auxiliary_head", False)
        count = settings.pop("num_labels")
        model = upernet.over(backbone, count, **settings)
    elif config.head == "fcn":
        model = segmentation.FcnForSemanticSegmentation.over(backbone, **settings)
    else:
        model = segmentation.DeepLabV3PlusForSemanticSegmentation.over(backbone, **settings)
    model.config.id2label, model.config.label2id = id2label, label2id
    return model


def _reheaded(start: Start, id2label: dict[int, str], bands: Sequence[str]) -> PreTrainedModel:
    """A pretrained segmentation network with an output layer for other classes."""
    assert start.preprocessing is not None
    if start.preprocessing.bands != tuple(bands):
        raise UserError(
            f"{start.name} takes {', '.join(start.preprocessing.bands)}, the data gives "
            f"{', '.join(bands)}: set data.bands, or start from its backbone (`export`)."
        )
    model, _ = load_weights(
        AutoModelForSemanticSegmentation,
        start.source,
        num_labels=len(id2label),
        ignore_mismatched_sizes=True,
    )
    # The stored output layer means other classes even where the number happens to be the same.
    for module in model.decoder.output.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    model.config.id2label = id2label
    model.config.label2id = {name: number for number, name in id2label.items()}
    return model.eval()


class Learner(nn.Module):
    """A network with the loss of its task, as the Trainer calls it.

    Args:
        model: Native network.
        task: See `FinetuneConfig.task`.
        frozen: Whether the backbone keeps its weights and its statistics.
        freeze_norm: Whether it keeps its BatchNorm statistics.
        class_weights: (K,) or None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: str,
        *,
        frozen: bool = False,
        freeze_norm: bool = False,
        class_weights: Tensor | None = None,
    ) -> None:
        """Freeze what is to be frozen."""
        super().__init__()
        self.model, self.task = model, task
        self.frozen, self.freeze_norm = frozen, freeze_norm
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        if frozen:
            self.backbone.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The part that was pretrained."""
        return getattr(self.model, "backbone", None) or self.model.base_model

    def train(self, mode: bool = True) -> Learner:
        """Training mode, but for what is frozen."""
        super().train(mode)
        if mode and self.frozen:
            self.backbone.eval()
        elif mode and self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, pixel_values: Tensor, labels: Any = None) -> dict[str, Any]:
        """Loss where labels are given, and what `scoring` needs."""
        if self.task == "detection":
            found = self.model(pixel_values=pixel_values, labels=labels)
            if labels is None:
                return {"logits": found.logits, "pred_boxes": found.pred_boxes}
            return {"loss": found.loss}
        if self.task == "segmentation":
            logits = scores_of(self.model, pixel_values)
        else:
            logits = classification.classify(self.model, pixel_values)
        output: dict[str, Any] = {"logits": logits}
        if labels is not None:
            output["loss"] = self._loss(logits.float(), labels)
        return output

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(logits, labels)
        weight = self.class_weights
        if self.task == "classification":
            return F.cross_entropy(logits, labels, weight)
        total = F.cross_entropy(logits, labels, weight, ignore_index=IGNORED, reduction="sum")
        known = labels[labels != IGNORED]
        # Not torch's mean, which is NaN for a batch without any labelled pixel.
        count = known.numel() if weight is None else weight[known].sum()
        return total / max(float(count), 1e-8)


def balanced_weights(split: Split, rows: np.ndarray, num_classes: int) -> Tensor:
    """Inverse frequency of each class in the labels, 1 on average over them; 0 for absent ones."""
    counts = np.zeros(num_classes, np.int64)
    if split.labels is not None:
        counts += np.bincount(split.labels[rows], minlength=num_classes)
    else:
        for row in rows:
            mask = split.example(int(row))[1]
            counts += np.bincount(mask[mask != IGNORED], minlength=num_classes)[:num_classes]
    there = counts > 0
    weights = np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights).float()


_DEPTH = re.compile(r"(?:stages|layers|layer)\.(\d+)\.")


def parameter_groups(learner: Learner, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Groups of the optimizer: the head, and the backbone by depth where rates decay."""
    head_rate = config.head_learning_rate or config.learning_rate
    inside = {id(p) for p in learner.backbone.parameters()}
    depths = {
        name: int(found[1]) + 1 if (found := _DEPTH.search(name)) else 0
        for name, _ in learner.backbone.named_parameters()
    }
    # A final norm belongs to no layer but comes after all of them.
    last = max(depths.values(), default=0)
    depths = {n: last if n.startswith("layernorm") else d for n, d in depths.items()}
    rates: dict[int, float] = {}
    for name, parameter in learner.backbone.named_parameters():
        decay = config.layer_decay ** (last + 1 - depths[name])
        factor = decay if config.tune == "layer_decay" else 1.0
        rates[id(parameter)] = config.learning_rate * factor
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            rate = rates[id(parameter)] if id(parameter) in inside else head_rate
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
