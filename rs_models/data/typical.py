"""The most typical rows of a pile, cluster by cluster: which to label first.

TypiClust (Hacohen et al., ICML 2022, arXiv 2202.02794): k-means into as many clusters as there will
be labels, and of each cluster that holds no label yet the row with the nearest neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError

# TypiClust's constants (its section 3.2): neighbours of a row's typicality, clusters at most, and
# the smallest cluster that is drawn from.
_NEIGHBOURS, _MOST_CLUSTERS, _LEAST_CLUSTER = 20, 500, 5
# Rows that clusters are found on; the rest is only assigned to them.
_SAMPLE = 20_000
_ITERATIONS = 20
# Rows of one cluster that are compared with each other.
_COMPARED = 5_000


def typical_draw(
    features: ArrayLike, n: int, *, known: Sequence[int] | np.ndarray = (), seed: int = 0
) -> np.ndarray:
    """Draws the most typical row of each of the largest clusters without a label.

    Args:
        features: (N, D), compared by their directions.
        n: Rows to draw.
        known: Rows that have a label already; none of them is drawn.
        seed: Seed of the clusters' starts.

    Returns:
        (n,) int64 row indices, the first drawn first.

    Raises:
        UserError: Fewer rows without a label than are asked for.
    """
    vectors = np.array(features, np.float32)
    taken = np.zeros(len(vectors), bool)
    taken[np.asarray(known, np.int64)] = True
    if not 1 <= n <= (~taken).sum():
        raise UserError(
            f"{n} rows are asked for, but {(~taken).sum()} have no label: ask for fewer."
        )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    clusters = min(int(taken.sum()) + n, _MOST_CLUSTERS, len(unit))
    assigned = clustered(unit, clusters, seed)
    # With many labels of few rows most clusters are that small.
    least = min(_LEAST_CLUSTER, len(unit) / (2 * clusters))
    drawn: list[int] = []
    while len(drawn) < n:
        labelled = np.bincount(assigned[taken], minlength=clusters)
        sizes = np.bincount(assigned[~taken], minlength=clusters)
        # Clusters with the fewest labels first, of these the largest; small ones come last.
        order = np.lexsort((-sizes, labelled, sizes < least, sizes == 0))
        members = np.flatnonzero((assigned == order[0]) & ~taken)
        row = int(members[np.argmax(_typicality(unit[members]))])
        drawn.append(row)
        taken[row] = True
    return np.array(drawn, np.int64)


def clustered(unit: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster of each vector (N, D) by k-means, (N,); found on a sample where there are many."""
    import torch
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    sample = unit
    if len(unit) > _SAMPLE:
        sample = unit[np.sort(rng.choice(len(unit), _SAMPLE, replace=False))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster keeps its centre, which does no harm
        centres, _ = kmeans2(
            sample.astype(np.float64), clusters, iter=_ITERATIONS, minit="++", rng=rng
        )
    middle = torch.from_numpy(centres.astype(np.float32))
    nearest = [torch.cdist(block, middle).argmin(1) for block in torch.from_numpy(unit).split(8192)]
    return torch.cat(nearest).numpy()


def _typicality(members: np.ndarray) -> np.ndarray:
    """One over the mean distance to the nearest neighbours in the cluster, (M,)."""
    import torch

    vectors = torch.from_numpy(members[:_COMPARED])
    count = min(_NEIGHBOURS, len(vectors) - 1)
    if count < 1:
        return np.ones(len(members))
    nearest = torch.cdist(vectors, vectors).topk(count + 1, largest=False).values[:, 1:]
    typicality = np.zeros(len(members))
    typicality[: len(vectors)] = 1 / nearest.mean(1).clamp(min=1e-12).numpy()
    return typicality
