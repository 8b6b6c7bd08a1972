"""Which tiles to label next.

With few labels or none: the most typical tile of each cluster that holds no label yet
(`data.typical`). With more: tiles that the present classifier is least sure of, spread over
clusters of such tiles so that they are not all alike (Citovsky et al., NeurIPS 2021, arXiv
2107.14263, cluster-margin in its simplest form).
"""

from __future__ import annotations

import numpy as np

from ..data.typical import clustered, typical_draw
from ..errors import UserError
from .index import Index
from .labels import Labels

# Labels a class, on average, from which on doubt is worth more than typicality.
_ENOUGH = 10
# Doubtful tiles that are looked at for each one that is suggested.
_CANDIDATES = 10


def suggest(
    index: Index, n: int = 20, *, labels: Labels | None = None, seed: int = 0
) -> np.ndarray:
    """Rows of the tiles to label next, the most useful first.

    Args:
        index: The table.
        n: Tiles to suggest.
        labels: So far; None while there are none.
        seed: Seed of the clusters' starts; the same seed gives the same tiles.

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
    return typical_draw(index.vectors, n, known=known, seed=seed)


def _doubtful(index: Index, n: int, labels: Labels, seed: int) -> np.ndarray:
    """The least sure tile of each of n clusters of doubtful tiles."""
    from .head import Head

    head = Head.fit(index, labels)
    probabilities = head.probabilities(index)
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    margin = np.abs(top[:, 1] - top[:, 0])
    margin[labels.rows] = np.inf
    free = len(index) - len(labels)
    rows = np.argsort(margin, kind="stable")[: min(_CANDIDATES * n, free)]
    vectors = np.array(index.vectors[rows], np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    assigned = clustered(unit, min(n, len(rows)), seed)
    chosen = [int(rows[np.flatnonzero(assigned == cluster)[0]]) for cluster in np.unique(assigned)]
    rest = [int(row) for row in rows if int(row) not in set(chosen)]
    chosen += rest[: n - len(chosen)]
    return np.array(sorted(chosen, key=lambda row: (margin[row], row)), np.int64)
