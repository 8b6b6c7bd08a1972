"""What a setting may be, said where it is declared: `lr: Annotated[float, Range(above=0)]`.

`settings.build` refuses what is outside while it reads a file or a command line, and
`settings.check_ranges` does for an object that was made in Python. Numbers that are not finite are
refused everywhere, so a number that may be anything needs no range; one that has none should say so
(`Finite`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from ..errors import UserError

# The largest whole number that all libraries below take; no count of ours comes near it.
_LARGEST = 2**31 - 1
# The largest side in pixels of an image that is held in memory as a whole.
LARGEST_SIDE = 16384


class OutOfRange(UserError):
    """A setting of the right type that means nothing."""


@dataclass(frozen=True)
class Range:
    """Which numbers a setting may be; finite in any case.

    Attributes:
        least: Smallest that it may be.
        most: Largest that it may be.
        above: It must be larger than this.
        below: It must be smaller than this.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def check(self, key: str, value: float) -> None:
        """Refuses a number that is outside.

        Args:
            key: The setting's dotted name, for the sentence.
            value: Its value.

        Raises:
            OutOfRange: Naming the setting and the bound.
        """
        if not math.isfinite(value):
            raise OutOfRange(f"{key}={value} should be a finite number.")
        if self.least is not None and value < self.least:
            raise OutOfRange(f"{key}={value} should be {self.least:g} or more.")
        if self.most is not None and value > self.most:
            raise OutOfRange(f"{key}={value} should be {self.most:.10g} or less.")
        if self.above is not None and value <= self.above:
            raise OutOfRange(f"{key}={value} should be above {self.above:g}.")
        if self.below is not None and value >= self.below:
            raise OutOfRange(f"{key}={value} should be below {self.below:g}.")


@dataclass(frozen=True)
class Length:
    """How many items a list may hold.

    Attributes:
        least: Fewest.
        most: Most; None is no limit.
        different: Whether no item may stand twice.
    """

    least: int = 1
    most: int | None = None
    different: bool = False

    def check(self, key: str, value: Sequence[object]) -> None:
        """Refuses a list that holds too few, too many or the same twice.

        Args:
            key: The setting's dotted name, for the sentence.
            value: The list.

        Raises:
            OutOfRange: Naming the setting and what it should hold.
        """
        wanted = f"{self.least}" if self.least == self.most else f"{self.least} or more"
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            many = "values" if wanted != "1" else "value"
            raise OutOfRange(f"{key}={list(value)} should hold {wanted} {many}.")
        if self.different and any(item in value[:i] for i, item in enumerate(value)):
            raise OutOfRange(f"{key}={list(value)} should hold different values.")


Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Chance = Annotated[float, Range(above=0, below=1)]
PartShare = Annotated[float, Range(least=0, below=1)]
Count = Annotated[int, Range(least=1, most=_LARGEST)]
Number = Annotated[int, Range(least=0, most=_LARGEST)]
# numpy's limit of a seed.
Seed = Annotated[int, Range(least=0, most=2**32 - 1)]
Side = Annotated[int, Range(least=8, most=LARGEST_SIDE)]
Workers = Annotated[int, Range(least=0, most=1024)]
Port = Annotated[int, Range(least=1, most=65535)]
