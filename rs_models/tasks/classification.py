"""Scene classification: transformers' own classifiers over our backbones.

`ResNetForImageClassification`, `SwinForImageClassification` and `ViTForImageClassification` load
without rs_models. What is here is how they are built over a trained backbone, called at any image
size, taught and counted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from .. import backbones
from ..errors import UserError
from .task import Column, ConfusionTask, Row, label_classes


class Classification(ConfusionTask):
    """One class an image; a label is its number."""

    name = "classification"
    columns = ("label",)
    metric = ("accuracy", "overall_accuracy")
    whole_image = True
    one_class = True
    weighs_classes = True
    least_classes = 2
    pipeline = "image-classification"
    auto_class = "AutoModelForImageClassification"

    def read(self, row: Mapping[str, Any], column: Column, where: str) -> int:
        """The class of a stored row."""
        value = row[column.name]
        if value is None or value != value or value < 0:
            raise UserError(f"{where} has class {value}, which means none: remove such rows.")
        return int(value)

    def present(self, label: int) -> np.ndarray:
        """The class, (1,)."""
        return np.asarray([label])

    def target(self, inputs: Mapping[str, Any], label: int, num_classes: int) -> Tensor:
        """The class, a scalar."""
        return torch.tensor(label)

    def network(
        self,
        backbone: PreTrainedModel,
        id2label: Mapping[int, str],
        *,
        head: str,
        settings: Mapping[str, Any],
    ) -> PreTrainedModel:
        """A native classifier over a native backbone."""
        no_settings(settings, self.name)
        return over(backbone, id2label)

    def outputs(self, model: nn.Module, pixel_values: Tensor) -> dict[str, Tensor]:
        """Scores of the classes, `logits` (B, K)."""
        return {"logits": classify(model, pixel_values)}

    def loss(
        self, model: nn.Module, pixel_values: Tensor, labels: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(classify(model, pixel_values).float(), labels, class_weights)

    def rows(self, output: Mapping[str, Tensor], labels: Tensor, num_classes: int) -> list[Row]:
        """`{"predicted", "true"}` of each image."""
        best = output["logits"].argmax(1)
        return [{"predicted": int(p), "true": int(t)} for p, t in zip(best, labels, strict=True)]

    def confusions(self, rows: Sequence[Row]) -> np.ndarray:
        """Confusion matrices of the images, (images, K, K) int64."""
        classes = 1 + max(max(row["predicted"], row["true"]) for row in rows)
        matrices = np.zeros((len(rows), classes, classes), np.int64)
        for i, row in enumerate(rows):
            matrices[i, row["true"], row["predicted"]] = 1
        return matrices

    def protocol(self, *, frozen: bool) -> str:
        """First part of the protocol's name in results."""
        return "frozen" if frozen else "finetune"


def no_settings(settings: Mapping[str, Any], task: str) -> None:
    """Refuses settings of a head that has none.

    Raises:
        UserError: Naming the settings.
    """
    if settings:
        raise UserError(
            f"The head_settings ({', '.join(settings)}) are for segmentation and detection: the "
            f"head of {task} is one layer. Leave them out."
        )


def over(
    backbone: PreTrainedModel, id2label: Mapping[int, str], *, multilabel: bool = False
) -> PreTrainedModel:
    """A native classifier with a trained backbone and a random last layer.

    A backbone that was trained dilated is taken undilated, which is how transformers will load the
    classifier.

    Args:
        backbone: Native; its weights are copied.
        id2label: Names of the classes.
        multilabel: Whether an image may have several.
    """
    config = copy.deepcopy(backbone.config)
    for key in ("output_stride", "first_block_dilated"):
        if hasattr(config, key):
            delattr(config, key)
    plain = backbones.family(config).plain_stride
    if (record := getattr(config, "rs_models", None)) is not None and plain is not None:
        config.rs_models = {**record, "output_stride": plain}
    # timm's keys describe a model without classifier, whose weights are not written here.
    for key in ("architecture", "num_features", "model_args", "num_classes", "pretrained_cfg"):
        if hasattr(config, key):
            delattr(config, key)
    label_classes(config, id2label)
    config.problem_type = (
        "multi_label_classification" if multilabel else "single_label_classification"
    )
    model = AutoModelForImageClassification.from_config(config)
    backbones.copy_weights(backbone, model.base_model)
    return model.eval()


def classify(model: Any, x: Tensor) -> Tensor:
    """Scores of every class.

    Args:
        model: Any of transformers' image classifiers. Those over our backbones are called so that
            every image size works.
        x: Normalised images, (B, C, H, W).

    Returns:
        (B, num_labels).

    Raises:
        UserError: Another number of bands.
    """
    if backbones.family_or_none(model) is None:
        return model(pixel_values=x).logits
    if not hasattr(model, "classifier"):
        raise UserError(f"{type(model).__name__} is not a classifier.")
    return model.classifier(backbones.classifier_input(model.base_model, x))
