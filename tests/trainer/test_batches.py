"""Which images a process gets in a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models.data import build_cache, load
from rs_models.errors import UserError
from rs_models.trainer.batches import CachedBatches, read_ahead


@pytest.fixture(scope="module")
def cache():
    return build_cache(load("synthetic:num=24,size=32"), bands="rgb", progress=False)


def feed(cache, **changes):
    settings = {
        "guidance": None,
        "batch_size": 8,
        "accumulation": 1,
        "processes": 1,
        "rank": 0,
        "device": torch.device("cpu"),
        "seed": 3,
    }
    return CachedBatches(cache, np.arange(len(cache)), **{**settings, **changes})


def flat(steps):
    return [row for step in steps for row in step]


def rows(batches):
    return [torch.cat([m.index for m in step]).tolist() for step in batches]


def test_an_epoch_uses_every_image_once_and_the_next_one_another_order(cache):
    steps = rows(feed(cache).steps(0, 6))
    first, second = flat(steps[:3]), flat(steps[3:])
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second


def test_processes_share_each_global_batch_in_rank_order(cache):
    whole = rows(feed(cache).steps(0, 4))
    parts = [rows(feed(cache, processes=2, rank=rank).steps(0, 4)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_accumulated_micro_batches_make_up_the_batch(cache):
    step = next(feed(cache, accumulation=4).steps(0, 1))
    assert [len(m.images) for m in step] == [2, 2, 2, 2]
    assert rows([step]) == rows(feed(cache).steps(0, 1))


def test_a_later_start_continues_the_same_order(cache):
    assert rows(feed(cache).steps(4, 7)) == rows(feed(cache).steps(0, 7))[4:]


def test_images_are_those_of_the_rows(cache):
    micro = next(feed(cache).steps(0, 1))[0]
    for image, row, label in zip(micro.images, micro.index, micro.labels, strict=True):
        assert torch.equal(image, cache.images[row])
        assert label == cache.labels[row]


def test_balanced_sampling_draws_a_rare_class_as_often(cache):
    guidance = np.array([0] * 21 + [1] * 3)
    drawn = np.concatenate(rows(feed(cache, guidance=guidance).steps(0, 90)))
    assert 0.4 < np.mean(guidance[drawn] == 1) < 0.6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 7, "processes": 2}, "use a multiple of 2"),
        ({"batch_size": 48}, "more than the 24 images"),
    ],
)
def test_impossible_batches_are_refused(cache, changes, words):
    with pytest.raises(UserError, match=words):
        feed(cache, **changes)


def test_reading_ahead_keeps_the_order_and_hands_errors_on():
    assert list(read_ahead(lambda x: x * x, iter(range(5)))) == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda x: 1 / x, iter([1, 0])))
