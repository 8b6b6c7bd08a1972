"""Values that change over a training, as functions of the step: the same after any stop."""

from __future__ import annotations

import math
from collections.abc import Sequence


def cosine(start: float, end: float, step: int, total: int) -> float:
    """Half a cosine from `start` at step 0 towards `end` at step `total`."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / max(1, total)))


def linear(start: float, end: float, step: int, length: int) -> float:
    """A line through `length` steps, from `start` at step 0 to `end` at step `length` - 1.

    Later steps stay at `end`; a line of one step or less is there already.
    """
    return end if step >= length - 1 else start + (end - start) * step / (length - 1)


def polynomial(start: float, end: float, step: int, total: int, *, power: float) -> float:
    """A power of what is left, from `start` at step 0 to `end` at step `total`."""
    return end + (start - end) * (1 - step / max(1, total)) ** power


def stepped(base: float, factor: float, step: int, total: int, *, at: Sequence[float]) -> float:
    """`base`, times `factor` from each share of the steps in `at` on."""
    done = step / max(1, total)
    return base * factor ** sum(done >= share for share in at)


def warmup_cosine(base: float, end: float, step: int, total: int, warmup: int) -> float:
    """The rate of most trainings: a line to `base` over `warmup` steps, then a cosine to `end`.

    The first step of the line is at 0 and the one after the line is at `base`, as in
    transformers' `get_cosine_with_min_lr_schedule_with_warmup`.
    """
    if step < warmup:
        return base * (step / max(1, warmup))
    progress = (step - warmup) / max(1, total - warmup)
    return end + (base - end) * (0.5 * (1.0 + math.cos(math.pi * progress)))


def dino(base: float, end: float, step: int, total: int, warmup: int) -> float:
    """DINO's rate: a line from 0 to `base` over `warmup` steps, then a cosine to `end`."""
    if step < warmup:
        return linear(0.0, base, step, warmup)
    return cosine(base, end, step - warmup, total - warmup)


def warm_restart(
    base: float,
    end: float,
    progress: float,
    *,
    warmup: float = 0.1,
    start: float = 0.125,
    interval: float = 0.334,
) -> float:
    """FALSE's rate: a line to the peak, then a cosine that falls, rises again and falls.

    GeoX-Lab/FALSE (VISSL's cosine with warm restarts, full wave, adaptive). The peaks after the
    warm-up lie on the plain cosine one interval later, so the rate jumps down where it ends.

    Args:
        base: Rate at the end of the warm-up.
        end: Rate in the valleys.
        progress: Share of the training that is done, 0 to 1.
        warmup: Share of the training that the line takes.
        start: First rate over `base`; 0.6 of 4.8.
        interval: Share of the rest from the warm-up to the first valley.
    """
    if progress < warmup or warmup >= 1:
        return base * (start + (1 - start) * progress / warmup)
    rest = (progress - warmup) / (1 - warmup)
    if rest < interval:
        peak = end + 0.5 * (base - end) * (1 + math.cos(math.pi * interval))
        return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * rest / interval))
    peak = end + 0.5 * (base - end) * (1 + math.cos(2 * math.pi * interval))
    wave = (rest - interval) / (2 * interval)  # valley at 0, crest at 0.5
    return end + 0.5 * (peak - end) * (1 - math.cos(2 * math.pi * wave))
