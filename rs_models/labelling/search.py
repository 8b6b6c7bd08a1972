"""Search by example: by cosine, or by a small head once there are tiles to differ from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..evaluation.fewshot import FEW_SHOT_C
from ..evaluation.linear import fit_probe
from .index import Index, best


def search(
    index: Index, like: Sequence[str], unlike: Sequence[str] = (), *, k: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """The tiles most like some and unlike others.

    Args:
        index: The table.
        like: Names of tiles of the table, or image files.
        unlike: Names of tiles or image files to differ from; with any of these a logistic
            regression between both orders the tiles.
        k: Tiles to find.

    Returns:
        Rows, best first, without those that were named, and their scores: the cosine with the
        nearest of `like`, or the probability of being like them.

    Raises:
        UserError: A name that is neither a tile nor an image, or that is on both sides.

    Example:
        >>> import numpy as np
        >>> index = Index.of(np.eye(3) + 0.2, names=["a.tif", "b.tif", "c.tif"])
        >>> rows, _ = search(index, ["a.tif"], ["b.tif"], k=1)
        >>> index.names[rows[0]]
        'c.tif'
    """
    if not like:
        raise UserError("Name a tile to look like.")
    wanted, named = _vectors(index, like)
    if not unlike:
        return index.nearest(wanted, k, without=named)
    others, also_named = _vectors(index, unlike)
    both = set(named) & set(also_named)
    if both:
        name = index.names[both.pop()]
        raise UserError(f"{name} is named as like and as unlike: leave one of them out.")
    mean, deviation = index.statistics
    examples = (np.concatenate([wanted, others]) - mean) / deviation
    sides = np.repeat([1, 0], [len(wanted), len(others)])
    probe = fit_probe(examples, sides, c=FEW_SHOT_C)
    weight = (probe.weight[:, 1] - probe.weight[:, 0]).numpy() / deviation
    bias = float(probe.bias[1] - probe.bias[0]) - float(mean @ weight)
    scores = index.product(weight) + bias
    return best(1 / (1 + np.exp(-scores)), k, without=[*named, *also_named])


def _vectors(index: Index, names: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    """Vectors of tiles or files, and the rows of those that are in the table."""
    vectors, rows = [], []
    for name in names:
        row = index.row_of(name)
        if row is not None:
            rows.append(row)
            vectors.append(np.asarray(index.vectors[row], np.float32))
        elif Path(name).is_file():
            vectors.append(index.embed(name))
        else:
            raise UserError(
                f"{name} is neither a tile of the table nor an image file. Its first tiles are "
                f"{', '.join(index.names[:3])}."
            )
    return np.stack(vectors), rows
