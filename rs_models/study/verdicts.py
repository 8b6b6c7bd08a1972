"""Verdicts: which claims were tested at all, and what their paired runs say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.results import Result
from .claims import FINISHED, Claim, difference, measured, paired_differences, sides_of
from .config import StudyConfig

HOLDS, REVERSED, UNKNOWN, MISSING = "holds", "the reverse", "cannot be told", "not measured"
NOT_TESTED = "not tested"
# A side counts as having learned something where so good a mean over its random weights would be
# chance in fewer than one of twenty studies.
_ABOVE = 0.05
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Margin:
    """How far a cell stands above random weights of its own backbone, paired by seed.

    Attributes:
        mean: Mean of the differences, in points.
        seeds: Seeds that both have.
        p: Chance of so high a mean if there were no difference, one-sided; 0 or 1 where neither is
            trained here, so that nothing differs from seed to seed.
    """

    mean: float
    seeds: int
    p: float

    @property
    def above(self) -> bool:
        """Whether the cell is better than random weights."""
        return self.mean > 0 and self.p < _ABOVE


def compare(
    claims: Sequence[Claim],
    results: Mapping[Key, Result],
    floors: Mapping[str, str],
    level: float = StudyConfig.level,
) -> list[dict[str, Any]]:
    """Each claim with its paired differences and its verdict, as claims.json holds them.

    A network that has not begun to learn says nothing of an idea, and to beat one that training
    has made worse is no merit: a claim is tested where both sides are better than random weights
    of their own backbone by the measure that decides. Those tested are corrected for there being
    several (Holm). What was asked afterwards is judged alone, in the same way.

    Args:
        claims: All of the study, for the correction counts them.
        results: By (cell, data, protocol), one value a pretraining seed.
        floors: Cell -> the cell with random weights of its backbone, see `config.floors_of`.
        level: Chance of deciding any of them with nothing behind it.
    """
    told: list[dict[str, Any]] = []
    for claim in claims:
        differences = []
        for measure in claim.measures:
            found = difference(claim, measure, results)
            sides = margins_of(claim, measure, results, floors)
            about = {
                "over_random": [
                    side and {**dataclasses.asdict(side), "above": side.above} for side in sides
                ],
                "tested": is_tested(claim, measure, sides, floors),
                "visible": None,
            }
            differences.append(found and {**dataclasses.asdict(found), **about})
        decisive = differences[0]
        word = UNKNOWN if decisive and decisive["tested"] else NOT_TESTED
        told.append(
            {
                **dataclasses.asdict(claim),
                "verdict": word if decisive else MISSING,
                "differences": differences,
            }
        )
    asked = [one for one in told if one["verdict"] == UNKNOWN]
    _decide([one for one in asked if not one["afterwards"]], level)
    for one in asked:
        if one["afterwards"]:
            _decide([one], level)
    return told


def _decide(told: Sequence[dict[str, Any]], level: float) -> None:
    """Sets the verdicts of claims that are corrected for each other, and what each could show."""
    in_order = sorted(told, key=lambda claim: float(claim["differences"][0]["p"]))
    decided = True
    for rank, claim in enumerate(in_order):
        found = claim["differences"][0]
        allowed = level / (len(in_order) - rank)
        found["visible"] = visible(found["values"], allowed)
        # Holm: behind the first that fails none is decided.
        decided = decided and found["p"] <= allowed
        if decided:
            claim["verdict"] = HOLDS if found["mean"] > 0 else REVERSED


def visible(values: Sequence[float], level: float) -> float:
    """The smallest mean, in points, that would be decided where seeds differ as these do.

    Args:
        values: A difference a seed.
        level: The two-sided p at which a difference counts.
    """
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return round(float(t.ppf(1 - level / 2, len(values) - 1)) * spread, 4)


def margins_of(
    claim: Claim, measure: str, results: Mapping[Key, Result], floors: Mapping[str, str]
) -> list[Margin | None]:
    """How far a claim's better and worse cell are above random weights; None if not measured."""
    sides = measured((claim.better, claim.worse), measure, results)
    random = (floors.get(claim.better, ""), floors.get(claim.worse, ""))
    below = measured(random, measure, results)
    return [_margin(side, floor) for side, floor in zip(sides, below, strict=True)]


def is_tested(
    claim: Claim, measure: str, margins: Sequence[Margin | None], floors: Mapping[str, str]
) -> bool:
    """Whether both sides are better than random weights of their own backbone.

    Where the random weights were not measured nothing is tested. They may be the worse side
    themselves, a network that is trained from scratch: whether the better one passes it is what
    such a claim asks, and where they are asked something else, that of the better one counts.

    Args:
        claim: Names the cells.
        measure: One of its measures.
        margins: How far the better and the worse cell stand above random weights.
        floors: Cell -> the cell with random weights of its backbone.
    """
    asked = list(margins)
    if claim.worse in floors.values():
        better, worse = sides_of(measure)
        asked = [] if better == worse and floors.get(claim.better) == claim.worse else asked[:1]
    return all(margin is not None and margin.above for margin in asked)


def _margin(side: Result | None, floor: Result | None) -> Margin | None:
    from scipy.stats import ttest_1samp

    if side is None or floor is None:
        return None
    values = list(paired_differences(side, floor).values())
    if not values:
        return None
    mean = round(float(np.mean(values)), 4)
    if FINISHED in side.settings and FINISHED in floor.settings:
        return Margin(mean, len(values), 0.0 if mean > 0 else 1.0)
    if len(values) < 2:
        return Margin(mean, len(values), 1.0)
    if np.ptp(values) == 0:
        return Margin(mean, len(values), 0.0 if mean > 0 else 1.0)
    p = float(ttest_1samp(values, 0.0, alternative="greater").pvalue)
    return Margin(mean, len(values), round(p, 6))
