"""Which rows are drawn: few-shot draws and the order of an epoch.

Everything here is a pure function of its arguments (labels, sizes, seed, epoch), so that a draw can
be repeated, and so that every process of a job computes the same order and takes its own slice of
it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError

SamplingMode = Literal["natural", "class_balanced"]


def few_shot_draw(
    labels: ArrayLike, n: int, seed: int, *, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Draws `n` rows of every class.

    For one seed the draws are nested: the 5 rows of a class are among its 20, and those among its
    50.

    Args:
        labels: (N,) class indices; negative ones mark rows without a label and are never drawn.
        n: Rows per class.
        seed: One seed, one nested family of draws.
        class_names: Names for the error message.

    Returns:
        Sorted int64 row indices, (classes * n,).

    Raises:
        UserError: A class has fewer than `n` rows.
    """
    values = np.asarray(labels)
    drawn = []
    for label in _classes(values):
        rows = np.flatnonzero(values == label)
        if len(rows) < n:
            name = class_names[label] if class_names is not None else f"class {label}"
            raise UserError(
                f"Class {name!r} has {len(rows)} labelled rows, {n} per class are asked for: ask "
                f"for at most {len(rows)} or leave the class out."
            )
        # A generator per class: adding a class elsewhere does not change this one's draw.
        drawn.append(np.random.default_rng([seed, int(label)]).permutation(rows)[:n])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def share_draw(labels: ArrayLike, share: float, seed: int) -> np.ndarray:
    """Draws the same share of every class, at least one row each.

    For one seed the draws are nested, in each other and in those of `few_shot_draw`.

    Args:
        labels: (N,) class indices; negative ones mark rows without a label and are never drawn.
        share: From above 0 to 1.
        seed: One seed, one nested family of draws.

    Returns:
        Sorted int64 row indices.
    """
    values = np.asarray(labels)
    drawn = []
    for label in _classes(values):
        rows = np.random.default_rng([seed, int(label)]).permutation(
            np.flatnonzero(values == label)
        )
        drawn.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def long_tailed_draw(labels: ArrayLike, imbalance: float, seed: int) -> np.ndarray:
    """Draws a long-tailed subset: class sizes fall exponentially from the first class to the last.

    The usual benchmark of imbalance (Cui et al., CVPR 2019, arXiv 1901.05555): where the smallest
    class has n rows, class k of K keeps n * imbalance ** (-k / (K - 1)). Which is which is drawn.

    Args:
        labels: (N,) class indices; negative ones are never drawn.
        imbalance: Size of the largest class over that of the smallest, 1 or more.
        seed: Seed of the classes' order and of the rows.

    Returns:
        Sorted int64 row indices; every class has one row or more.

    Raises:
        UserError: An imbalance below 1, or no labels.
    """
    if not imbalance >= 1:
        raise UserError(f"The setting imbalance is {imbalance}: it must be 1 or more.")
    values = np.asarray(labels)
    classes = _classes(values)
    order = np.random.default_rng(seed).permutation(len(classes))
    most = min(int((values == label).sum()) for label in classes)
    drawn = []
    for place, number in enumerate(order):
        label = int(classes[number])
        share = place / max(1, len(classes) - 1)
        keep = max(1, round(most * imbalance**-share))
        rows = np.flatnonzero(values == label)
        drawn.append(np.random.default_rng([seed, label]).permutation(rows)[:keep])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def feature_balanced_draw(features: ArrayLike, n: int, *, clusters: int, seed: int) -> np.ndarray:
    """Draws rows evenly over k-means clusters of their features (TOV's feature-guided resampling).

    What repeats in a collection falls into few clusters, and a plain draw is full of it; drawing
    cluster by cluster covers what there is and stays balanced without any label. Features are
    brought to unit length first, as they are compared elsewhere.

    Args:
        features: (N, D) floats.
        n: Rows to draw, at most N.
        clusters: Number of clusters, at most N; more of them cover finer.
        seed: Seed of the clusters' starts and of the draw.

    Returns:
        (n,) sorted int64 row indices. Clusters that are smaller than their share give all they
        have, the others the rest.

    Raises:
        UserError: More rows or clusters than there are, or features that are not finite.
    """
    from scipy.cluster.vq import kmeans2

    x = np.asarray(features, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise UserError("Features must be finite numbers, one row an image: leave out what is not.")
    if not 1 <= n <= len(x) or not 1 <= clusters <= len(x):
        raise UserError(
            f"{n} rows of {clusters} clusters are asked for, but there are {len(x)}: ask for fewer."
        )
    x = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    _, member = kmeans2(x, clusters, iter=30, minit="++", missing="warn", seed=seed)
    rng = np.random.default_rng(seed)
    queues = [rng.permutation(np.flatnonzero(member == k)) for k in range(clusters)]
    # Round by round one of each cluster, in an order that is drawn once.
    queues = [queues[k] for k in rng.permutation(clusters)]
    rounds = max(map(len, queues))
    drawn = [queue[r] for r in range(rounds) for queue in queues if r < len(queue)]
    return np.sort(np.asarray(drawn[:n], np.int64))


def image_draw(n: int, count: int, seed: int) -> np.ndarray:
    """Draws images that have no single class: masks, boxes, several labels.

    For one seed the draws are nested.

    Args:
        n: Number of rows there are.
        count: Number of rows to draw.
        seed: One seed, one nested family of draws.

    Returns:
        Sorted int64 row indices, (count,).

    Raises:
        UserError: There are fewer than `count` rows.
    """
    if count > n:
        raise UserError(f"{count} labelled images are asked for, but there are {n}: ask for fewer.")
    return np.sort(np.random.default_rng([seed, n]).permutation(n)[:count]).astype(np.int64)


def hash_indices(indices: ArrayLike) -> str:
    """A hash (16 hex digits) of row indices in their order, to name a draw."""
    data = np.ascontiguousarray(np.asarray(indices), dtype="<i8").tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def epoch_indices(
    n: int,
    *,
    labels: ArrayLike | None = None,
    mode: SamplingMode = "natural",
    seed: int,
    epoch: int,
) -> np.ndarray:
    """The rows of one epoch in the order in which they are used.

    `natural`: a permutation of all rows, so classes come in proportion to their size.
    `class_balanced`: `n` draws with replacement, each of a class chosen uniformly and then of a
    row of that class chosen uniformly; every class has the same expected number of draws (n /
    classes), however rare it is. Within a class rows are used up before one repeats, so that a
    large class is covered as evenly as its share allows. Rows with a negative label (none known)
    are never drawn.

    The order depends on the arguments alone, never on the number of processes: take every k-th
    index, or slices of each global batch, per process.

    Args:
        n: Rows in the data set, and the length of the epoch.
        labels: (n,) guidance labels, needed for `class_balanced`.
        mode: "natural" or "class_balanced".
        seed: The run's seed.
        epoch: The epoch's number.

    Returns:
        (n,) int64.

    Raises:
        UserError: Unknown mode, missing labels, or labels of another length.
    """
    rng = np.random.default_rng([seed, epoch])
    if mode == "natural":
        return rng.permutation(n)
    if mode != "class_balanced":
        raise UserError(f"Unknown sampling mode {mode!r}: use 'natural' or 'class_balanced'.")
    if labels is None:
        raise UserError(
            "Class-balanced sampling needs guidance labels, and the data has no 'label' column."
        )
    values = np.asarray(labels)
    if len(values) != n:
        raise UserError(f"{len(values)} labels were given for {n} rows: give one label per row.")
    classes = _classes(values)
    drawn = classes[rng.integers(len(classes), size=n)]
    order = np.empty(n, dtype=np.int64)
    for label in classes:
        places = np.flatnonzero(drawn == label)
        rows = np.flatnonzero(values == label)
        rounds = -(-len(places) // len(rows))
        order[places] = np.concatenate([rng.permutation(rows) for _ in range(rounds)] or [rows])[
            : len(places)
        ]
    return order


def _classes(labels: np.ndarray) -> np.ndarray:
    """The class indices that occur, without the negative ones."""
    classes = np.unique(labels)
    classes = classes[classes >= 0]
    if len(classes) == 0:
        raise UserError(
            "No row has a label: sampling by class needs a 'label' column with class indices."
        )
    return classes
