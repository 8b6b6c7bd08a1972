"""Intervals of a task's headline: the test images drawn again, with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...evaluation.metrics import scores
from ..task import Row, Task

_GROUPED = 200  # most resamples where each run has images of its own


def interval(
    task: Task, runs: Sequence[Sequence[Row]], *, same_images: bool = True, seed: int = 0
) -> tuple[list[float], int]:
    """95% interval of the runs' mean when the test images are drawn again with replacement.

    Args:
        task: Whose headline is meant.
        runs: Rows of test images, one list a seed or place.
        same_images: Whether they are the same images in each, which are then drawn together.
        seed: Seed of the resamples.

    Returns:
        [low, high] in percent, and the number of resamples.
    """
    rng = np.random.default_rng(seed)
    if same_images:
        means = _means_of_same(task, runs, rng)
    else:
        means = [
            np.mean(
                [
                    task.headline([rows[i] for i in rng.integers(len(rows), size=len(rows))])
                    for rows in runs
                ]
            )
            for _ in range(min(task.resamples, _GROUPED))
        ]
    return [round(float(end), 4) for end in np.nanpercentile(means, [2.5, 97.5])], len(means)


def _means_of_same(task: Task, runs: Sequence[Sequence[Row]], rng: np.random.Generator) -> list:
    count, means = len(runs[0]), list[Any]()
    confusions = [task.confusions(rows) for rows in runs]
    # (runs, images, K, K): summed for each resample, which is what `headline` does of rows.
    there = [matrices for matrices in confusions if matrices is not None]
    stacked = np.stack(there) if there else None
    for _ in range(task.resamples):
        drawn = rng.integers(count, size=count)
        if stacked is not None:
            weights = np.bincount(drawn, minlength=count)
            summed = np.einsum("n,rnij->rij", weights, stacked)
            means.append(np.mean([100 * scores(matrix)[task.metric[1]] for matrix in summed]))
        else:
            means.append(np.mean([task.headline([rows[i] for i in drawn]) for rows in runs]))
    return means
