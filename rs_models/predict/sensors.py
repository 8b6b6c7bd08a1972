"""A raster's bands by the numbers that its sensor gives them; the numbers stand in `bands`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bands import NUMBERING, is_numbered, numbered_band, told_sensor
from ..errors import UserError


def numbered_bands(raster: Any, path: str, sensor: str | None) -> tuple[str, ...] | None:
    """Canonical names of a raster's bands where it numbers them; None where it does not.

    Args:
        raster: Open rasterio data set.
        path: File that the raster was opened from.
        sensor: One of `bands.NUMBERING`; None asks the file's name, tags and numbers.

    Raises:
        UserError: The sensor is not known, and the numbers mean other bands on another.
    """
    names = [(text or "").split(",")[0].split(" (")[0].strip() for text in raster.descriptions]
    if not any(map(is_numbered, names)):
        return None
    tags = (f"{key}={value}" for key, value in raster.tags().items())
    sensor = sensor or told_sensor(" ".join([Path(path).name, *tags]), names)
    if sensor is None:
        raise UserError(
            f"{path} calls its bands {', '.join(filter(None, names))}, which are other bands on "
            "Sentinel-2 than on Landsat, and does not say which sensor it is from: name it with "
            f"--sensor ({', '.join(NUMBERING)}), or the bands with --bands."
        )
    return tuple(
        numbered_band(name, sensor) or f"band {index}" for index, name in enumerate(names, 1)
    )
