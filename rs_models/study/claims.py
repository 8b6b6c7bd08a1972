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
HOLDS, REVERSED, UNKNOWN, MISSING = "holds", "the reverse", "cannot be told", "not measured"
NOT_TESTED = "not tested"


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
    """

    paper: str
    says: str
    better: str
    worse: str
    measures: list[str]


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

    @property
    def visible(self) -> float:
        """The smallest difference that these seeds could have shown, in points."""
        return round((self.high - self.low) / 2, 4)


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
    sides = measured((claim.better, claim.worse), measure, results)
    if sides[0] is None or sides[1] is None:
        return None
    better, worse = (by_seed(side, side.values) for side in sides if side)
    # What is the same with every seed is paired with those that the other side has.
    if FINISHED in sides[0].settings:
        better = dict.fromkeys(worse, sides[0].values[0])
    if FINISHED in sides[1].settings:
        worse = dict.fromkeys(better, sides[1].values[0])
    seeds = sorted(set(better) & set(worse))
    if len(seeds) < 2:
        return None
    values = [round(better[seed] - worse[seed], 4) for seed in seeds]
    low, high = t_interval(values)
    mean = round(float(np.mean(values)), 4)
    return Difference(measure, seeds, values, mean, round(low, 4), round(high, 4), _chance(values))


def by_seed(result: Result, values: Sequence[float]) -> dict[int, float]:
    """Seed -> value, of a result that has one value a seed."""
    return dict(zip(result.settings[SEEDS], values, strict=True))


def measured(
    cells: tuple[str, str], measure: str, results: Mapping[tuple[str, str, str], Result]
) -> list[Result | None]:
    """Results of a claim's better and worse cell; None of what was not measured."""
    found = []
    for cell, side in zip(cells, sides_of(measure), strict=True):
        data, _, protocol = side.partition("/")
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


def is_tested(
    claim: Claim,
    measure: str,
    results: Mapping[tuple[str, str, str], Result],
    floors: Mapping[str, str],
) -> bool:
    """Whether both sides are better than random weights of their own backbone.

    A network that has not begun to learn says nothing of an idea, and to beat one that training
    has made worse is no merit. Where the random weights were not measured nothing is tested.
    Random weights may be the worse side themselves: a network that is trained from scratch.

    Args:
        claim: Names the cells.
        measure: One of its measures.
        results: By (cell, data, protocol).
        floors: Cell -> the cell with random weights of its backbone.
    """
    cells = (claim.better, claim.worse)
    random = (floors.get(claim.better, ""), floors.get(claim.worse, ""))
    sides, below = measured(cells, measure, results), measured(random, measure, results)
    if None in sides:
        return False
    asked = list(zip(sides, below, strict=True))
    if claim.worse in floors.values():
        # Whether it is better than just these is what such a claim asks.
        asked = asked[:1] if below[0] is not sides[1] else []
    return all(floor is not None and side.mean > floor.mean for side, floor in asked if side)


def verdicts(found: Sequence[Difference | None], tested: Sequence[bool], level: float) -> list[str]:
    """What each claim's deciding difference says, corrected for there being several (Holm).

    Args:
        found: One a claim; None where it was not measured.
        tested: Whether both sides of it had learned anything.
        level: Chance of deciding any of them with nothing behind it.
    """
    words = [MISSING if one is None else UNKNOWN for one in found]
    words = [
        NOT_TESTED if one is not None and not counts else word
        for one, counts, word in zip(found, tested, words, strict=True)
    ]
    asked = sorted(
        ((one.p, i) for i, one in enumerate(found) if one is not None and tested[i]),
    )
    for rank, (p, i) in enumerate(asked):
        if p > level / (len(asked) - rank):
            break  # Holm: behind the first that fails none is decided
        difference = found[i]
        assert difference is not None
        words[i] = HOLDS if difference.mean > 0 else REVERSED
    return words
