"""Several classes an image: a `labels` column, or the classes that a mask holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.names import IGNORE
from ..errors import UserError
from ..evaluation.metrics import multilabel_scores
from .classification import classify, no_settings, over
from .segmentation import read_mask
from .task import Column, Row, Task


class MultiLabel(Task):
    """Any number of classes an image; a label is their numbers, (n,) int64."""

    name = "multilabel"
    columns = ("labels", "mask")
    metric = ("mAP", "mean_average_precision")
    resamples = 200  # average precision over all images takes milliseconds
    whole_image = True
    pipeline = "image-classification"
    auto_class = "AutoModelForImageClassification"

    def read(self, row: Mapping[str, Any], column: Column, where: str) -> np.ndarray:
        """The classes of a stored row: numbers, a vector of 0 and 1, or those of a mask."""
        if column.name == "mask":
            there = np.unique(read_mask(row["mask"], column))
            return there[there != IGNORE].astype(np.int64)
        stored = row[column.name]
        if stored is None or any(value is None for value in stored):
            raise UserError(f"{where} has labels that are null: remove such rows.")
        values = np.asarray(stored, np.int64).reshape(-1)
        vector = column.classes is not None and len(values) == len(column.classes) > 1
        if vector and set(values.tolist()) <= {0, 1}:
            return np.flatnonzero(values)
        return values

    def present(self, label: np.ndarray) -> np.ndarray:
        """The classes."""
        return label

    def target(self, inputs: Mapping[str, Any], label: np.ndarray, num_classes: int) -> Tensor:
        """1 for each class that is there, (K,) float."""
        return torch.zeros(num_classes).index_fill_(0, torch.from_numpy(label), 1.0)

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
        return over(backbone, id2label, multilabel=True)

    def outputs(self, model: nn.Module, pixel_values: Tensor) -> dict[str, Tensor]:
        """Scores of the classes, `logits` (B, K)."""
        return {"logits": classify(model, pixel_values)}

    def loss(
        self, model: nn.Module, pixel_values: Tensor, labels: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        """Binary cross entropy of each class."""
        logits = classify(model, pixel_values).float()
        return F.binary_cross_entropy_with_logits(logits, labels)

    def rows(self, output: Mapping[str, Tensor], labels: Tensor, num_classes: int) -> list[Row]:
        """`{"probabilities", "true"}` of each image."""
        odds = output["logits"].float().sigmoid()
        return [
            {"probabilities": p.tolist(), "true": t.int().tolist()}
            for p, t in zip(odds, labels, strict=True)
        ]

    def scores(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Every score over some images, from 0 to 1."""
        return dict(
            multilabel_scores([r["probabilities"] for r in rows], [r["true"] for r in rows])
        )
