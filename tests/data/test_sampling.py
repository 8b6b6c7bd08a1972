"""Few-shot draws and epoch orders."""

from __future__ import annotations

import numpy as np
import pytest

from rs_models.data.sampling import (
    epoch_indices,
    feature_balanced_draw,
    few_shot_draw,
    hash_indices,
    long_tailed_draw,
)
from rs_models.errors import UserError

LABELS = np.repeat([0, 1, 2], [60, 200, 40])


def test_draws_are_nested_balanced_and_sorted():
    draws = [few_shot_draw(LABELS, n, seed=3) for n in (5, 20, 40)]
    for n, draw in zip((5, 20, 40), draws, strict=True):
        assert np.bincount(LABELS[draw]).tolist() == [n, n, n]
        assert (np.diff(draw) > 0).all()
    assert set(draws[0]) < set(draws[1]) < set(draws[2])


def test_draws_differ_by_seed_and_repeat():
    assert few_shot_draw(LABELS, 5, seed=0).tolist() == few_shot_draw(LABELS, 5, seed=0).tolist()
    assert few_shot_draw(LABELS, 5, seed=0).tolist() != few_shot_draw(LABELS, 5, seed=1).tolist()


def test_the_draw_of_a_published_seed_never_changes():
    """Results name their draw by this hash: another draw would not be comparable."""
    assert hash_indices(few_shot_draw(LABELS, 5, seed=0)) == "33b935ba2893921a"
    assert hash_indices(epoch_indices(300, seed=0, epoch=1)) == "2191e728b77df0b1"


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(UserError, match=r"'river' has 40 labelled rows, 41"):
        few_shot_draw(LABELS, 41, seed=0, class_names=["field", "forest", "river"])


def test_unlabelled_rows_are_not_drawn():
    labels = np.where(np.arange(300) % 2, LABELS, -1)
    assert (labels[few_shot_draw(labels, 5, seed=0)] >= 0).all()
    order = epoch_indices(300, labels=labels, mode="class_balanced", seed=0, epoch=0)
    assert (labels[order] >= 0).all()
    with pytest.raises(UserError, match="No row has a label"):
        few_shot_draw(np.full(4, -1), 1, seed=0)


def test_hash_depends_on_order_and_not_on_type():
    assert hash_indices([1, 2]) == hash_indices(np.array([1, 2], dtype=np.int32))
    assert hash_indices([1, 2]) != hash_indices([2, 1])


def test_natural_order_visits_every_row_once():
    first, second = (epoch_indices(300, seed=1, epoch=e) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(300))
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_indices(300, seed=1, epoch=0).tolist()
    assert first.tolist() != epoch_indices(300, seed=2, epoch=0).tolist()


def test_class_balanced_order_draws_every_class_equally():
    epochs = [
        epoch_indices(300, labels=LABELS, mode="class_balanced", seed=0, epoch=e) for e in range(20)
    ]
    assert {len(epoch) for epoch in epochs} == {300}
    counts = np.bincount(LABELS[np.concatenate(epochs)])
    # Expected 2000 each with standard deviation 37; natural frequency would give 1200, 4000, 800.
    assert np.abs(counts - 2000).max() < 150


def test_class_balanced_order_uses_a_class_up_before_it_repeats_a_row():
    order = epoch_indices(300, labels=LABELS, mode="class_balanced", seed=0, epoch=0)
    for label, size in enumerate((60, 200, 40)):
        times = np.bincount(order[LABELS[order] == label], minlength=300)[LABELS == label]
        assert len(times) == size
        assert times.max() - times.min() <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "class_balanced"}, "no 'label' column"),
        ({"mode": "class_balanced", "labels": [0, 1]}, "2 labels .* 300 rows"),
        ({"mode": "random"}, "'random'"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        epoch_indices(300, seed=0, epoch=0, **arguments)


def test_a_long_tail_falls_from_the_largest_class_to_the_smallest():
    labels = np.repeat(np.arange(5), 200)
    chosen = long_tailed_draw(labels, 20, 0)
    sizes = sorted(np.bincount(labels[chosen]).tolist(), reverse=True)
    assert sizes == [200, 95, 45, 21, 10]
    assert np.array_equal(chosen, long_tailed_draw(labels, 20, 0))
    assert not np.array_equal(chosen, long_tailed_draw(labels, 20, 1))
    assert len(long_tailed_draw(labels, 1, 0)) == 1000
    with pytest.raises(UserError, match=r"imbalance is 0\.5"):
        long_tailed_draw(labels, 0.5, 0)


def test_feature_guided_draws_are_balanced_without_labels():
    rng = np.random.default_rng(0)
    sizes = (900, 80, 20)  # what repeats, and what is rare
    centres = np.eye(8)[:3] * 5
    features = np.concatenate(
        [
            centre + rng.normal(0, 0.1, (size, 8))
            for centre, size in zip(centres, sizes, strict=True)
        ]
    )
    group = np.repeat(np.arange(3), sizes)
    drawn = feature_balanced_draw(features, 60, clusters=3, seed=0)
    assert len(np.unique(drawn)) == 60
    assert np.bincount(group[drawn]).tolist() == [20, 20, 20]
    plain = np.bincount(group[rng.permutation(1000)[:60]], minlength=3)
    assert plain[0] > 45
    # A cluster that is smaller than its share gives all it has.
    many = feature_balanced_draw(features, 300, clusters=3, seed=0)
    assert np.bincount(group[many]).tolist() == [200, 80, 20]
    assert np.array_equal(drawn, feature_balanced_draw(features, 60, clusters=3, seed=0))
    with pytest.raises(UserError, match="are asked for"):
        feature_balanced_draw(features, 2000, clusters=3, seed=0)
