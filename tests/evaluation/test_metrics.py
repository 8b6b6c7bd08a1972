"""Scores agree with the authors' numbers and with the libraries that define them."""

from __future__ import annotations

import json

import evaluate
import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_cohen_kappa, multiclass_jaccard_index

from rs_models.errors import UserError
from rs_models.evaluation.metrics import (
    confusion_matrix,
    detection_scores,
    expected_calibration_error,
    metric_path,
    multilabel_scores,
    scores,
)


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, (3, 20, 30)).astype(np.uint8)
    found = np.where(rng.random(true.shape) < 0.6, true, rng.integers(0, 4, true.shape))
    true[:, :5] = 255
    return found.astype(np.uint8), true


def test_the_authors_numbers(golden):
    said = json.loads((golden / "seg_metrics.json").read_text())
    found = scores(np.array(said["confusion_rows_true_cols_pred"]))
    # Their sums carry an epsilon of 1e-8 or so.
    for ours, theirs in (
        ("overall_accuracy", "OA"),
        ("kappa", "Kappa"),
        ("precision", "Class_Acc_is_precision"),
        ("recall", "recall"),
        ("f1", "F1"),
    ):
        np.testing.assert_allclose(found[ours], said[theirs], atol=1e-8, err_msg=ours)
    (iou_key,) = [key for key in said if "iou" in key.lower() and "mean" in key.lower()] or [
        key for key in said if "miou" in key.lower()
    ]
    np.testing.assert_allclose(found["mean_iou"], said[iou_key], atol=1e-8)


def test_ignored_pixels_count_nowhere(masks):
    found, true = masks
    matrix = confusion_matrix(found, true, 4)
    assert matrix.sum() == (true != 255).sum()
    kept = true != 255
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(true[kept], found[kept]))
    ours = scores(matrix)
    t, f = torch.tensor(true[kept]).long(), torch.tensor(found[kept]).long()
    assert ours["kappa"] == pytest.approx(float(multiclass_cohen_kappa(f, t, 4)), abs=1e-5)
    assert ours["mean_iou"] == pytest.approx(float(multiclass_jaccard_index(f, t, 4)), abs=1e-5)
    assert ours["mean_f1"] == pytest.approx(sk.f1_score(t, f, average="macro"), abs=1e-9)
    assert ours["average_accuracy"] == pytest.approx(sk.balanced_accuracy_score(t, f), abs=1e-9)


def test_an_absent_class_has_no_score():
    found = scores(np.array([[5, 0, 0], [1, 4, 0], [0, 0, 0]]))
    assert np.isnan(found["iou"][2])
    assert found["mean_iou"] == pytest.approx((5 / 6 + 4 / 5) / 2)
    missed = scores(np.array([[5, 0], [3, 0]]))  # there, never predicted
    assert missed["iou"] == [5 / 8, 0]
    assert missed["mean_f1"] == pytest.approx((10 / 13) / 2)


def test_what_is_no_class_is_refused():
    with pytest.raises(UserError, match="reference 7 is no class"):
        confusion_matrix([1, 1], [0, 7], 3)
    with pytest.raises(UserError, match="prediction 3 is no class"):
        confusion_matrix([3, 1], [0, 1], 3)
    with pytest.raises(UserError, match="do not fit"):
        confusion_matrix([1], [0, 1], 3)
    assert confusion_matrix([0], [255], 3).sum() == 0


def test_the_segmentation_module_counts_batches_of_any_size(masks):
    found, true = masks
    metric = evaluate.load(metric_path("rs_segmentation"))
    metric.add_batch(predictions=found[:2], references=true[:2])
    metric.add(prediction=found[2, :10], reference=true[2, :10])
    metric.add(prediction=found[2, 10:], reference=true[2, 10:])
    ours = metric.compute(num_labels=4)
    np.testing.assert_equal(ours, scores(confusion_matrix(found, true, 4)))
    # It has forgotten them.
    again = metric.compute(predictions=true[:1] % 4, references=true[:1] % 4, num_labels=4)
    assert again["mean_iou"] == 1
    with pytest.raises(ValueError, match="class number above 2"):
        metric.compute(predictions=found, references=true, num_labels=3)


def test_the_classification_module():
    rng = np.random.default_rng(1)
    true, found = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    metric = evaluate.load(metric_path("rs_classification"))
    ours = metric.compute(predictions=found, references=true, num_labels=5)
    assert ours["overall_accuracy"] == pytest.approx(sk.accuracy_score(true, found))
    assert ours["kappa"] == pytest.approx(sk.cohen_kappa_score(true, found))


def test_several_labels():
    rng = np.random.default_rng(2)
    true, found = rng.integers(0, 2, (60, 4)), rng.random((60, 4)).astype(np.float32)
    ours = multilabel_scores(found, true)
    assert ours["mean_average_precision"] == pytest.approx(
        sk.average_precision_score(true, found, average="macro"), abs=1e-5
    )
    assert ours["f1_micro"] == pytest.approx(sk.f1_score(true, found > 0.5, average="micro"))
    metric = evaluate.load(metric_path("rs_multilabel"))
    assert metric.compute(predictions=found, references=true) == pytest.approx(ours)
    with pytest.raises(UserError, match="do not fit"):
        multilabel_scores(found, true[:, :2])


def test_boxes():
    true = [
        {"boxes": [[0, 0, 10, 10], [20, 20, 40, 40]], "labels": [0, 1]},
        {"boxes": [], "labels": []},
    ]
    right = [
        {"boxes": [[0, 0, 10, 10], [20, 20, 40, 40]], "scores": [0.9, 0.8], "labels": [0, 1]},
        {"boxes": [], "scores": [], "labels": []},
    ]
    assert detection_scores(right, true)["map"] == pytest.approx(1)
    # A shift that leaves an IoU of 0.6 counts at 0.5 and not at 0.75.
    shifted = [{**right[0], "boxes": [[0, 2.5, 10, 12.5], [20, 20, 40, 40]]}, right[1]]
    ours = detection_scores(shifted, true)
    assert ours["map_50"] == pytest.approx(1)
    assert ours["map_75"] == pytest.approx(0.5, abs=0.01)
    assert ours["map_per_class"][1] == pytest.approx(1)
    metric = evaluate.load(metric_path("rs_detection"))
    assert metric.compute(predictions=shifted, references=true)["map"] == pytest.approx(ours["map"])
    with pytest.raises(UserError, match="do not fit"):
        detection_scores(right, true[:1])


def test_calibration_error_is_torchmetrics():
    from torchmetrics.functional.classification import binary_calibration_error

    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 400).astype(np.float32)
    correct = rng.random(400) < confidence**2
    # Its error of "positive": the probability given against whether it holds.
    expected = binary_calibration_error(
        torch.tensor(confidence), torch.tensor(correct.astype(int)), n_bins=15, norm="l1"
    )
    found = expected_calibration_error(confidence, correct)
    assert found == pytest.approx(float(expected), abs=1e-5) and found > 0.05
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0
