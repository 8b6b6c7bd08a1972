"""A calibrated linear classifier over a table's vectors, from the labels so far.

Logistic regression on the table's vectors, standardised by the whole table. Its C is chosen and its
temperature fitted (Guo et al., ICML 2017, arXiv 1706.04599) on scores of labelled tiles that the
classifier had not learned from: each tile left out in turn where there are few, tenths of them
where there are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import UserError
from .index import Index
from .labels import Labels

# Half decades: with a few labels accuracy tells neighbours apart, and fits are cheap.
C_GRID = tuple(10.0**exponent for exponent in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0))
# Labels up to which each is left out in turn; beyond, tenths are as good and quicker.
_LEAVE_ONE_OUT = 100
_FOLDS = 10
_ITERATIONS, _TOLERANCE = 300, 1e-4
# Temperatures that are tried, from sharpened to nearly flat.
_TEMPERATURES = np.geomspace(0.05, 20, 121)
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
            temperature=fitted_temperature(scores, labels.classes),
            held_out=scores,
            classes=labels.classes,
        )

    def probabilities(self, index: Index) -> np.ndarray:
        """Calibrated probabilities of every tile's class, (N, K) float32."""
        parts = []
        for start in range(0, len(index), _BLOCK):
            block = np.asarray(index.vectors[start : start + _BLOCK], np.float32)
            parts.append(softmax((block @ self.weight + self.bias) / self.temperature))
        return np.concatenate(parts)

    def left_out(self, index: Index, labels: Labels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Answers of classifiers like this one that have not seen some of the labels.

        Args:
            index: The table.
            labels: Those that this classifier has learned from.

        Yields:
            (n,) bool, which labels were left out, a tenth of them; and the probabilities of every
            tile's class without them, (N, K).
        """
        mean, deviation = index.statistics
        x = (np.asarray(index.vectors[labels.rows], np.float32) - mean) / deviation
        basis, x = _basis(torch.from_numpy(x))
        folds = _tenths(labels.classes)
        numbers = np.unique(folds)
        masks = torch.from_numpy((folds[None] != numbers[:, None]).astype(np.float32))
        weights, biases = _fit(
            x, torch.from_numpy(labels.classes), masks, self.c, len(labels.names)
        )
        for number, weight, bias in zip(numbers, weights, biases, strict=True):
            folded = (basis @ weight).numpy() / deviation[:, None]
            without = replace(self, weight=folded, bias=bias.numpy() - mean @ folded)
            yield folds == number, without.probabilities(index)


def _folds(classes: np.ndarray) -> np.ndarray:
    """Fold of each label: its own where there are few, else tenths with all classes in each."""
    return np.arange(len(classes)) if len(classes) <= _LEAVE_ONE_OUT else _tenths(classes)


def _tenths(classes: np.ndarray) -> np.ndarray:
    """Fold of each label, the classes spread over them."""
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


def fitted_temperature(scores: np.ndarray, classes: np.ndarray) -> float:
    """The temperature at which held-out answers are least surprised."""
    y = torch.from_numpy(classes)
    losses = [float(cross_entropy(torch.from_numpy(scores / t), y)) for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores, row by row, (n, K) float32."""
    return torch.from_numpy(np.asarray(scores, np.float32)).softmax(1).numpy()
