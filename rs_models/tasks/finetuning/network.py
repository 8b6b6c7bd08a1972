"""A task's network over what a run starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel

from ... import backbones
from ...backbones.loading import load_weights
from ...bands import resolve_bands
from ...errors import UserError
from ...evaluation.features import weights_hash
from ...preprocessing import Preprocessing
from ..task import label_classes
from .data import statistics
from .plan import Plan


@dataclass
class Network:
    """A network ready to learn.

    Attributes:
        model: Native, in evaluation mode.
        preprocessing: Preprocessing of its images.
        revision: Hash of the weights that it starts from.
    """

    model: PreTrainedModel
    preprocessing: Preprocessing
    revision: str


def build(plan: Plan, rows: np.ndarray) -> Network:
    """The network of a plan; its new parts are drawn from torch's generator.

    Args:
        plan: What is fine-tuned on what.
        rows: Labelled rows, whose statistics serve where the weights have none.

    Raises:
        UserError: A backbone that does not fit the head, or unknown settings of the head.
    """
    config, start = plan.config, plan.start
    preprocessing = _preprocessing(plan, rows)
    id2label = dict(enumerate(plan.classes))
    if start.kind == "segmentation":
        model = _reheaded(plan, id2label)
        return Network(model, preprocessing, f"sha256:{weights_hash(model)}")
    if start.kind == "random":
        backbone = backbones.build(start.source, bands=plan.bands, image_size=plan.size)
        revision = "random"
    else:
        backbone = backbones.load(start.source, bands=plan.bands, revision=config.revision)
        revision = start.revision or "unknown"
    record = getattr(backbone.config, "rs_models", None) or {}
    backbone.config.rs_models = {**record, **preprocessing.record()}
    model = plan.task.network(backbone, id2label, head=config.head, settings=config.head_settings)
    return Network(model, preprocessing, revision)


def _preprocessing(plan: Plan, rows: np.ndarray) -> Preprocessing:
    trained, bands = plan.start.preprocessing, plan.bands
    if trained is not None and trained.bands == tuple(bands):
        return trained
    value_range, mean, std = statistics(plan.train, rows, bands)
    if trained is not None:  # bands that the weights have not seen take the data's statistics
        if trained.value_range != value_range:
            raise UserError(
                f"{plan.start.name} was trained on stored values up to {trained.value_range[1]:g}, "
                f"but the images hold them up to {value_range[1]:g}: convert the data."
            )
        place = {band: i for i, band in enumerate(trained.bands)}
        have = [place.get(band) for band in bands]
        mean = tuple(mean[i] if k is None else trained.image_mean[k] for i, k in enumerate(have))
        std = tuple(std[i] if k is None else trained.image_std[k] for i, k in enumerate(have))
    train_size = trained.train_size if trained is not None else plan.size
    return Preprocessing(resolve_bands(list(bands)), value_range, mean, std, train_size)


def _reheaded(plan: Plan, id2label: Mapping[int, str]) -> PreTrainedModel:
    """A pretrained segmentation network with an output layer for other classes."""
    start, bands = plan.start, plan.bands
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
    label_classes(model.config, id2label)
    return model.eval()
