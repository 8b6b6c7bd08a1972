"""A classifier from the labels so far, and how far it can be trusted.

Logistic regression (`head`), whose accuracy is estimated on labelled tiles that the classifier had
not learned from; its answers may be smoothed over the graph of neighbours (`propagate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import UserError
from .head import Head, fitted_temperature, softmax
from .index import Index
from .labels import UNSURE, Labels
from .propagate import NEIGHBOURS, neighbour_graph, smoothed, whitened

# Two-sided 95 % quantile of the normal distribution, for Wilson's interval.
_Z = 1.959964


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
        return {**counted, UNSURE: int((self.classes < 0).sum())}


def classify(
    index: Index, labels: Labels, *, confidence: float = 0.5, spread: bool = False
) -> Answers:
    """Classes of all tiles of a table from the labels of some.

    A labelled tile keeps its label.

    Args:
        index: The table.
        labels: So far, of two classes or more.
        confidence: Probability from which on an answer counts as sure, from 0 to 1.
        spread: Let unlabelled tiles help: the answers are smoothed over the neighbours' graph
            (`propagate.smoothed`).

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
    if spread:
        probabilities, held_out = _spread(index, labels, head)
    else:
        probabilities = head.probabilities(index)
        held_out = softmax(head.held_out / head.temperature)
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


def _spread(index: Index, labels: Labels, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """The classifier's answers smoothed over the graph; and those to labels that it had not seen.

    Returns:
        (N, K) and (n, K), both calibrated by the latter.
    """
    graph = neighbour_graph(whitened(index.vectors), NEIGHBOURS)

    def smooth(probabilities: np.ndarray, kept: np.ndarray) -> np.ndarray:
        known = np.full(len(index), -1)
        known[labels.rows[kept]] = labels.classes[kept]
        return np.log(smoothed(graph, probabilities, known).clip(1e-9))

    held_out = np.zeros((len(labels), len(labels.names)))
    for out, probabilities in head.left_out(index, labels):
        held_out[out] = smooth(probabilities, ~out)[labels.rows[out]]
    temperature = fitted_temperature(held_out, labels.classes)
    scores = smooth(head.probabilities(index), np.ones(len(labels), bool))
    return softmax(scores / temperature), softmax(held_out / temperature)
