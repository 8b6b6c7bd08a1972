"""From a network's outputs to scores with intervals: what each test image adds is kept a row.

A row is plain JSON: `{"predicted", "true"}` of a class, `{"probabilities", "true"}` of several,
`{"confusion"}` of a mask, `{"boxes", "scores", "labels", "true_boxes", "true_labels"}` of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...evaluation.metrics import confusion_matrix, detection_scores, multilabel_scores, scores
from ...evaluation.results import BOOTSTRAP_SAMPLES
from ..detection import FasterRcnnForObjectDetection

# Headline of each task: name in results, key among the scores.
METRICS = {
    "classification": ("accuracy", "overall_accuracy"),
    "multilabel": ("mAP", "mean_average_precision"),
    "segmentation": ("mIoU", "mean_iou"),
    "detection": ("AP50", "map_50"),
}
# An evaluation of boxes takes tens of milliseconds, and there are this many for an interval.
_SAMPLES = {"detection": 100, "multilabel": 200}

Row = dict[str, Any]


def rows_of(task: str, output: dict[str, Tensor], labels: Any, num_classes: int) -> list[Row]:
    """What a batch of whole images adds.

    Args:
        task: See `FinetuneConfig.task`.
        output: Of `Learner`, without labels.
        labels: As `Examples` gives them.
        num_classes: K.
    """
    if task == "classification":
        found = output["logits"].argmax(1)
        return [{"predicted": int(p), "true": int(t)} for p, t in zip(found, labels, strict=True)]
    if task == "multilabel":
        found = output["logits"].float().sigmoid()
        return [
            {"probabilities": p.tolist(), "true": t.int().tolist()}
            for p, t in zip(found, labels, strict=True)
        ]
    if task == "segmentation":
        found = output["logits"].argmax(1).cpu()
        return [
            {"confusion": confusion_matrix(p, t.cpu(), num_classes).tolist()}
            for p, t in zip(found, labels, strict=True)
        ]
    return _box_rows(output, labels)


def _box_rows(output: dict[str, Tensor], labels: Any) -> list[Row]:
    from torchvision.ops import box_convert
    from transformers.utils import ModelOutput

    found = FasterRcnnForObjectDetection.post_process_object_detection(
        ModelOutput(output), threshold=0.0
    )
    rows = []
    for boxes, true in zip(found, labels, strict=True):
        real = boxes["scores"] > 0.01  # queries beyond the boxes found have the class "none"
        corners = box_convert(true["boxes"].float(), "cxcywh", "xyxy")
        rows.append(
            {
                # Over the image's sides; COCO's measure knows sizes in pixels only by its extras.
                "boxes": boxes["boxes"][real].float().cpu().tolist(),
                "scores": boxes["scores"][real].float().cpu().tolist(),
                "labels": boxes["labels"][real].cpu().tolist(),
                "true_boxes": corners.cpu().tolist(),
                "true_labels": true["class_labels"].cpu().tolist(),
            }
        )
    return rows


def all_scores(task: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Every score of a task over some images, from 0 to 1 (kappa from -1)."""
    if task == "multilabel":
        return dict(
            multilabel_scores([r["probabilities"] for r in rows], [r["true"] for r in rows])
        )
    if task == "detection":
        predicted = [{key: row[key] for key in ("boxes", "scores", "labels")} for row in rows]
        true = [{"boxes": row["true_boxes"], "labels": row["true_labels"]} for row in rows]
        return detection_scores(_enlarged(predicted), _enlarged(true))
    return scores(_confusion(task, rows))


def headline(task: str, rows: Sequence[Row]) -> float:
    """The task's metric over some images, in percent."""
    return 100 * float(all_scores(task, rows)[METRICS[task][1]])


def interval(
    task: str, runs: Sequence[Sequence[Row]], *, same_images: bool = True, seed: int = 0
) -> tuple[list[float], int]:
    """95% interval of the runs' mean when the test images are drawn again with replacement.

    Args:
        task: See `FinetuneConfig.task`.
        runs: Rows of test images, one list a seed or place.
        same_images: Whether they are the same images in each, which are then drawn together.
        seed: Of the resamples.

    Returns:
        [low, high] in percent, and the number of resamples.
    """
    if not same_images:
        return _interval_of_groups(task, runs, seed)
    samples = _SAMPLES.get(task, BOOTSTRAP_SAMPLES)
    rng = np.random.default_rng(seed)
    count = len(runs[0])
    stacked = None
    if task in ("classification", "segmentation"):
        # (runs, images, K, K): summed for each resample, which is what `headline` does of rows.
        stacked = np.stack([_confusions(task, rows) for rows in runs])
    means = []
    for _ in range(samples):
        drawn = rng.integers(count, size=count)
        if stacked is not None:
            weights = np.bincount(drawn, minlength=count)
            summed = np.einsum("n,rnij->rij", weights, stacked)
            key = METRICS[task][1]
            means.append(np.mean([100 * scores(matrix)[key] for matrix in summed]))
        else:
            means.append(np.mean([headline(task, [rows[i] for i in drawn]) for rows in runs]))
    return [round(float(end), 4) for end in np.nanpercentile(means, [2.5, 97.5])], samples


def _interval_of_groups(
    task: str, runs: Sequence[Sequence[Row]], seed: int
) -> tuple[list[float], int]:
    """The same where each run has images of its own."""
    samples = min(_SAMPLES.get(task, 200), 200)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(samples):
        drawn = [[rows[i] for i in rng.integers(len(rows), size=len(rows))] for rows in runs]
        means.append(np.mean([headline(task, rows) for rows in drawn]))
    return [round(float(end), 4) for end in np.nanpercentile(means, [2.5, 97.5])], samples


def _confusions(task: str, rows: Sequence[Row]) -> np.ndarray:
    """(images, K, K) int64."""
    if task == "segmentation":
        return np.asarray([row["confusion"] for row in rows], np.int64)
    classes = 1 + max(max(row["predicted"], row["true"]) for row in rows)
    matrices = np.zeros((len(rows), classes, classes), np.int64)
    for i, row in enumerate(rows):
        matrices[i, row["true"], row["predicted"]] = 1
    return matrices


def _confusion(task: str, rows: Sequence[Row]) -> np.ndarray:
    if task == "segmentation":
        return np.sum([row["confusion"] for row in rows], axis=0)
    true, found = [row["true"] for row in rows], [row["predicted"] for row in rows]
    classes = 1 + max(*true, *found)
    return confusion_matrix(found, true, classes, ignore_index=None)


def _enlarged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Boxes over the sides as boxes of an image of 1000 pixels: IoU is the same."""
    return [
        {**row, "boxes": torch.as_tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4) * 1000}
        for row in rows
    ]
