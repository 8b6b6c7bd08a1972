"""Scene classification: transformers' own classifiers over our backbones.

`ResNetForImageClassification`, `SwinForImageClassification` and `ViTForImageClassification` load
without rs_models. What is here is how they are built over a trained backbone, and called at any
image size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import AutoModelForImageClassification, PreTrainedModel

from .. import backbones
from ..errors import UserError


def over(
    backbone: PreTrainedModel, id2label: Mapping[int, str], *, multilabel: bool = False
) -> PreTrainedModel:
    """A native classifier with a trained backbone and a random last layer.

    A backbone that was trained dilated is taken undilated, which is how transformers will load the
    classifier.

    Args:
        backbone: Native ResNet, Swin or ViT; its weights are copied.
        id2label: Names of the classes.
        multilabel: Whether an image may have several.
    """
    config = copy.deepcopy(backbone.config)
    for key in ("output_stride", "first_block_dilated"):
        if hasattr(config, key):
            delattr(config, key)
    if (record := getattr(config, "rs_models", None)) is not None and config.model_type == "resnet":
        config.rs_models = {**record, "output_stride": 32}
    # timm's keys describe a model without classifier, whose weights are not written here.
    for key in ("architecture", "num_features", "model_args", "num_classes", "pretrained_cfg"):
        if hasattr(config, key):
            delattr(config, key)
    config.id2label = {int(number): name for number, name in id2label.items()}
    config.label2id = {name: number for number, name in config.id2label.items()}
    config.problem_type = (
        "multi_label_classification" if multilabel else "single_label_classification"
    )
    model = AutoModelForImageClassification.from_config(config)
    weights = backbone.state_dict()
    if config.model_type == "vit":  # the classifier reads the class token itself
        weights = {key: value for key, value in weights.items() if not key.startswith("pooler.")}
    base: Any = model.base_model
    base.load_state_dict(weights)
    return model.eval()


def classify(model: Any, x: Tensor) -> Tensor:
    """Scores of every class.

    Args:
        model: Any of transformers' image classifiers. Ours (ResNet, Swin, ViT) are called so that
            every image size works.
        x: Normalised images, (B, C, H, W).

    Returns:
        (B, num_labels).

    Raises:
        UserError: Another number of bands.
    """
    if model.config.model_type not in backbones.NATIVE_TYPES:
        return model(pixel_values=x).logits
    if not hasattr(model, "classifier"):
        raise UserError(f"{type(model).__name__} is not a classifier.")
    return model.classifier(backbones.pooled(model.base_model, x))
