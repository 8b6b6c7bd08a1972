"""Scores of the tasks; the folders beside hold the same for `evaluate.load(path)`."""

from __future__ import annotations

from .scores import (
    IGNORE,
    confusion_matrix,
    detection_scores,
    expected_calibration_error,
    metric_path,
    multilabel_scores,
    scores,
)

__all__ = [
    "IGNORE",
    "confusion_matrix",
    "detection_scores",
    "expected_calibration_error",
    "metric_path",
    "multilabel_scores",
    "scores",
]
