"""What is kept of an unfinished scene, and the cloud-optimised GeoTIFF that comes of it."""

from __future__ import annotations

import colorsys
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .tiles import Grid

NODATA = 255
_MANIFEST = "job.json"
# GDAL would take a twentieth of the machine's memory for itself.
GDAL = {"GDAL_CACHEMAX": 256, "GDAL_NUM_THREADS": "ALL_CPUS"}


class Partial:
    """The finished bands of rows of a scene, beside the output: `.<output>.partial/`.

    Args:
        output: File to come.
        job: What is being done, as plain JSON; another job starts anew.
    """

    def __init__(self, output: Path, job: dict[str, Any]) -> None:
        """Go on with what is there, if it is of the same job."""
        self.folder = output.with_name(f".{output.name}.partial")
        self.output, self.started_anew = output, False
        path = self.folder / _MANIFEST
        if path.is_file():
            try:
                there = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                there = None
            if there != job:
                shutil.rmtree(self.folder)
                self.started_anew = True
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _write(path, lambda file: file.write(json.dumps(job).encode()))

    def done(self, rows: int) -> int:
        """How many rows of tiles are finished, from the first on."""
        count = 0
        while count < rows and self._path(count).is_file():
            count += 1
        return count

    def put(self, row: int, values: np.ndarray) -> None:
        """Keeps what a row of tiles finished, as it is: packing floats is slow, for little."""
        _write(self._path(row), lambda file: np.save(file, values))

    def get(self, row: int) -> np.ndarray:
        """What a row of tiles finished."""
        return np.load(self._path(row))

    def remove(self) -> None:
        """Forgets all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, row: int) -> Path:
        return self.folder / f"{row:06d}.npy"


def _write(path: Path, fill: Any) -> None:
    """Writes beside, then renames: a file of that name is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            fill(file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path.parent} cannot be written ({error.strerror}): make room, then start again, "
            "which goes on from here."
        ) from error


def write_cog(
    partial: Partial,
    raster: Any,
    grid: Grid,
    *,
    dtype: str,
    count: int,
    names: Sequence[str],
    tags: dict[str, str],
    categorical: bool,
) -> None:
    """Puts the rows together: a tiled, compressed GeoTIFF with overviews.

    Args:
        partial: All rows, finished.
        raster: The open scene, for its place on Earth.
        grid: Of the tiles.
        dtype: Of the values.
        count: Bands.
        names: Of the classes (categorical), or of the bands.
        tags: For the file.
        categorical: Whether values are classes: a colour each, and overviews that keep classes.
    """
    import rasterio
    from affine import Affine
    from rasterio.env import Env
    from rasterio.errors import RasterioError
    from rasterio.shutil import copy
    from rasterio.windows import Window

    height, width = grid.cells
    t, size = raster.transform, grid.stride
    flat = partial.folder / "flat.tif"
    whole = partial.folder / "whole.tif"
    nodata: float = NODATA if dtype == "uint8" else 65535 if dtype == "uint16" else float("nan")
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": dtype,
        "nodata": nodata,
        "crs": raster.crs,
        "transform": Affine(t.a * size, t.b * size, t.c, t.d * size, t.e * size, t.f),
        # One strip of the file a row of tiles: each is written once.
        "tiled": False,
        "blockysize": max(1, min(grid.step // grid.stride, height)),
        "interleave": "band",
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    try:
        with Env(**GDAL):
            with rasterio.open(flat, "w", **profile) as file:
                for row in range(grid.rows):
                    first, last = grid.band(row)
                    if last > first:
                        window = Window(0, first, width, last - first)
                        file.write(partial.get(row).astype(dtype), window=window)
                if categorical and dtype == "uint8":
                    file.write_colormap(1, colours(len(names)))
                if not categorical:
                    for number, name in enumerate(names):
                        file.set_band_description(number + 1, name)
                file.update_tags(**tags)
            copy(
                flat,
                whole,
                driver="COG",
                compress="deflate",
                predictor="yes",
                blocksize=512,
                bigtiff="if_safer",
                overview_resampling="nearest" if categorical else "average",
            )
    except (RasterioError, OSError) as error:
        raise UserError(
            f"{partial.output} cannot be written ({str(error).splitlines()[0]}): make room, then "
            "start again, which goes on from here."
        ) from error
    whole.replace(partial.output)


def colours(count: int) -> dict[int, tuple[int, int, int, int]]:
    """A colour for each of `count` classes, far apart in hue; nodata is transparent."""
    found = {NODATA: (0, 0, 0, 0)}
    for number in range(count):
        # Steps of the golden angle: neighbouring numbers never look alike.
        hue, value = number * 0.618034 % 1, (0.85, 0.6)[number % 2]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, value)
        found[number] = (round(255 * red), round(255 * green), round(255 * blue), 255)
    return found
