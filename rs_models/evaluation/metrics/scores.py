"""Scores of the tasks, from one confusion matrix where there is one.

The folders beside hold the same as modules that `evaluate.load(path)` opens (`metric_path`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.names import IGNORE
from ...errors import UserError

ECE_BINS = 15  # as in Guo et al., arXiv 1706.04599


def metric_path(name: str) -> str:
    """Folder of a metric module for `evaluate.load`.

    Args:
        name: "rs_segmentation", "rs_classification", "rs_multilabel" or "rs_detection".
    """
    return str(Path(__file__).resolve().parent / name)


def confusion_matrix(
    predictions: Any, references: Any, num_classes: int, *, ignore_index: int | None = IGNORE
) -> np.ndarray:
    """Counts of pixels or images by class, computed by torchmetrics.

    Args:
        predictions: Class numbers, of any shape.
        references: Class numbers of the same shape.
        num_classes: Number of classes.
        ignore_index: Reference that is not counted; None counts all.

    Returns:
        (num_classes, num_classes) int64, a row a true class, a column a predicted one.

    Raises:
        UserError: Shapes that differ, or a class number that is none.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    predicted = torch.as_tensor(np.asarray(predictions)).long().flatten()
    true = torch.as_tensor(np.asarray(references)).long().flatten()
    if predicted.shape != true.shape:
        raise UserError(f"{predicted.numel()} predictions do not fit {true.numel()} references.")
    counted = true != ignore_index if ignore_index is not None else torch.ones_like(true).bool()
    predicted, true = predicted[counted], true[counted]
    for what, values in (("prediction", predicted), ("reference", true)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            wrong = values[(values < 0) | (values >= num_classes)][0]
            raise UserError(f"The {what} {int(wrong)} is no class: there are {num_classes}.")
    if not predicted.numel():
        return np.zeros((num_classes, num_classes), np.int64)
    return multiclass_confusion_matrix(predicted, true, num_classes).numpy()


def scores(confusion: np.ndarray) -> dict[str, Any]:
    """Everything that remote sensing papers report of a confusion matrix.

    A class that is neither there nor predicted has no scores (NaN) and is left out of the means.

    Args:
        confusion: (C, C), a row a true class.

    Returns:
        `overall_accuracy`, `average_accuracy` (mean recall), `kappa`, `mean_iou`, `mean_f1`, all
        from 0 to 1 (kappa from -1), and by class `iou`, `precision`, `recall`, `f1`.
    """
    matrix = np.asarray(confusion, np.float64)
    total, right = matrix.sum(), np.diag(matrix)
    true, predicted = matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = right.sum() / total
        chance = (true * predicted).sum() / total**2
        kappa = (accuracy - chance) / (1 - chance)
        union = true + predicted - right
        there = union > 0
        iou = np.where(there, right / union, np.nan)
        f1 = np.where(there, 2 * right / (true + predicted), np.nan)
        recall = np.where(true > 0, right / true, np.nan)
        precision = np.where(predicted > 0, right / predicted, np.nan)
    return {
        "overall_accuracy": float(accuracy),
        "average_accuracy": _mean(recall),
        "kappa": float(kappa),
        "mean_iou": _mean(iou),
        "mean_f1": _mean(f1),
        "iou": iou.tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
    }


def expected_calibration_error(confidence: Any, correct: Any, *, bins: int = ECE_BINS) -> float:
    """Mean distance of confidence and accuracy, over bins of confidence weighted by their images.

    Guo et al., ICML 2017, arXiv 1706.04599.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) whether the prediction is right.
        bins: Number of bins of equal width over [0, 1].

    Returns:
        From 0 (a confidence of 0.8 is right in 80 % of the cases) to 1.

    Example:
        >>> expected_calibration_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False])
        0.15
    """
    levels, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    # A bin has its upper end: (0, 1/15], (1/15, 2/15], ...
    places = np.clip(np.ceil(levels * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, levels - right, minlength=bins)
    return round(float(np.abs(gaps).sum() / len(levels)), 10)


def multilabel_scores(
    probabilities: Any, references: Any, *, threshold: float = 0.5
) -> dict[str, float]:
    """Scores of images that may have several labels, computed by torchmetrics.

    Args:
        probabilities: (N, C), from 0 to 1.
        references: (N, C), 0 or 1.
        threshold: From which on a label counts as given.

    Returns:
        `mean_average_precision` over the classes that occur, `f1_micro`, `f1_macro`.
    """
    import torch
    from torchmetrics.functional.classification import (
        multilabel_average_precision,
        multilabel_f1_score,
    )

    predicted = torch.as_tensor(np.asarray(probabilities), dtype=torch.float32)
    true = torch.as_tensor(np.asarray(references)).long()
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise UserError(
            f"Probabilities {tuple(predicted.shape)} do not fit labels {tuple(true.shape)}."
        )
    classes = predicted.shape[1]
    there = true.sum(0) > 0
    each = multilabel_average_precision(predicted, true, classes, average="none")
    micro = multilabel_f1_score(predicted, true, classes, threshold, average="micro")
    macro = multilabel_f1_score(predicted, true, classes, threshold, average="macro")
    return {
        "mean_average_precision": float(each[there].mean()),
        "f1_micro": float(micro),
        "f1_macro": float(macro),
    }


def detection_scores(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """COCO's average precision, computed by torchmetrics and faster-coco-eval.

    Args:
        predictions: An image each: `boxes` (N, 4) as x0 y0 x1 y1 in pixels, `scores` (N,), `labels`
            (N,).
        references: An image each: `boxes`, `labels`.

    Returns:
        `map` (IoU 0.5 to 0.95), `map_50`, `map_75`, `mar_100`, from 0 to 1, and `map_per_class`
        (class -> value).
    """
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    def tensors(row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        made = {
            "boxes": torch.as_tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.as_tensor(row["labels"]).long().reshape(-1),
        }
        if "scores" in row:
            made["scores"] = torch.as_tensor(row["scores"], dtype=torch.float32).reshape(-1)
        return made

    if len(predictions) != len(references):
        raise UserError(f"{len(predictions)} predictions do not fit {len(references)} references.")
    metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    metric.update([tensors(row) for row in predictions], [tensors(row) for row in references])
    found = metric.compute()
    classes = found["classes"].reshape(-1).tolist()
    each = found["map_per_class"].reshape(-1).tolist()
    return {
        **{key: float(found[key]) for key in ("map", "map_50", "map_75", "mar_100")},
        "map_per_class": dict(zip(classes, each, strict=False)),
    }


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
