"""What paired runs say of a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.results import Result
from .config import Claim

SEEDS = "pretraining_seeds"
HOLDS, REVERSED, UNKNOWN, MISSING = "holds", "the reverse", "cannot be told", "not measured"


@dataclass(frozen=True)
class Difference:
    """Better minus worse on one measure, paired by seed.

    Attributes:
        measure: `<data>/<protocol>`.
        seeds: That both have.
        values: One a seed, in points.
        mean: Of them.
        low: Of Student's 95% interval.
        high: Likewise.
    """

    measure: str
    seeds: list[int]
    values: list[float]
    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95% interval of the mean, (low, high); infinite for fewer than two values."""
    from scipy.stats import t

    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return -np.inf, np.inf
    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return float(found.mean()) - half, float(found.mean()) + half


def difference(
    claim: Claim, measure: str, results: Mapping[tuple[str, str, str], Result]
) -> Difference | None:
    """The paired difference; None where fewer than two seeds have both sides.

    Args:
        claim: Names the cells.
        measure: `<data>/<protocol>`.
        results: By (cell, data, protocol), one value a pretraining seed.
    """
    data, _, protocol = measure.partition("/")
    sides = [results.get((cell, data, protocol)) for cell in (claim.better, claim.worse)]
    if sides[0] is None or sides[1] is None:
        return None
    better, worse = (
        dict(zip(side.settings[SEEDS], side.values, strict=True)) for side in sides if side
    )
    seeds = sorted(set(better) & set(worse))
    if len(seeds) < 2:
        return None
    values = [round(better[seed] - worse[seed], 4) for seed in seeds]
    low, high = t_interval(values)
    return Difference(
        measure, seeds, values, round(float(np.mean(values)), 4), round(low, 4), round(high, 4)
    )


def verdict(found: Difference | None) -> str:
    """What a difference says: its sign where the interval leaves out zero."""
    if found is None:
        return MISSING
    if found.low > 0:
        return HOLDS
    return REVERSED if found.high < 0 else UNKNOWN
