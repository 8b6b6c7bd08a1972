"""The provenance that a file does not hold: the user's word first, else the authors'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bands import resolve_bands
from ..errors import UserError
from .layouts import Upstream


def bands_of(
    given: str | Sequence[str] | None, channels: int, file: Path, facts: Upstream
) -> tuple[str, ...]:
    """Canonical names of the bands of the first convolution."""
    known = dict(facts.bands).get(channels)
    if given is None and known is None:
        raise UserError(
            f"The first convolution of {file} takes {channels} bands: say which with --bands, in "
            "channel order (rgbn, sentinel2 or names separated by commas)."
        )
    names = resolve_bands(given if given is not None else str(known))
    if len(names) != channels:
        raise UserError(
            f"The first convolution of {file} takes {channels} bands but --bands names "
            f"{len(names)}: {', '.join(names)}."
        )
    return names


def value_range_of(bands: Sequence[str], file: Path) -> tuple[float, float]:
    """Black and full scale as stored: of bytes, where the bands are those of photographs."""
    if set(bands) <= set(resolve_bands("rgbn")):
        return (0, 255)
    raise UserError(
        f"How the authors of {file} scaled the bands {', '.join(bands)} is not known: say the "
        "stored values of black and full scale with --value-range LOW HIGH."
    )


def statistics(
    facts: Upstream, bands: Sequence[str], file: Path, method: str
) -> dict[str, list[float]]:
    """`image_mean` and `image_std`, a number a band."""
    values = {}
    for key, value in (("image_mean", facts.mean), ("image_std", facts.std)):
        per_band = list(value) if isinstance(value, tuple) else [value] * len(bands)
        if len(per_band) != len(bands):
            raise UserError(
                f"{file} takes {len(bands)} bands, but the statistics of {method} are known for "
                f"{len(per_band)} only: its preprocessing cannot be written."
            )
        values[key] = per_band
    return values


def epochs_of(
    given: int | None, facts: Upstream, content: Mapping[str, Any], file: Path
) -> int | float:
    """Of the user, else of the described run, else of the file (DINO writes the finished ones)."""
    epochs = given if given is not None else facts.epochs
    if epochs is None:
        epochs = content.get("epoch")
    if not isinstance(epochs, int | float):
        raise UserError(f"{file} does not say how long it was trained: say --epochs N.")
    return epochs
