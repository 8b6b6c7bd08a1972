"""Claims: what is asked of two cells, and what paired runs say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..evaluation.results import Result
from ..papers import PAPERS
from ..settings import build
from .config import StudyConfig

SEEDS = "pretraining_seeds"
FINISHED = "same_with_every_seed"  # a setting of results of models that nobody trained here


@dataclass
class Claim:
    """What a paper says, as a difference between two cells.

    Attributes:
        paper: Key of `papers.PAPERS`.
        says: The claim in one sentence.
        better: Cell that should be ahead.
        worse: Cell that should be behind.
        measures: `<data>/<protocol>`, or `<data>/<protocol> against <data>/<protocol>` where the
            worse cell is asked something else; the first decides, the others are reported too.
        afterwards: Whether it was asked when what both cells reach was known: it is reported, and
            counts for nothing.
    """

    paper: str
    says: str
    better: str
    worse: str
    measures: list[str]
    afterwards: bool = False


@dataclass(frozen=True)
class Difference:
    """Better minus worse on one measure, paired by seed.

    Attributes:
        measure: What both are measured by, see `Claim`.
        seeds: Seeds that both have.
        values: One difference a seed, in points.
        mean: Mean of the differences.
        low: Lower end of Student's 95% interval.
        high: Upper end of Student's 95% interval.
        p: Chance of so large a difference if there were none, two-sided.
    """

    measure: str
    seeds: list[int]
    values: list[float]
    mean: float
    low: float
    high: float
    p: float = 1.0


def sides_of(measure: str) -> tuple[str, str]:
    """What a claim's better and worse cells are measured by, each a `<data>/<protocol>`."""
    better, against, worse = measure.partition(" against ")
    return (better, worse) if against else (better, better)


def claims_of(config: StudyConfig) -> list[Claim]:
    """The claims, checked against the cells.

    Raises:
        UserError: A claim about a cell that there is none of, or without a measure.
    """
    claims = [build(Claim, value, f"claims[{i}].") for i, value in enumerate(config.claims)]
    for i, claim in enumerate(claims):
        for key in ("better", "worse"):
            if getattr(claim, key) not in config.cells:
                raise UserError(
                    f"The setting claims[{i}].{key}={getattr(claim, key)!r} is no cell."
                )
        if claim.paper not in PAPERS:
            raise UserError(
                f"The setting claims[{i}].paper={claim.paper!r} is none of {', '.join(PAPERS)}: "
                "name the one "
                "whose idea the claim is about."
            )
        asked = [side for measure in claim.measures for side in sides_of(measure)]
        if not asked or not all("/" in side for side in asked):
            raise UserError(
                f"The setting claims[{i}].measures: give one or more <data>/<protocol>, or "
                "<data>/<protocol> against <data>/<protocol>."
            )
    return claims


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
        measure: One of its measures.
        results: By (cell, data, protocol), one value a pretraining seed.
    """
    better, worse = measured((claim.better, claim.worse), measure, results)
    if better is None or worse is None:
        return None
    paired = paired_differences(better, worse)
    if len(paired) < 2:
        return None
    values = list(paired.values())
    low, high = t_interval(values)
    mean = round(float(np.mean(values)), 4)
    return Difference(
        measure, list(paired), values, mean, round(low, 4), round(high, 4), _chance(values)
    )


def paired_differences(first: Result, second: Result) -> dict[int, float]:
    """Seed -> the first's value less the second's, of the seeds that both have.

    What is the same with every seed is paired with those that the other one has.
    """
    one, other = (by_seed(result, result.values) for result in (first, second))
    if FINISHED in first.settings and FINISHED not in second.settings:
        one = dict.fromkeys(other, first.values[0])
    if FINISHED in second.settings and FINISHED not in first.settings:
        other = dict.fromkeys(one, second.values[0])
    return {seed: round(one[seed] - other[seed], 4) for seed in sorted(set(one) & set(other))}


def by_seed(result: Result, values: Sequence[float]) -> dict[int, float]:
    """Seed -> value, of a result that has one value a seed."""
    return dict(zip(result.settings[SEEDS], values, strict=True))


def measured(
    cells: tuple[str, str], measure: str, results: Mapping[tuple[str, str, str], Result]
) -> list[Result | None]:
    """Results of a claim's better and worse cell; None of what was not measured."""
    found = []
    for cell, side in zip(cells, sides_of(measure), strict=True):
        data, _, protocol = side.rpartition("/")  # a Hub id has a slash of its own
        found.append(results.get((cell, data, protocol)))
    return found


def _chance(values: Sequence[float]) -> float:
    """Student's two-sided p of a mean of zero."""
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    mean = abs(float(np.mean(values)))
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(mean / spread, len(values) - 1))
