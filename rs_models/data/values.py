"""From the values that a scene stores to those that a model takes: applied and told, or refused.

Models take 8-bit images (0 to 255) or reflectance times 10,000. Scales and offsets come from the
user, from the file's tags, or from what its name says of its product; where none of them tells and
the values cannot be reflectance, the scene is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:  # it needs torch, and collecting does not
    from ..preprocessing import Preprocessing

REFLECTANCE = 10_000.0  # stored value of a reflectance of 1 (Sentinel-2 Products Specification)
# Since processing baseline 04.00 (25 January 2022) 1,000 is added to what Sentinel-2 stores.
_SENTINEL_OFFSET = -0.1
# Landsat Collection 2, level 2 science products: surface reflectance = 2.75e-5 * DN - 0.2 (USGS).
_LANDSAT_SCALE, _LANDSAT_OFFSET = 2.75e-5, -0.2
_PERCENTILES = (2.0, 98.0)  # of a stretch, as QGIS cuts by default
_WINDOWS, _WINDOW = 5, 128  # a side, for looking at values
_MOST = 2.0  # reflectance that 98 of 100 pixels stay below, clouds and snow included
_LEAST = 5e-4  # reflectance that two of 100 pixels reach
_FULL = (1023, 2047, 4095, 16_383)  # largest values of 10, 11, 12 and 14 bits
_SATURATED = 3  # pixels that hold it, from which on it is no accident
_SENTINEL = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(\d{4})")
_LANDSAT_2 = re.compile(r"L[COTEM]0[4-9]_L2S[PR]_\d{6}_\d{8}_\d{8}_02|C02[_/]T[12]_L2")
_LANDSAT_1 = re.compile(r"L[COTEM]0[4-9]_L1(?:TP|GT|GS)")
_ASK = "say what they are with --scale and --offset (reflectance = stored * scale + offset)"


@dataclass(frozen=True)
class Values:
    """What is made of stored values, band by band: stored * gain + bias, within 0 and a top.

    Attributes:
        gains: One a band; empty for values that are taken as they are.
        biases: One a band.
        top: Largest value; None has no limit.
        whole: Whether values are rounded, as an 8-bit file holds them.
        notes: Sentences that the user is told.
    """

    gains: tuple[float, ...] = ()
    biases: tuple[float, ...] = ()
    top: float | None = None
    whole: bool = False
    notes: tuple[str, ...] = ()

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Values (C, H, W) as the model takes them."""
        if not self.gains:
            return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32)
        gains, biases = (
            np.asarray(v, np.float32)[:, None, None] for v in (self.gains, self.biases)
        )
        values = pixels.astype(np.float32) * gains + biases
        np.clip(values, 0, self.top, out=values)
        return np.rint(values).astype(np.uint8) if self.whole else values

    def stored(self, pixels: np.ndarray) -> np.ndarray:
        """Values (C, H, W) as tiles of a data set store them: reflectance times 10,000, uint16."""
        if not self.gains:
            return pixels
        return np.rint(self.apply(pixels)).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)

    def record(self) -> list[Any]:
        """What an unfinished output must agree with, as plain JSON."""
        return [list(self.gains), list(self.biases), self.top, self.whole]


def plan_values(
    raster: Any,
    indexes: list[int],
    preprocessing: Preprocessing,
    path: str,
    *,
    stretch: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
) -> Values:
    """How a scene's stored values become the model's.

    Args:
        raster: Open rasterio data set.
        indexes: Numbers of the bands that the model takes.
        preprocessing: What the model takes.
        path: The scene's file.
        stretch: "min,max" or "percentile", for models of 8-bit images.
        scale: Reflectance of a stored unit, in place of what the file says.
        offset: Reflectance of a stored 0, in place of what the file says.

    Raises:
        UserError: Values that do not tell what they are, or settings that do not fit the model.
    """
    dtypes = {raster.dtypes[i - 1] for i in indexes}
    if any(dtype.startswith("complex") for dtype in dtypes):
        raise UserError(f"The scene {path} holds complex values: make amplitudes of them first.")
    if preprocessing.value_range[1] <= 255:
        if scale is not None or offset is not None:
            raise UserError(
                "The model takes 8-bit images: --scale and --offset are of reflectance."
            )
        return _eight_bits(raster, indexes, preprocessing, path, stretch)
    if stretch is not None:
        raise UserError(
            "--stretch makes 8-bit images, and the model takes values up to "
            f"{preprocessing.value_range[1]:g}: use --scale and --offset."
        )
    if preprocessing.value_range[1] != REFLECTANCE:
        for dtype in dtypes:
            preprocessing.check(np.empty(0, dtype), f"the scene {path}")
        return Values()
    if "uint8" in dtypes:
        raise UserError(
            f"The model takes uint16 images up to {REFLECTANCE:g}, but the scene {path} is uint8: "
            "its colours are not reflectance."
        )
    return _reflectance(raster, indexes, path, scale, offset)


def stated_values(
    raster: Any,
    indexes: Sequence[int],
    path: str,
    catalogued: tuple[float, float] | None = None,
) -> Values:
    """How the stored integers of a 16-bit raster become reflectance times 10,000, by its header.

    What neither tags nor the product's name tell is taken for reflectance times 10,000 already.

    Args:
        raster: Open rasterio data set.
        indexes: Numbers of the bands.
        path: File that the raster was opened from.
        catalogued: Scale and offset that a catalogue says, for a file that has no tags of them.

    Raises:
        UserError: Values of fewer bits than 16, or a product that is no reflectance.
    """
    if any(raster.dtypes[index - 1] != "uint16" for index in indexes):
        return Values()
    tagged = any(_tags(raster, index) != (1.0, 0.0) for index in indexes)
    if catalogued is not None and not tagged:
        return _applied([catalogued] * len(indexes), "by the catalogue", path)
    pairs, why = _stated(raster, indexes, path)
    if pairs is None:
        _refuse_bits(raster, indexes, path)
        return Values()
    return _applied(pairs, why, path)


def _eight_bits(
    raster: Any, indexes: list[int], preprocessing: Preprocessing, path: str, stretch: str | None
) -> Values:
    top = preprocessing.value_range[1]
    dtypes = {raster.dtypes[i - 1] for i in indexes}
    if stretch is None:
        other = dtypes - {"uint8"}
        if other:
            raise UserError(
                f"The model takes uint8 images up to {top:g}, but the scene {path} is "
                f"{other.pop()}: say which values are black and white with --stretch min,max, or "
                "--stretch percentile."
            )
        tagged = any(_tags(raster, i) != (1.0, 0.0) for i in indexes)
        note = f"{path}: its scale and offset tags are not used, for the model takes 8-bit values."
        return Values(notes=(note,) if tagged else ())
    if stretch == "percentile":
        low, high = _quantiles(_sample(raster, indexes), _PERCENTILES)
        limits = ", ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
        note = f"{path}: values from the {_PERCENTILES[0]:g}th to the {_PERCENTILES[1]:g}th "
        note += f"percentile of each band ({limits}) become 0 to {top:g}."
    else:
        one, other_end = _limits(stretch)
        low, high = np.full(len(indexes), one), np.full(len(indexes), other_end)
        note = f"{path}: values from {one:g} to {other_end:g} become 0 to {top:g}."
    if not (high > low).all():
        raise UserError(f"The scene {path} has bands of one value: --stretch cannot spread them.")
    gains = top / (high - low)
    return Values(_floats(gains), _floats(-low * gains), top, top == 255, (note,))


def _reflectance(
    raster: Any, indexes: list[int], path: str, scale: float | None, offset: float | None
) -> Values:
    floats = any(np.dtype(raster.dtypes[i - 1]).kind == "f" for i in indexes)
    usual = 1.0 if floats else 1 / REFLECTANCE
    notes: tuple[str, ...] = ()
    if scale is not None or offset is not None:
        factor = usual if scale is None else scale
        return _applied([(factor, offset or 0.0)] * len(indexes), "as given", path)
    pairs, why = _stated(raster, indexes, path)
    if pairs is None:
        pairs, why = [(usual, 0.0)] * len(indexes), "float reflectance" if floats else ""
        notes = _doubts(raster, indexes, path, floats)
    _check_plausible(raster, indexes, pairs, path, why)
    return _applied(pairs, why, path, notes)


def _stated(
    raster: Any, indexes: Sequence[int], path: str
) -> tuple[list[tuple[float, float]] | None, str]:
    """Scale and offset of each band by the file's tags, else by its product; None by neither."""
    tags = [_tags(raster, index) for index in indexes]
    if any(tag != (1.0, 0.0) for tag in tags):
        return tags, "by the file's scale and offset tags"
    pair, why = _by_product(raster, path)
    return (None if pair is None else [pair] * len(indexes)), why


def _applied(
    pairs: Sequence[tuple[float, float]], why: str, path: str, notes: tuple[str, ...] = ()
) -> Values:
    """Scales and offsets as what is made of stored values, with the sentence about it."""
    gains, biases = zip(*((a * REFLECTANCE, b * REFLECTANCE) for a, b in pairs), strict=True)
    if np.allclose(gains, 1, rtol=1e-6) and not any(biases):
        return Values(notes=notes)
    shown = ", ".join(sorted({f"stored * {a:g} {b:+g}" for a, b in pairs}))
    note = f"{path}: reflectance = {shown} ({why}); scale and offset are applied."
    return Values(_floats(gains), _floats(biases), None, False, (note, *notes))


def _by_product(raster: Any, path: str) -> tuple[tuple[float, float] | None, str]:
    """Scale and offset by the product that a file's name or tags tell."""
    tags = raster.tags()
    told = " ".join([os.path.abspath(path), *(f"{k}={v}" for k, v in tags.items())]).upper()
    if _LANDSAT_1.search(told):
        raise UserError(
            f"{path} is a Landsat level 1 product, whose values need its metadata to become "
            f"reflectance: take level 2, or {_ASK}."
        )
    if _LANDSAT_2.search(told):
        return (_LANDSAT_SCALE, _LANDSAT_OFFSET), "Landsat Collection 2, level 2"
    baseline = _SENTINEL.search(told)
    number = baseline[1] if baseline else str(tags.get("PROCESSING_BASELINE", "")).replace(".", "")
    if not number.isdigit() or int(number) < 400:
        return None, ""
    return (
        (1 / REFLECTANCE, _SENTINEL_OFFSET),
        f"Sentinel-2, processing baseline {number[:2]}.{number[2:]}",
    )


def _doubts(raster: Any, indexes: list[int], path: str, floats: bool) -> tuple[str, ...]:
    """Refuses integers that are no reflectance times 10,000; notes what cannot be told."""
    if floats:
        return ()
    _refuse_bits(raster, indexes, path)
    sample = _sample(raster, indexes)
    if not sample.size:
        return ()
    most = int(sample.max())
    if most in _FULL and (sample == most).sum() >= _SATURATED:
        bits = most.bit_length()
        raise UserError(
            f"{path} holds values that end at {most}, as {bits}-bit ones do, which are no "
            f"reflectance: {_ASK}, as in `--scale {1 / most:.3g}`."
        )
    low, high = np.percentile(sample, [2, 98])
    if low >= 6500 and high <= 45_000:
        raise UserError(
            f"{path} holds values from about {low:.0f} on, as Landsat Collection 2 does: {_ASK}, "
            "for Landsat `--scale 2.75e-5 --offset -0.2`, for bright ground `--scale 1e-4`."
        )
    if low >= 1000:
        return (
            f"{path}: values begin at about {low:.0f}; if it is Sentinel-2 of baseline 04.00 or "
            "later as published, add --offset -0.1.",
        )
    if most < _FULL[-2]:
        return (
            f"{path}: values end at about {most} and are taken for reflectance times 10,000; if "
            "they are 11- or 12-bit counts, say so with --scale.",
        )
    return ()


def _refuse_bits(raster: Any, indexes: Sequence[int], path: str) -> None:
    for index in indexes:
        bits = raster.tags(index, ns="IMAGE_STRUCTURE").get("NBITS")
        if bits:
            raise UserError(f"{path} holds {bits}-bit values, which are no reflectance: {_ASK}.")


def _check_plausible(
    raster: Any, indexes: list[int], pairs: list[tuple[float, float]], path: str, why: str
) -> None:
    sample = _sample(raster, indexes)
    if not sample.size or not sample.any():
        return
    scales, offsets = np.asarray(pairs).T[:, :, None]
    high = np.percentile(sample * scales + offsets, 98)
    # What is published without its offset has values far below it.
    removed = why.startswith("Sentinel-2") and np.percentile(sample, 2) < 800
    if removed:
        raise UserError(
            f"{path} is named as {why}, but holds values below its offset of 1,000, as if that "
            "were subtracted: say so with --scale 1e-4, or --scale 1e-4 --offset -0.1."
        )
    if not _LEAST <= high <= _MOST:
        stored = np.percentile(sample, 98)
        raise UserError(
            f"{path} holds values up to about {stored:g} ({'/'.join(sorted(set(raster.dtypes)))}"
            f"{', ' + why if why else ''}), which make a reflectance of {high:.3g}: {_ASK}."
        )


def _tags(raster: Any, index: int) -> tuple[float, float]:
    scale, offset = raster.scales[index - 1], raster.offsets[index - 1]
    return (1.0 if scale is None else float(scale)), (0.0 if offset is None else float(offset))


def _sample(raster: Any, indexes: list[int]) -> np.ndarray:
    """Stored values (C, N) of pixels with data, from windows all over the scene."""
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    height, width = min(_WINDOW, raster.height), min(_WINDOW, raster.width)
    parts = []
    for top in np.unique(np.linspace(0, raster.height - height, _WINDOWS).astype(int)):
        for left in np.unique(np.linspace(0, raster.width - width, _WINDOWS).astype(int)):
            window = Window(int(left), int(top), width, height)
            try:
                pixels = raster.read(indexes, window=window).astype(np.float64)
                valid = raster.read_masks(indexes, window=window).all(axis=0)
            except RasterioError:
                continue  # told, or left out, when its turn comes
            parts.append(pixels[:, valid & np.isfinite(pixels).all(axis=0)])
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(indexes), 0))


def _quantiles(sample: np.ndarray, percentiles: tuple[float, float]) -> tuple[Any, Any]:
    if not sample.size:
        return np.zeros(len(sample)), np.ones(len(sample))
    low, high = np.percentile(sample, percentiles, axis=1)
    return low, high


def _limits(stretch: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in stretch.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise UserError(
            f"--stretch is {stretch!r}: it must be min,max (for example 0,3000) or percentile."
        )
    return low, high


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
