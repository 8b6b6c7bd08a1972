"""Semantic segmentation: a class each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import tv_tensors
from transformers import PreTrainedModel

from ..data.names import IGNORE
from ..errors import UserError
from ..evaluation.metrics import confusion_matrix
from . import upernet
from .segmentation_logits import logits_of
from .segmenters import DeepLabV3PlusForSemanticSegmentation, FcnForSemanticSegmentation
from .task import Column, ConfusionTask, Row, label_classes

_HEADS: dict[str, Any] = {
    "deeplabv3plus": DeepLabV3PlusForSemanticSegmentation.over,
    "fcn": FcnForSemanticSegmentation.over,
    "upernet": upernet.over,
}


class Segmentation(ConfusionTask):
    """A class each pixel; a label is a mask (H, W) uint8, 255 where there is none."""

    name = "segmentation"
    columns = ("mask",)
    metric = ("mIoU", "mean_iou")
    weighs_classes = True
    least_classes = 2
    has_heads = True
    pipeline = "image-segmentation"
    auto_class = "AutoModelForSemanticSegmentation"
    # What pipelines need to give masks at the image's size.
    processor = {"image_processor_type": "SegformerImageProcessor", "do_resize": False}  # noqa: RUF012

    def read(self, row: Mapping[str, Any], column: Column, where: str) -> np.ndarray:
        """The mask of a stored row."""
        return read_mask(row["mask"], column)

    def fit(self, label: np.ndarray, size: tuple[int, int], where: str) -> None:
        """Refuses a mask of another size than its image."""
        if label.shape != tuple(size):
            raise UserError(
                f"The mask in {where} is {label.shape[1]} x {label.shape[0]} pixels, its image "
                f"{size[1]} x {size[0]}: give masks of the images' size."
            )

    def present(self, label: np.ndarray) -> np.ndarray:
        """The class of each labelled pixel."""
        return label[label != IGNORE]

    def nothing(self, name: str) -> str:
        """What is said of a split in which no image has a label."""
        return (
            f"Every mask of {name} is {IGNORE} or ignored throughout, which means no class: there "
            "is nothing to learn or to count. Number the classes from 0 on."
        )

    def inputs(self, label: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
        """The mask."""
        return {"mask": tv_tensors.Mask(torch.from_numpy(label))}

    def target(self, inputs: Mapping[str, Any], label: np.ndarray, num_classes: int) -> Tensor:
        """The augmented mask, (H, W) int64."""
        return inputs["mask"].as_subclass(Tensor).long()

    def network(
        self,
        backbone: PreTrainedModel,
        id2label: Mapping[int, str],
        *,
        head: str,
        settings: Mapping[str, Any],
    ) -> PreTrainedModel:
        """DeepLabV3+, FCN or UperNet over a native backbone."""
        chosen = {"num_labels": len(id2label), **settings}
        if head == "upernet":
            chosen.setdefault("use_auxiliary_head", False)
        model = _HEADS[head](backbone, **chosen)
        label_classes(model.config, id2label)
        return model

    def outputs(self, model: nn.Module, pixel_values: Tensor) -> dict[str, Tensor]:
        """Scores of the classes, `logits` (B, K, H, W)."""
        return {"logits": logits_of(model, pixel_values)}

    def loss(
        self, model: nn.Module, pixel_values: Tensor, labels: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        """Cross entropy over the labelled pixels, 0 where there is none."""
        logits = logits_of(model, pixel_values).float()
        total = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="sum")
        labelled = labels[labels != IGNORE]
        # Not torch's mean, which is NaN for a batch without any labelled pixel.
        count = labelled.numel() if class_weights is None else class_weights[labelled].sum()
        return total / max(float(count), 1e-8)

    def rows(self, output: Mapping[str, Tensor], labels: Tensor, num_classes: int) -> list[Row]:
        """`{"confusion"}` of each image."""
        best = output["logits"].argmax(1).cpu()
        return [
            {"confusion": confusion_matrix(p, t.cpu(), num_classes).tolist()}
            for p, t in zip(best, labels, strict=True)
        ]

    def confusions(self, rows: Sequence[Row]) -> np.ndarray:
        """Confusion matrices of the images, (images, K, K) int64."""
        return np.asarray([row["confusion"] for row in rows], np.int64)


def read_mask(stored: Any, column: Column) -> np.ndarray:
    """A mask that `data.load` has checked, (H, W) uint8; what is ignored becomes 255."""
    mask = np.array(stored, np.uint8)
    if column.ignored:
        mask[np.isin(mask, column.ignored)] = IGNORE
    return mask
