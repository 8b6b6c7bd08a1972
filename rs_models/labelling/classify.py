"""A classifier from the labels so far, and how far it can be trusted.

Logistic regression on the table's vectors, standardised by the whole table. Its C is chosen, its
temperature fitted (Guo et al., ICML 2017, arXiv 1706.04599) and its accuracy estimated on scores of
labelled tiles that the classifier had not learned from: each tile left out in turn where there are
few, tenths of them where there are many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import UserError
from .index import Index
from .labels import Labels
from .propagate import NEIGHBOURS, neighbour_graph, propagate

# Half decades: with a few labels accuracy tells neighbours apart, and fits are cheap.
C_GRID = tuple(10.0**exponent for exponent in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0))
# Labels up to which each is left out in turn; beyond, tenths are as good and quicker.
_LEAVE_ONE_OUT = 100
_FOLDS = 10
_ITERATIONS, _TOLERANCE = 300, 1e-4
# Temperatures that are tried, from sharpened to nearly flat.
_TEMPERATURES = np.geomspace(0.05, 20, 121)
# Two-sided 95 % quantile of the normal distribution, for Wilson's interval.
_Z = 1.959964
_BLOCK = 65_536


@dataclass(frozen=True)
class Head:
    """A calibrated linear classifier over a table's vectors.

    Attributes:
        weight: (D, K), for vectors as they are in the table.
        bias: (K,).
        c: Inverse strength of its regularisation, chosen among `C_GRID`.
        temperature: Temperature that its scores are divided by.
        held_out: (n, K) scores of the labelled tiles, each from a classifier without it.
        classes: (n,) what they are labelled.
    """

    weight: np.ndarray
    bias: np.ndarray
    c: float
    temperature: float
    held_out: np.ndarray
    classes: np.ndarray

    @classmethod
    def fit(cls, index: Index, labels: Labels) -> Head:
        """Learns from the labelled tiles.

        Raises:
            UserError: Labels of one class only.
        """
        if len(labels.names) < 2:
            raise UserError(
                f"All labels say {labels.names[0]!r}: a classifier needs tiles of two classes."
            )
        mean, deviation = index.statistics
        x = (np.asarray(index.vectors[labels.rows], np.float32) - mean) / deviation
        basis, x = _basis(torch.from_numpy(x))
        y = torch.from_numpy(labels.classes)
        held_out = _held_out(x, y, _folds(labels.classes))
        right = [float((scores.argmax(1) == y).double().mean()) for scores in held_out]
        loss = [float(cross_entropy(scores, y)) for scores in held_out]
        # Of equally many right answers the least surprised ones.
        number = min(range(len(C_GRID)), key=lambda i: (-right[i], loss[i]))
        c = C_GRID[number]
        weight, bias = _fit(x, y, torch.ones(1, len(y)), c, len(labels.names))
        folded = (basis @ weight[0]).numpy() / deviation[:, None]  # (D, K)
        scores = held_out[number].numpy()
        return cls(
            weight=folded,
            bias=bias[0].numpy() - mean @ folded,
            c=c,
            temperature=_temperature(scores, labels.classes),
            held_out=scores,
            classes=labels.classes,
        )

    def probabilities(self, index: Index) -> np.ndarray:
        """Calibrated probabilities of every tile's class, (N, K) float32."""
        parts = []
        for start in range(0, len(index), _BLOCK):
            block = np.asarray(index.vectors[start : start + _BLOCK], np.float32)
            parts.append(_softmax((block @ self.weight + self.bias) / self.temperature))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Answers:
    """What a table's tiles are, as far as the labels tell.

    Attributes:
        names: Names of the classes.
        probabilities: (N, K), calibrated.
        confidence: Below this probability a tile's class is "unsure".
        accuracy: Estimated share of right answers, in percent, on labelled tiles left out in turn.
        interval: 95 % Wilson interval of `accuracy`.
        calibration_error: Expected calibration error of the same answers, in percent.
        labelled: Labels that the answers come from.
        head: The classifier, whose answers these are where nothing was propagated.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    confidence: float
    accuracy: float
    interval: tuple[float, float]
    calibration_error: float
    labelled: int
    head: Head

    @cached_property
    def classes(self) -> np.ndarray:
        """Class number of each tile, (N,); -1 where it is unsure."""
        sure = self.probabilities.max(1) >= self.confidence
        return np.where(sure, self.probabilities.argmax(1), -1)

    def counts(self) -> dict[str, int]:
        """Class name -> tiles, and "unsure" -> tiles, the last."""
        counted = {name: int((self.classes == i).sum()) for i, name in enumerate(self.names)}
        return {**counted, "unsure": int((self.classes < 0).sum())}


def classify(
    index: Index, labels: Labels, *, confidence: float = 0.5, spread: bool = False
) -> Answers:
    """Classes of all tiles of a table from the labels of some.

    A labelled tile keeps its label.

    Args:
        index: The table.
        labels: So far, of two classes or more.
        confidence: Probability from which on an answer counts as sure, from 0 to 1.
        spread: Let unlabelled tiles help: the labels are propagated over the neighbours' graph and
            both answers are averaged (`propagate`).

    Raises:
        UserError: One class only, or a confidence that is no probability.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> index = Index.of(np.repeat(np.eye(2), 20, axis=0) + 0.1 * rng.normal(size=(40, 2)))
        >>> answers = classify(index, Labels.of({0: "field", 1: "field", 20: "road", 21: "road"}))
        >>> answers.names, answers.classes[[10, 30]].tolist()
        (('field', 'road'), [0, 1])
    """
    if not 0 <= confidence <= 1:
        raise UserError(f"A confidence of {confidence} is no probability: use 0 to 1.")
    head = Head.fit(index, labels)
    probabilities = head.probabilities(index)
    held_out = _softmax(head.held_out / head.temperature)
    if spread:
        given = np.full(len(index), -1)
        given[labels.rows] = labels.classes
        spread_out = propagate(standardised(index), given)
        probabilities = (probabilities + _wide(spread_out, len(labels.names))) / 2
        held_out = (held_out + _propagated_held_out(index, labels)) / 2
    probabilities[labels.rows] = 0
    probabilities[labels.rows, labels.classes] = 1
    right = held_out.argmax(1) == labels.classes
    return Answers(
        names=labels.names,
        probabilities=probabilities.astype(np.float32),
        confidence=confidence,
        accuracy=100 * float(right.mean()),
        interval=wilson(int(right.sum()), len(right)),
        calibration_error=calibration_error(held_out, labels.classes),
        labelled=len(labels),
        head=head,
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, in percent (Wilson, 1927): sensible for few and for all right."""
    share, z = right / count, _Z**2 / count
    middle = (share + z / 2) / (1 + z)
    half = _Z / (1 + z) * float(np.sqrt(share * (1 - share) / count + z / (4 * count)))
    return 100 * max(middle - half, 0.0), 100 * min(middle + half, 1.0)


def calibration_error(probabilities: np.ndarray, classes: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error in percent, over bins of equal width (Naeini et al., AAAI 2015).

    Args:
        probabilities: (n, K), rows that sum to one.
        classes: (n,) true classes.
        bins: Number of bins of the confidence.
    """
    sure = probabilities.max(1)
    right = probabilities.argmax(1) == classes
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == number].mean() - sure[place == number].mean()) * (place == number).sum()
        for number in np.unique(place)
    ]
    return 100 * float(sum(gaps)) / len(classes)


def _propagated_held_out(index: Index, labels: Labels) -> np.ndarray:
    """What the other folds' labels say of each labelled tile by propagation, (n, K)."""
    folds = np.arange(len(labels)) % min(_FOLDS, len(labels))
    vectors = standardised(index)
    graph = neighbour_graph(vectors, NEIGHBOURS)
    told = np.zeros((len(labels), len(labels.names)))
    for fold in np.unique(folds):
        given = np.full(len(index), -1)
        kept = folds != fold
        given[labels.rows[kept]] = labels.classes[kept]
        spread = propagate(vectors, given, graph=graph)
        told[~kept] = _wide(spread, len(labels.names))[labels.rows[~kept]]
    return told


def standardised(index: Index) -> np.ndarray:
    """The table's vectors, each number with mean 0 and deviation 1 over the table, (N, D) float32.

    Cosines of these tell classes better apart than those of the vectors, which share a direction.
    """
    mean, deviation = index.statistics
    return (np.asarray(index.vectors, np.float32) - mean) / deviation


def _wide(probabilities: np.ndarray, classes: int) -> np.ndarray:
    """Columns of zeros for classes that no label of these folds has."""
    return np.pad(probabilities, ((0, 0), (0, classes - probabilities.shape[1])))


def _folds(classes: np.ndarray) -> np.ndarray:
    """Fold of each label: its own where there are few, else tenths with all classes in each."""
    if len(classes) <= _LEAVE_ONE_OUT:
        return np.arange(len(classes))
    folds = np.empty(len(classes), int)
    folds[np.argsort(classes, kind="stable")] = np.arange(len(classes)) % _FOLDS
    return folds


def _basis(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (D, R) that span the rows of x, and x in them (n, R): fewer unknowns."""
    u, sizes, directions = torch.linalg.svd(x.double(), full_matrices=False)
    kept = sizes > 1e-6 * sizes[0].clamp(min=1e-12)
    return directions[kept].T.float(), (u[:, kept] * sizes[kept]).float()


def _held_out(x: Tensor, y: Tensor, folds: np.ndarray) -> list[Tensor]:
    """For each C the scores (n, K) of every row from the classifier that did not see its fold."""
    classes = int(y.max()) + 1
    numbers = torch.from_numpy(folds)
    masks = (numbers[None] != numbers.unique()[:, None]).float()  # (F, n), 1 where learned from
    place = torch.searchsorted(numbers.unique(), numbers)
    rows = torch.arange(len(y))
    held_out: list[Tensor] = []
    start: tuple[Tensor, Tensor] | None = None
    for c in C_GRID:
        start = _fit(x, y, masks, c, classes, start)
        scores = torch.einsum("nr,frk->fnk", x, start[0]) + start[1][:, None]
        held_out.append(scores[place, rows])
    return held_out


def _fit(
    x: Tensor,
    y: Tensor,
    masks: Tensor,
    c: float,
    classes: int,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logistic regressions of all folds at once.

    Args:
        x: (n, R).
        y: (n,).
        masks: (F, n), 1 for the rows that a fold learns from.
        c: Weight of the summed cross-entropy against half the squared norm of the weights.
        classes: Number of classes K.
        start: Weights and biases to start from.

    Returns:
        Weights (F, R, K) and biases (F, K).
    """
    folds, width = len(masks), x.shape[1]
    # In units of the directions' sizes all variables curve alike, and L-BFGS takes few steps.
    scale = (x.square().mean(0) / 2 + 1 / (c * len(y))).rsqrt()[:, None]  # (R, 1)
    weight = start[0] / scale if start else torch.zeros(folds, width, classes)
    bias = (start[1] if start else torch.zeros(folds, classes)).clone().requires_grad_()
    weight = weight.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=_TOLERANCE,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    targets = y.expand(folds, -1)

    def loss() -> Tensor:
        optimizer.zero_grad()
        scaled = weight * scale
        scores = torch.einsum("nr,frk->fnk", x, scaled) + bias[:, None]
        errors = cross_entropy(scores.transpose(1, 2), targets, reduction="none")  # (F, n)
        value = (errors * masks).sum() / len(y) + scaled.square().sum() / (2 * c * len(y))
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return (weight * scale).detach(), bias.detach()


def _temperature(scores: np.ndarray, classes: np.ndarray) -> float:
    """The temperature at which held-out answers are least surprised."""
    y = torch.from_numpy(classes)
    losses = [float(cross_entropy(torch.from_numpy(scores / t), y)) for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _softmax(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.asarray(scores, np.float32)).softmax(1).numpy()
