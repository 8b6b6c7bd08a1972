"""k-NN against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from rs_models.evaluation.knn import knn_accuracy, knn_predict


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 10))
    train_y, test_y = rng.integers(6, size=300), rng.integers(6, size=200)
    train_x = centres[train_y] + 1.5 * rng.normal(size=(300, 10))
    test_x = centres[test_y] + 1.5 * rng.normal(size=(200, 10))
    # Lengths must not matter.
    return train_x * rng.uniform(0.1, 9, size=(300, 1)), train_y, test_x, test_y


@pytest.mark.parametrize("k", [1, 5, 20])
def test_counted_votes_are_those_of_scikit_learn(data, k):
    train_x, train_y, test_x, _ = data
    reference = KNeighborsClassifier(k, metric="cosine").fit(train_x, train_y).predict(test_x)
    # k=5 over six classes has many equal votes, so their order is compared too.
    found = knn_predict(train_x, train_y, test_x, k=k, temperature=None, chunk=64)
    np.testing.assert_array_equal(found, reference)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_weighted_votes_are_those_of_scikit_learn(data, temperature):
    train_x, train_y, test_x, test_y = data
    reference = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature)
    ).fit(train_x, train_y)
    found = knn_predict(train_x, train_y, test_x, k=20, temperature=temperature)
    np.testing.assert_array_equal(found, reference.predict(test_x))
    assert knn_accuracy(train_x, train_y, test_x, test_y, temperature=temperature) == pytest.approx(
        100 * reference.score(test_x, test_y)
    )


def test_fewer_images_than_neighbours_all_vote(data):
    train_x, train_y, test_x, _ = data
    found = knn_predict(train_x[:7], train_y[:7], test_x, k=20)
    np.testing.assert_array_equal(
        found, knn_predict(train_x[:7], train_y[:7], test_x, k=7, num_classes=10)
    )
