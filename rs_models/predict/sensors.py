"""Bands by a sensor's own numbers: B4 is red on Sentinel-2 and infrared on Landsat 5.

Numbers: Sentinel-2 Products Specification Document (ESA); Landsat 4 to 9 band designations (USGS).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..bands import band_name
from ..errors import UserError

_NUMBERED = re.compile(r"(?:(?:SR|ST|TOA|S2|LC|LT|LE)_)?B(?:AND)?[ _]?(0?)(\d{1,2})(A?)$", re.I)
_OLD = {1: "blue", 2: "green", 3: "red", 4: "nir", 5: "swir1", 7: "swir2"}
_NEW = {
    1: "coastal",
    2: "blue",
    3: "green",
    4: "red",
    5: "nir",
    6: "swir1",
    7: "swir2",
    9: "cirrus",
}
_LANDSAT = {4: _OLD, 5: _OLD, 7: _OLD, 8: _NEW, 9: _NEW}
SENSORS = ("sentinel-2", *(f"landsat-{number}" for number in _LANDSAT))
_SENTINEL = re.compile(
    r"SENTINEL[ _-]?2|(?<![A-Z0-9])S2[A-D]?(?![A-Z0-9])|S2[A-D]_MSIL|HLS\.S30"
    r"|(?<![A-Z0-9])T\d{2}[A-Z]{3}_\d{8}T\d{6}"
)
_LANDSAT_NAME = re.compile(r"LANDSAT[ _/-]?([4-9])|(?<![A-Z0-9])L[COTEM]0?([4-9])(?![0-9])")


def numbered_bands(raster: Any, path: str, sensor: str | None) -> tuple[str, ...] | None:
    """Canonical names of a raster's bands where it numbers them; None where it does not.

    Args:
        raster: Open rasterio data set.
        path: Its file.
        sensor: One of `SENSORS`; None asks the file's name, tags and numbers.

    Raises:
        UserError: The sensor is not known, and the numbers mean other bands on another.
    """
    names = [(text or "").split(",")[0].split(" (")[0].strip() for text in raster.descriptions]
    numbers = [_NUMBERED.match(name) for name in names]
    if not any(numbers):
        return None
    sensor = sensor or told_sensor(raster, path, names)
    if sensor is None:
        raise UserError(
            f"{path} calls its bands {', '.join(filter(None, names))}, which are other bands on "
            "Sentinel-2 than on Landsat, and does not say which sensor it is from: name it with "
            f"--sensor ({', '.join(SENSORS)}), or the bands with --bands."
        )
    if sensor not in SENSORS:
        raise UserError(f"The sensor {sensor!r} is not known: name one of {', '.join(SENSORS)}.")
    return tuple(
        _name(name, number, sensor, index)
        for index, (name, number) in enumerate(zip(names, numbers, strict=True), 1)
    )


def _name(name: str, number: re.Match[str] | None, sensor: str, index: int) -> str:
    other = f"band {index}"
    if number is not None and sensor != "sentinel-2":
        if name.upper().startswith("ST_"):  # surface temperature
            return other
        return _LANDSAT[int(sensor[-1])].get(int(number[2]), other)
    try:
        return band_name(f"B{number[2]}{number[3]}" if number is not None else name)
    except UserError:
        return other


def told_sensor(raster: Any, path: str, names: list[str]) -> str | None:
    """The sensor that a file's name and tags tell, or its band numbers alone; None if none does."""
    tags = raster.tags()
    told = " ".join([Path(path).name, *(f"{key}={value}" for key, value in tags.items())]).upper()
    landsat = {int(one or other) for one, other in _LANDSAT_NAME.findall(told)}
    if "HLS.L30" in told:
        landsat.add(8)  # its numbers, for both 8 and 9
    sentinel = bool(_SENTINEL.search(told))
    if sentinel and not landsat:
        return "sentinel-2"
    tables = {id(_LANDSAT[number]) for number in landsat if number in _LANDSAT}
    if len(tables) == 1 and not sentinel:
        return f"landsat-{max(landsat)}"
    return None if sentinel or landsat else _by_numbers({name.upper() for name in names})


def _by_numbers(names: set[str]) -> str | None:
    if any(name.startswith(("SR_B", "ST_B")) for name in names):  # Landsat Collection 2, level 2
        if names & {"SR_B6", "ST_B10"}:
            return "landsat-8"
        return "landsat-5" if "ST_B6" in names else None
    # Only Sentinel-2 has these, and only its products write a zero before the number.
    zeros = any(re.fullmatch(r"B0\d", name) for name in names)
    return "sentinel-2" if zeros or names & {"B8A", "B08A", "B12"} else None
