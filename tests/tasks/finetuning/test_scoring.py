"""Scores and intervals come of what each test image adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models.evaluation.metrics import confusion_matrix, scores
from rs_models.tasks.finetuning.scoring import interval
from rs_models.tasks.table import task


def segmentation_rows(seed=0, right=0.8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (6, 16, 16), generator=generator)
    labels[:, 0] = 255
    wrong = torch.rand(6, 16, 16, generator=generator) > right
    logits = torch.nn.functional.one_hot(
        torch.where(wrong, (labels + 1) % 3, labels % 3) % 3, 3
    ).permute(0, 3, 1, 2)
    return task("segmentation").rows({"logits": logits.float()}, labels, 3), logits, labels


def test_a_mask_is_counted_in_one_confusion_matrix():
    rows, logits, labels = segmentation_rows()
    whole = scores(confusion_matrix(logits.argmax(1), labels, 3))
    assert task("segmentation").headline(rows) == pytest.approx(100 * whole["mean_iou"])
    assert task("segmentation").scores(rows)["iou"] == pytest.approx(whole["iou"])


def test_classes_and_several_labels():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    rows = task("classification").rows({"logits": logits}, torch.tensor([0, 1, 1, 1]), 2)
    assert task("classification").headline(rows) == 75
    assert task("classification").scores(rows)["average_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    truth = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    rows = task("multilabel").rows({"logits": truth * 8 - 4}, truth, 2)
    assert task("multilabel").headline(rows) == pytest.approx(100)
    assert task("multilabel").scores(rows)["f1_micro"] == pytest.approx(1)


def box_rows(shift):
    """Ten images with two squares each, found with an offset."""
    classes, probabilities = torch.zeros(10, 5, 3), torch.tensor([0.9, 0.8])
    boxes = torch.zeros(10, 5, 4)
    true = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    classes[..., 2] = 20.0
    for i, p in enumerate(probabilities):
        classes[:, i] = torch.log(torch.tensor([p, 1e-9, 1 - p]))
        boxes[:, i] = true[i] + torch.tensor([shift, 0, 0, 0])
    labels = [{"class_labels": torch.tensor([0, 0]), "boxes": true}] * 10
    return task("detection").rows({"logits": classes, "pred_boxes": boxes}, labels, 2)


def test_boxes_are_counted_by_their_overlap():
    assert task("detection").headline(box_rows(0.0)) == pytest.approx(100)
    assert task("detection").headline(box_rows(0.05)) == pytest.approx(100)  # IoU 0.6
    assert task("detection").headline(box_rows(0.1)) == pytest.approx(0)  # IoU 0.33
    assert task("detection").scores(box_rows(0.05))["map"] < 0.5


def test_the_interval_holds_the_mean_and_narrows_with_images():
    # Images that are nearly right and images that are mostly wrong, so that it matters which.
    runs = [
        [
            row
            for i in range(3)
            for right in (0.95, 0.4)
            for row in segmentation_rows(10 * seed + i, right)[0]
        ]
        for seed in range(3)
    ]
    ends, samples = interval(task("segmentation"), runs)
    mean = np.mean([task("segmentation").headline(rows) for rows in runs])
    assert samples == 1000 and ends[0] < mean < ends[1]
    wider, _ = interval(task("segmentation"), [rows[4:8] for rows in runs])  # two of either kind
    assert wider[1] - wider[0] > 1.5 * (ends[1] - ends[0])
    assert interval(task("segmentation"), runs) == (ends, samples)


def test_the_interval_of_accuracy_is_that_of_its_images():
    rows = [{"predicted": int(i % 4 == 0), "true": 0} for i in range(200)]
    (low, high), _ = interval(task("classification"), [rows])
    deviation = 100 * (0.75 * 0.25 / 200) ** 0.5
    assert low == pytest.approx(75 - 1.96 * deviation, abs=1)
    assert high == pytest.approx(75 + 1.96 * deviation, abs=1)
