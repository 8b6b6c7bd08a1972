"""Labels and answers spread over the neighbours' graph, so that tiles without a label help.

Zhou et al., "Learning with Local and Global Consistency", NeurIPS 2003: F = (I - alpha S)^-1 Y with
the normalised affinity S of a k-nearest-neighbour graph, on deep features as Iscen et al., CVPR
2019 (arXiv 1904.04717), have it, with cosines to the third power as affinities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Iscen et al., section 4.2. Their alpha is 0.99 and their neighbours 50, of 50,000 images; on AID,
# EuroSAT and UC Merced 0.9 and 15 gave more beside a classifier at five labels a class.
_POWER = 3
ALPHA = 0.9
NEIGHBOURS = 15
# On validation images of AID, EuroSAT and UC Merced (RSISC, five labels a class, five draws) a
# classifier gained 3.6, 2.0 to 2.4 and 4.3 to 4.4 points with this share and this ridge, and next
# to nothing on UC Merced without whitening. Shares of 0.7 and 0.9, ridges of 0.3 and 3, and 10 or
# 20 neighbours were within a point.
SMOOTHING = 0.8
_RIDGE = 1.0
# Rounds in which classes are brought towards each other.
_BALANCING = 3
# More tiles than this take hours: every one is compared with every other.
MOST = 200_000
_BLOCK = 2048
_STEPS, _CLOSE = 100, 1e-5


def propagate(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    neighbours: int = NEIGHBOURS,
    alpha: float = ALPHA,
    graph: csr_array | None = None,
) -> np.ndarray:
    """Probabilities of every tile's class from the labels of some.

    Args:
        embeddings: (N, D) vectors of any length, compared by their cosines.
        labels: (N,) class numbers, -1 for tiles without a label.
        neighbours: Number of neighbours of each tile in the graph.
        alpha: Share of a tile's score that comes from its neighbours, below 1.
        graph: What `neighbour_graph` gives for these embeddings, where it is wanted several times.

    Returns:
        (N, K) float32, rows that sum to one. A tile that no label reaches has the same probability
        of all classes. Classes weigh the same, however many labels they have.

    Raises:
        UserError: No labels, or more tiles than can be compared.

    Example:
        >>> import numpy as np
        >>> vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
        >>> propagate(vectors, np.array([0, -1, 1, -1]), neighbours=1).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    labels = np.asarray(labels)
    if not (labels >= 0).any():
        raise UserError("There are no labels to spread: label a tile of each class.")
    graph = neighbour_graph(embeddings, neighbours) if graph is None else graph
    return _spread(graph, labels, int(labels.max()) + 1, alpha)


def smoothed(
    graph: csr_array, probabilities: np.ndarray, labels: np.ndarray, *, alpha: float = SMOOTHING
) -> np.ndarray:
    """A classifier's answers and the labels, both spread over the graph, half and half.

    Answers become more like those of the tile's neighbours, labels are held fast ("correct and
    smooth", Huang et al., ICLR 2021, arXiv 2010.13993, its second step), and `propagate` adds what
    labels alone say. Classes that are answered often grow in this; the root of how often takes
    them back.

    Args:
        graph: From `neighbour_graph`, N tiles.
        probabilities: (N, K) answers.
        labels: (N,) class numbers, -1 for tiles without a label.
        alpha: Share of a tile's answer that comes from its neighbours, below 1.

    Returns:
        (N, K) float32, rows that sum to one.

    Example:
        >>> import numpy as np
        >>> graph = neighbour_graph(np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]]), 1)
        >>> doubtful = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.5, 0.5]])
        >>> smoothed(graph, doubtful, np.array([0, -1, 1, -1])).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    start = np.array(probabilities, np.float32)
    known = np.flatnonzero(labels >= 0)
    start[known] = 0
    start[known, labels[known]] = 1
    answers = _shares(_solve(graph, start, alpha).clip(0))
    told = _spread(graph, labels, start.shape[1], ALPHA)
    return (_balanced(answers) + _balanced(told)) / 2


def whitened(embeddings: np.ndarray) -> np.ndarray:
    """Vectors in which no few directions outweigh all others, (N, D) float32.

    Neighbours by these are more often of one class than neighbours by the vectors as they are.

    Args:
        embeddings: (N, D).
    """
    from ..evaluation.readout import Whitening

    return Whitening.fit(embeddings, ridge=_RIDGE)(embeddings)


def neighbour_graph(embeddings: np.ndarray, neighbours: int) -> csr_array:
    """Symmetric affinities of the k-nearest-neighbour graph, normalised by both ends' degrees.

    Args:
        embeddings: (N, D).
        neighbours: Number of neighbours of each tile.

    Returns:
        (N, N) sparse, its largest eigenvalue 1 or less.

    Raises:
        UserError: More tiles than can be compared.
    """
    import torch
    from scipy.sparse import csr_array, diags_array

    count = len(embeddings)
    if count > MOST:
        raise UserError(f"{count} tiles are too many to compare all pairs: use at most {MOST}.")
    neighbours = min(neighbours, count - 1)
    unit = torch.nn.functional.normalize(torch.from_numpy(np.array(embeddings, np.float32)), dim=1)
    columns = np.empty((count, neighbours), np.int64)
    values = np.empty((count, neighbours), np.float32)
    for first in range(0, count, _BLOCK):
        cosines = unit[first : first + _BLOCK] @ unit.T
        rows = torch.arange(len(cosines))
        cosines[rows, rows + first] = -2  # a tile is no neighbour of itself
        top = cosines.topk(neighbours, dim=1)
        columns[first : first + _BLOCK] = top.indices.numpy()
        values[first : first + _BLOCK] = top.values.clamp(min=0).pow(_POWER).numpy()
    rows_of = np.repeat(np.arange(count), neighbours)
    one_way = csr_array((values.ravel(), (rows_of, columns.ravel())), shape=(count, count))
    both = one_way + one_way.T
    degrees = np.asarray(both.sum(1)).ravel()
    scale = diags_array(1 / np.sqrt(np.maximum(degrees, 1e-12)))
    return csr_array(scale @ both @ scale)


def _spread(graph: csr_array, labels: np.ndarray, classes: int, alpha: float) -> np.ndarray:
    """What the labels alone say of each tile, (N, K); classes weigh the same."""
    start = np.zeros((len(labels), classes), np.float32)
    labelled = np.flatnonzero(labels >= 0)
    start[labelled, labels[labelled]] = 1
    start /= np.maximum(start.sum(0), 1)
    return _shares(_solve(graph, start, alpha).clip(0))


def _shares(scores: np.ndarray) -> np.ndarray:
    """Rows brought to a sum of one; without any score, the same of all classes."""
    total = scores.sum(1, keepdims=True)
    even = np.full_like(scores, 1 / scores.shape[1])
    return np.divide(scores, total, out=even, where=total > 1e-12)


def _balanced(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities in which frequent classes are less so."""
    for _ in range(_BALANCING):
        mean = probabilities.mean(0)
        probabilities = _shares(probabilities / np.sqrt(mean.clip(1e-12)))
    return probabilities


def _solve(graph: csr_array, start: np.ndarray, alpha: float) -> np.ndarray:
    """(I - alpha S)^-1 Y by conjugate gradients, all classes side by side."""
    solution = np.zeros_like(start)
    residual = start.copy()
    direction = residual.copy()
    size = np.square(residual).sum(0)  # (K,)
    first = np.maximum(size, 1e-30)
    for _ in range(_STEPS):
        applied = direction - alpha * (graph @ direction)
        step = size / np.maximum((direction * applied).sum(0), 1e-30)
        solution += step * direction
        residual -= step * applied
        new = np.square(residual).sum(0)
        if (new / first).max() < _CLOSE**2:
            break
        direction = residual + new / np.maximum(size, 1e-30) * direction
        size = new
    return solution
