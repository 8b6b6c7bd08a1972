"""What protocols work on and what they give back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .metrics.scores import confusion_matrix, expected_calibration_error, scores


@dataclass(frozen=True)
class Labelled:
    """Features of a split and their classes.

    Attributes:
        x: (N, D) features.
        y: (N,) class indices.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.y)

    def __getitem__(self, rows: np.ndarray) -> Labelled:
        """The images of some rows."""
        return Labelled(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Inputs:
    """What protocols are given beside features.

    Attributes:
        seeds: Draws of few-label protocols.
        device: Where probes compute.
        places: (N,) where each training image is.
        files: (N,) file name of each training image.
    """

    seeds: int
    device: torch.device
    places: Sequence[str] | None = None
    files: Sequence[str] | None = None


@dataclass(frozen=True)
class Material:
    """What a protocol measures with; only the splits that it needs are there.

    Attributes:
        splits: "train", "validation", "test", "source" -> their features and classes. Those of
            "source" are the classes of "test".
        classes: Names of the classes, for error messages.
        inputs: What is given beside features.
        viewed: (N, D) features of the changed test images, for protocols that change them.
    """

    splits: Mapping[str, Labelled]
    classes: Sequence[str] | None
    inputs: Inputs
    viewed: np.ndarray | None = None

    @property
    def train(self) -> Labelled:
        """Images that probes learn from."""
        return self.splits["train"]

    @property
    def test(self) -> Labelled:
        """Images that are counted."""
        return self.splits["test"]


@dataclass(frozen=True)
class Answers:
    """What a protocol got right.

    Attributes:
        correct: For each run (draw, place), the score of each test image, (M_i,) bool, or floats
            from 0 to 1 (silhouettes from -1).
        settings: What the numbers depend on.
        scores: Other scores, a value a run.
    """

    correct: list[np.ndarray]
    settings: dict[str, Any]
    scores: dict[str, list[float]] = field(default_factory=dict)


def agreement(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, Any]:
    """Average accuracy (mean recall) and Cohen's kappa of each run.

    Args:
        predictions: (M_i,) class indices of each run.
        truths: (M_i,) class indices.

    Returns:
        `average_accuracy`, from 0 to 1, and `kappa`, from -1 to 1: a list each.
    """
    out: dict[str, list[float]] = {"average_accuracy": [], "kappa": []}
    for predicted, true in zip(predictions, truths, strict=True):
        classes = int(max(predicted.max(), true.max())) + 1
        measured = scores(confusion_matrix(predicted, true, classes, ignore_index=None))
        for name, values in out.items():
            values.append(round(measured[name], 4))
    # Kappa of one class alone is 0 / 0.
    return {name: values for name, values in out.items() if np.isfinite(values).all()}


def probe_scores(logits: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, Any]:
    """Calibration error, average accuracy and kappa of probes.

    Args:
        logits: (M_i, K) of each run.
        truths: (M_i,) class indices.

    Returns:
        As `agreement`, and `ece` from 0 to 1.
    """
    predictions = [values.argmax(1) for values in logits]
    errors = []
    for values, predicted, true in zip(logits, predictions, truths, strict=True):
        shifted = np.exp((values - values.max(1, keepdims=True)).astype(np.float64))
        confidence = shifted.max(1) / shifted.sum(1)
        errors.append(round(expected_calibration_error(confidence, predicted == true), 4))
    return {"ece": errors, **agreement(predictions, truths)}
