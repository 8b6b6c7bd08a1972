"""Band names and aliases, sensors, value ranges and statistics.

One vocabulary for every band a model or a data set can have, so that "B04", "B4", "R" and "red" are
the same thing everywhere. A band list is a tuple of canonical names in channel order.

Scale convention, used everywhere: stored integers are divided by `value_range[1]` first, then
normalised as `(x - mean) / std`; `image_mean` and `image_std` are in those scaled units (the
`rescale_factor` of a transformers image processor is `1 / value_range[1]`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import UserError

if TYPE_CHECKING:
    import torch

# Canonical names are the "common names" of the STAC electro-optical extension, version 1.1
# (github.com/stac-extensions/eo), with its digits kept and its zeros dropped, plus radar
# polarisations and height.
BANDS: dict[str, tuple[str, ...]] = {
    "coastal": ("b01", "b1", "coastal_aerosol", "aerosol"),
    "blue": ("b", "b02", "b2"),
    "green": ("g", "b03", "b3"),
    "red": ("r", "b04", "b4"),
    "rededge1": ("b05", "b5", "red_edge_1", "rededge071", "re1"),
    "rededge2": ("b06", "b6", "red_edge_2", "rededge075", "re2"),
    "rededge3": ("b07", "b7", "red_edge_3", "rededge078", "re3"),
    "nir": ("n", "b08", "b8", "near_infrared", "infrared", "ir"),
    "nir_narrow": ("b8a", "b08a", "nir08", "narrow_nir", "nir_2"),
    "water_vapor": ("b09", "b9", "water_vapour", "nir09"),
    "cirrus": ("b10",),
    "swir1": ("b11", "swir16", "swir_1"),
    "swir2": ("b12", "swir22", "swir_2"),
    "vv": (),
    "vh": (),
    "elevation": ("dem", "dsm", "height"),
}
"""Canonical band name -> its aliases (lower case). The `Bnn` names are Sentinel-2's."""

SENSORS: dict[str, tuple[str, ...]] = {
    "rgb": ("red", "green", "blue"),
    "rgbn": ("red", "green", "blue", "nir"),
    # Order of the bands in a Sentinel-2 level-1C product (and in EuroSAT's files, apart from B8A:
    # see data/registry.py).
    "sentinel2": (
        "coastal",
        "blue",
        "green",
        "red",
        "rededge1",
        "rededge2",
        "rededge3",
        "nir",
        "nir_narrow",
        "water_vapor",
        "cirrus",
        "swir1",
        "swir2",
    ),
    "sentinel1": ("vv", "vh"),
}
"""Names that stand for a whole band list."""

# B4 is red on Sentinel-2 and infrared on Landsat 5. Numbers: Landsat 4 to 9 band designations
# (USGS); Sentinel-2's are the aliases above.
_LANDSAT_TM = {1: "blue", 2: "green", 3: "red", 4: "nir", 5: "swir1", 7: "swir2"}
_LANDSAT_OLI = {
    1: "coastal",
    2: "blue",
    3: "green",
    4: "red",
    5: "nir",
    6: "swir1",
    7: "swir2",
    9: "cirrus",
}
LANDSAT: dict[str, dict[int, str]] = {
    "landsat-4": _LANDSAT_TM,
    "landsat-5": _LANDSAT_TM,
    "landsat-7": _LANDSAT_TM,
    "landsat-8": _LANDSAT_OLI,
    "landsat-9": _LANDSAT_OLI,
}
"""Sensor -> its band number -> canonical band name; bands without a name of ours are left out."""

NUMBERING = ("sentinel-2", *LANDSAT)
"""Sensors whose own band numbers are understood."""

_NUMBERED = re.compile(r"(?:(?:SR|ST|TOA|S2|LC|LT|LE)_)?B(?:AND)?[ _]?(0?)(\d{1,2})(A?)$", re.I)
_SENTINEL_NAME = re.compile(
    r"SENTINEL[ _-]?2|(?<![A-Z0-9])S2[A-D]?(?![A-Z0-9])|S2[A-D]_MSIL|HLS\.S30"
    r"|(?<![A-Z0-9])T\d{2}[A-Z]{3}_\d{8}T\d{6}"
)
_LANDSAT_NAME = re.compile(r"LANDSAT[ _/-]?([4-9])|(?<![A-Z0-9])L[COTEM]0?([4-9])(?![0-9])")

_ALIASES = {alias: name for name, aliases in BANDS.items() for alias in (name, *aliases)}

# Sentinel-2 products store reflectance x 10,000 (ESA, Sentinel-2 Products Specification Document).
_REFLECTANCE_SCALE = 10_000.0


def band_name(value: str) -> str:
    """The canonical name of one band.

    Args:
        value: A canonical name or an alias, in any case, with spaces, hyphens or underscores
            ("B04", "Red Edge 1").

    Raises:
        UserError: When the name is not known.
    """
    key = value.strip().lower().replace(" ", "_").replace("-", "_")
    found = _ALIASES.get(key) or _ALIASES.get(key.replace("_", ""))
    if found is None:
        raise UserError(
            f"Unknown band {value!r}: use one of {', '.join(BANDS)}, a Sentinel-2 name (B01 to "
            f"B12, B8A), or a whole list by name ({', '.join(SENSORS)})."
        )
    return found


def is_numbered(name: str) -> bool:
    """Whether a name is a sensor's own number of a band: "B4", "SR_B4", "Band 4", "B8A"."""
    return _NUMBERED.match(name) is not None


def numbered_band(name: str, sensor: str) -> str | None:
    """The canonical name of a band by its sensor's own number; None for one that has none.

    Args:
        name: The sensor's name ("B4", "SR_B4", "B8A"), or any name of a band.
        sensor: One of `NUMBERING`.

    Raises:
        UserError: The sensor is not known.

    Example:
        >>> numbered_band("B4", "sentinel-2"), numbered_band("SR_B4", "landsat-5")
        ('red', 'nir')
    """
    if sensor not in NUMBERING:
        raise UserError(f"The sensor {sensor!r} is not known: name one of {', '.join(NUMBERING)}.")
    number = _NUMBERED.match(name)
    if number is not None and sensor in LANDSAT:
        if name.upper().startswith("ST_"):  # surface temperature
            return None
        return LANDSAT[sensor].get(int(number[2]))
    try:
        return band_name(f"B{number[2]}{number[3]}" if number is not None else name)
    except UserError:
        return None


def told_sensor(text: str, names: Sequence[str]) -> str | None:
    """The sensor that a scene's name and tags tell, or its band numbers alone; None if none does.

    Args:
        text: File name, tags, platform: whatever may name a sensor.
        names: The scene's own names of its bands.
    """
    text = text.upper()
    landsat = {f"landsat-{one or other}" for one, other in _LANDSAT_NAME.findall(text)}
    if "HLS.L30" in text:
        landsat.add("landsat-8")  # its numbers, for both 8 and 9
    is_sentinel = bool(_SENTINEL_NAME.search(text))
    if is_sentinel and not landsat:
        return "sentinel-2"
    tables = {id(LANDSAT[sensor]) for sensor in landsat if sensor in LANDSAT}
    if len(tables) == 1 and not is_sentinel:
        return max(landsat)
    return None if is_sentinel or landsat else _by_numbers({name.upper() for name in names})


def _by_numbers(names: set[str]) -> str | None:
    if any(name.startswith(("SR_B", "ST_B")) for name in names):  # Landsat Collection 2, level 2
        if names & {"SR_B6", "ST_B10"}:
            return "landsat-8"
        return "landsat-5" if "ST_B6" in names else None
    # Only Sentinel-2 has these, and only its products write a zero before the number.
    zeros = any(re.fullmatch(r"B0\d", name) for name in names)
    return "sentinel-2" if zeros or names & {"B8A", "B08A", "B12"} else None


def resolve_bands(value: str | Sequence[str]) -> tuple[str, ...]:
    """Canonical band names in channel order.

    Args:
        value: A sensor name ("rgb", "rgbn", "sentinel2"), names separated by commas
            ("B04,B03,B02"), or a sequence of band names or aliases.

    Raises:
        UserError: For an unknown band, a band given twice, or an empty list.
    """
    if isinstance(value, str):
        key = value.strip().lower().replace("-", "").replace("_", "")
        if key in SENSORS:
            return SENSORS[key]
        value = [part for part in value.split(",") if part.strip()]
    names = tuple(band_name(item) for item in value)
    if not names:
        raise UserError("The band list is empty: give at least one band, or a name such as 'rgb'.")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Band {name!r} is given twice in {list(value)}: name each band once.")
    return names


def band_indices(
    have: Sequence[str], want: Sequence[str], *, source: str = "the data"
) -> list[int]:
    """The position in `have` of each band in `want`.

    Args:
        have: Canonical names of the bands that are there, in channel order.
        want: Canonical names of the bands asked for.
        source: What has these bands, for the message.

    Raises:
        UserError: When a band is missing (bands are never filled with zeros).
    """
    missing = [name for name in want if name not in have]
    if missing:
        raise UserError(
            f"Band(s) {', '.join(missing)} asked for, but {source} has {', '.join(have)}: ask for "
            "bands that are there (missing bands are never filled with zeros)."
        )
    return [list(have).index(name) for name in want]


def default_value_range(
    dtype: str | np.dtype | torch.dtype, bands: Sequence[str]
) -> tuple[float, float]:
    """The (low, high) stored values that scale to 0 and 1.

    Args:
        dtype: The stored integer type: uint8 (images, 0 to 255) or uint16 (reflectance x 10,000).
        bands: Canonical band names; radar and height have no common scale and are refused.

    Raises:
        UserError: For a type or a band without a known scale.
    """
    name = str(dtype).removeprefix("torch.")
    if name == "uint8":
        return (0.0, 255.0)
    optical = not {"vv", "vh", "elevation"} & set(bands)
    if name == "uint16" and optical:
        return (0.0, _REFLECTANCE_SCALE)
    raise UserError(
        f"No value range is known for {name} bands {', '.join(bands)}: store images as uint8 (0 "
        "to 255) or optical bands as uint16 reflectance (0 to 10000), or set value_range."
    )


def band_statistics(
    images: np.ndarray | torch.Tensor, value_range: tuple[float, float], *, max_images: int = 10_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per band, in units of `value_range[1]`.

    Args:
        images: (N, C, H, W) integers; may be memory-mapped, it is read in small blocks.
        value_range: (low, high) of the stored values.
        max_images: When there are more, this many evenly spaced images are measured.

    Returns:
        Two tuples of C floats.

    Raises:
        UserError: When there are no images or a band is constant (its standard deviation would
            divide by zero).
    """
    count, channels = int(images.shape[0]), int(images.shape[1])
    if count == 0:
        raise UserError("Band statistics need at least one image: the data set is empty.")
    chosen = np.unique(np.linspace(0, count - 1, min(count, max_images)).round().astype(np.int64))
    # Counts per stored value: exact, and several times faster than sums of converted pixels.
    counts = [np.zeros(0, dtype=np.int64)] * channels
    for start in range(0, len(chosen), 64):
        block = np.asarray(images[chosen[start : start + 64]])  # (b, C, H, W)
        for band in range(channels):
            found = np.bincount(block[:, band].ravel(), minlength=len(counts[band]))
            found[: len(counts[band])] += counts[band]
            counts[band] = found
    mean, std = np.zeros(channels), np.zeros(channels)
    for band, count_of in enumerate(counts):
        values = np.arange(len(count_of))
        mean[band] = np.average(values, weights=count_of)
        std[band] = np.sqrt(np.average((values - mean[band]) ** 2, weights=count_of))
    if (std == 0).any():
        raise UserError(
            f"Band number {int(np.argmin(std))} (counted from 0) has the same value "
            f"{mean[np.argmin(std)]:g} in every pixel: check the band order and that the data is "
            "not empty."
        )
    high = value_range[1]
    return tuple(float(v) for v in mean / high), tuple(float(v) for v in std / high)
