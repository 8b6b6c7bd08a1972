"""What every protocol says of itself, and the one thing that it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .answers import Answers, Material


@dataclass(frozen=True)
class Protocol(ABC):
    """How features are measured.

    Attributes:
        name: As it was asked for.
        number: Neighbours, or labels a class; 0 means all labels.
        pixels: Side that images are brought to; None means the encoder's own.
        stages: Whether all stages are read, see `readout`.
        pattern: Regular expression of the kind's names, without what follows an "@".
        needs: Splits whose labelled features are needed.
        may_use: Splits whose features are used where they are there.
        wants: What must be known of the training images: "places" or "files".
        splits_itself: Whether images of one split are learned from and counted; whitening by all of
            them would see those that are counted.
        metric: What the answers are.
    """

    name: str
    number: int = 0
    pixels: int | None = None
    stages: bool = False

    pattern: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("train", "test")
    may_use: ClassVar[tuple[str, ...]] = ()
    wants: ClassVar[str | None] = None
    splits_itself: ClassVar[bool] = False
    metric: ClassVar[str] = "accuracy"

    @property
    def learns_from(self) -> str:
        """The split that probes learn from."""
        return self.needs[0]

    @property
    def counts(self) -> str:
        """The split whose images are counted."""
        return self.needs[-1]

    @property
    def view(self) -> str | None:
        """What is done to the counted images, a key of `qualities.VIEWS`; None for nothing."""
        return None

    def shown(self, source: str | None) -> str:
        """The name in results.

        Args:
            source: Name of the data set that is learned from, where it is another.
        """
        return self.name

    def too_small(self, labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> str:
        """Why the data is too small; empty where it is not.

        Args:
            labels: (N,) classes of each split that the protocol needs.
            classes: Their names.
        """
        return ""

    @abstractmethod
    def measure(self, material: Material) -> Answers:
        """Measures the features.

        Args:
            material: Features and labels of what the protocol needs.
        """


def few_of_a_class(labels: np.ndarray, number: int, classes: Sequence[str] | None) -> str:
    """Why so many labels a class cannot be drawn; empty where they can."""
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < number:
            name = classes[label] if classes is not None else f"class {label}"
            return f"class {name!r} has {count} labelled rows, {number} per class are asked for"
    return ""
