"""Logistic regression against scikit-learn, the choice of C, few-shot draws."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rs_models.data.sampling import few_shot_draw, hash_indices
from rs_models.errors import UserError
from rs_models.evaluation.fewshot import few_shot
from rs_models.evaluation.linear import LogisticPath, choose_c, fit_probe, holdout
from tests.evaluation.helpers import blobs

# 2,000 test images: one of them is 0.05 points.
TEST_X, TEST_Y = blobs(400, seed=1)


def reference(x, y, c):
    regression = LogisticRegression(C=c, tol=1e-6, max_iter=5000)
    return make_pipeline(StandardScaler(), regression).fit(x.astype(np.float64), y)


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("per_class", [4, 100])  # fewer images than features, and more
def test_accuracy_is_within_a_tenth_of_a_point_of_scikit_learn(c, per_class):
    x, y = blobs(per_class)
    expected = reference(x, y, c)
    probe = fit_probe(x, y, c=c)
    accuracy = 100 * (probe.predict(TEST_X) == TEST_Y).mean()
    assert accuracy == pytest.approx(100 * expected.score(TEST_X, TEST_Y), abs=0.1)
    scaled = expected[-1].coef_.T / expected[0].scale_[:, None]
    difference = np.abs(probe.weight.numpy() - scaled).max(1) * expected[0].scale_
    assert difference.max() < 2e-3 * np.abs(expected[-1].coef_).max()


def test_a_path_ends_where_a_fresh_fit_does():
    x, y = blobs(60)
    path = LogisticPath(x, y)
    for c in (1e-4, 1e-2, 1.0):
        warm = path.fit(c)
    cold = fit_probe(x, y, c=1.0)
    assert (warm.predict(TEST_X) == cold.predict(TEST_X)).mean() > 0.999


def test_a_constant_feature_does_no_harm():
    x, y = blobs(20)
    with_constant = np.concatenate((x, np.full((len(x), 1), 7, np.float32)), axis=1)
    test = np.concatenate((TEST_X, np.full((len(TEST_X), 1), 9, np.float32)), axis=1)
    found = fit_probe(with_constant, y, c=0.1).predict(test)
    np.testing.assert_array_equal(found, fit_probe(x, y, c=0.1).predict(TEST_X))


def test_c_is_the_one_that_is_best_on_validation():
    x, y = blobs(20, spread=4)
    val_x, val_y = blobs(200, spread=4, seed=2)
    grid = (1e-4, 1e-2, 1.0, 100.0)
    c, accuracy = choose_c(x, y, val_x, val_y, grid=grid)
    scores = {value: 100 * reference(x, y, value).score(val_x, val_y) for value in grid}
    assert accuracy == pytest.approx(scores, abs=0.21)
    assert c == min(value for value in grid if accuracy[value] == max(accuracy.values()))
    assert len(set(accuracy.values())) > 1


def test_the_held_out_tenth_has_every_class_and_overlaps_nothing():
    labels = np.repeat([0, 1, 2], [100, 31, 1])
    rest, held = holdout(labels)
    assert np.bincount(labels[held], minlength=3).tolist() == [10, 3, 0]
    assert sorted([*rest, *held]) == list(range(132))
    np.testing.assert_array_equal(held, holdout(labels)[1])


def test_few_shot_draws_are_nested_and_named_by_hash():
    x, y = blobs(30)
    scores = {n: few_shot(x, y, TEST_X, TEST_Y, n=n, seeds=3) for n in (5, 20)}
    for seed in range(3):
        small, large = (few_shot_draw(y, n, seed) for n in (5, 20))
        assert set(small) < set(large)
        assert scores[5].draws[seed] == hash_indices(small)
        # Standardised and trained by the draw alone, with C 0.1.
        expected = reference(x[small], y[small], 0.1).predict(TEST_X) == TEST_Y
        assert (scores[5].correct[seed] == expected).mean() > 0.998
    assert scores[20].correct.mean() > scores[5].correct.mean()
    assert len(set(scores[5].draws)) == 3


def test_what_cannot_be_fitted_is_said():
    x, y = blobs(6)
    with pytest.raises(UserError, match="'delta' has 6 labelled rows"):
        few_shot(x, y, TEST_X, TEST_Y, n=7, class_names=["delta", "b", "c", "d", "e"])
    with pytest.raises(UserError, match="two or more classes"):
        fit_probe(x, np.zeros_like(y), c=1.0)
    x[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        fit_probe(x, y, c=1.0)
