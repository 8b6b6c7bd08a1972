"""Which tiles to label next.

With few labels or none: TypiClust (Hacohen et al., ICML 2022, arXiv 2202.02794), the most typical
tile of each cluster that holds no label yet. With more: tiles that the present classifier is least
sure of, spread over clusters of such tiles so that they are not all alike (Citovsky et al., NeurIPS
2021, arXiv 2107.14263, cluster-margin in its simplest form).
"""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from .index import Index
from .labels import Labels

# TypiClust's constants (its section 3.2): neighbours of a tile's typicality, clusters at most, and
# the smallest cluster that is drawn from.
_NEIGHBOURS, _MOST_CLUSTERS, _LEAST_CLUSTER = 20, 500, 5
# Labels a class, on average, from which on doubt is worth more than typicality.
_ENOUGH = 10
# Doubtful tiles that are looked at for each one that is suggested.
_CANDIDATES = 10
# Rows that clusters are found on; the rest is only assigned.
_SAMPLE = 20_000
_ITERATIONS = 20


def suggest(
    index: Index, n: int = 20, *, labels: Labels | None = None, seed: int = 0
) -> np.ndarray:
    """Rows of the tiles to label next, the most useful first.

    Args:
        index: The table.
        n: Tiles to suggest.
        labels: So far; None while there are none.
        seed: Of the clusters' starts; the same seed gives the same tiles.

    Returns:
        (n,) rows without a label, fewer where no more are left.

    Raises:
        UserError: Fewer than one tile asked for, or none left.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> centres = np.repeat(np.eye(3), 10, axis=0)
        >>> index = Index.of(centres + 0.1 * rng.normal(size=(30, 3)))
        >>> sorted(int(row) // 10 for row in suggest(index, 3))  # one of each group
        [0, 1, 2]
    """
    if n < 1:
        raise UserError(f"{n} tiles are asked for: ask for one or more.")
    known = labels.rows if labels is not None else np.zeros(0, np.int64)
    left = len(index) - len(known)
    if left < 1:
        raise UserError("Every tile of the table has a label already.")
    n = min(n, left)
    several = labels is not None and len(labels.names) > 1
    if several and labels is not None and len(labels) >= _ENOUGH * len(labels.names):
        return _doubtful(index, n, labels, seed)
    return _typical(index, n, known, seed)


def _typical(index: Index, n: int, known: np.ndarray, seed: int) -> np.ndarray:
    """The most typical tile of each of the largest clusters without a label."""
    unit = _unit(index)
    clusters = min(len(known) + n, _MOST_CLUSTERS, len(index))
    assigned = _clustered(unit, clusters, seed)
    chosen: list[int] = []
    taken = np.zeros(len(index), bool)
    taken[known] = True
    while len(chosen) < n:
        labelled = np.bincount(assigned[taken], minlength=clusters)
        sizes = np.bincount(assigned[~taken], minlength=clusters)
        large = sizes >= _LEAST_CLUSTER
        # Clusters with the fewest labels first; among them the largest; small ones last.
        order = np.lexsort((-sizes, labelled, ~large, sizes == 0))
        cluster = int(order[0])
        members = np.flatnonzero((assigned == cluster) & ~taken)
        row = int(members[np.argmax(_typicality(unit[members]))])
        chosen.append(row)
        taken[row] = True
    return np.array(chosen, np.int64)


def _doubtful(index: Index, n: int, labels: Labels, seed: int) -> np.ndarray:
    """The least sure tile of each of n clusters of doubtful tiles."""
    from .classify import Head

    head = Head.fit(index, labels)
    probabilities = head.probabilities(index)
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    margin = np.abs(top[:, 1] - top[:, 0])
    margin[labels.rows] = np.inf
    free = len(index) - len(labels)
    rows = np.argsort(margin, kind="stable")[: min(_CANDIDATES * n, free)]
    assigned = _clustered(_unit(index, rows), min(n, len(rows)), seed)
    chosen = [int(rows[np.flatnonzero(assigned == cluster)[0]]) for cluster in np.unique(assigned)]
    rest = [int(row) for row in rows if int(row) not in set(chosen)]
    chosen += rest[: n - len(chosen)]
    return np.array(sorted(chosen, key=lambda row: (margin[row], row)), np.int64)


def _unit(index: Index, rows: np.ndarray | None = None) -> np.ndarray:
    vectors = np.array(index.vectors if rows is None else index.vectors[rows], np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def _clustered(unit: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster of each vector by k-means, found on a sample where there are many."""
    import torch
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    sample = unit
    if len(unit) > _SAMPLE:
        sample = unit[np.sort(rng.choice(len(unit), _SAMPLE, replace=False))]
    with np.errstate(all="ignore"):
        centres, _ = kmeans2(
            sample.astype(np.float64), clusters, iter=_ITERATIONS, minit="++", rng=rng
        )
    middle = torch.from_numpy(centres.astype(np.float32))
    nearest = [torch.cdist(block, middle).argmin(1) for block in torch.from_numpy(unit).split(8192)]
    return torch.cat(nearest).numpy()


def _typicality(members: np.ndarray) -> np.ndarray:
    """One over the mean distance to the nearest neighbours in the cluster, (M,)."""
    import torch

    vectors = torch.from_numpy(members[:5000])  # of a huge cluster the first ones say enough
    k = min(_NEIGHBOURS, len(vectors) - 1)
    if k < 1:
        return np.ones(len(members))
    nearest = torch.cdist(vectors, vectors).topk(k + 1, largest=False).values[:, 1:]
    typicality = np.zeros(len(members))
    typicality[: len(vectors)] = 1 / nearest.mean(1).clamp(min=1e-12).numpy()
    return typicality
