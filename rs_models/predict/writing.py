"""What is kept of an unfinished scene, and the cloud-optimised GeoTIFF that comes of it."""

from __future__ import annotations

import colorsys
import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import claim, written
from .tiles import Grid

NODATA = 255
_LONGEST_NAME = 255  # bytes of a file name on the usual file systems
# GDAL would take a twentieth of the machine's memory for itself.
GDAL = {"GDAL_CACHEMAX": 256, "GDAL_NUM_THREADS": "ALL_CPUS"}


class FinishedRows:
    """The finished bands of rows of a scene, in a hidden folder beside the output.

    Attributes:
        folder: `.<output>.partial`, claimed.
        renewed: Whether it held what was finished of another job.
    """

    def __init__(self, folder: Path, *, renewed: bool = False) -> None:
        """Takes a folder that is claimed."""
        self.folder, self.renewed = folder, renewed

    def done(self, rows: int) -> int:
        """How many rows of tiles are finished, from the first on."""
        count = 0
        while count < rows and self._path(count).is_file():
            count += 1
        return count

    def put(self, row: int, values: np.ndarray) -> None:
        """Keeps what a row of tiles finished, as it is: packing floats is slow, for little."""
        with written(self._path(row)) as partial, open(partial, "wb") as file:
            np.save(file, values)

    def get(self, row: int) -> np.ndarray:
        """What a row of tiles finished."""
        return np.load(self._path(row))

    def all(self, rows: int) -> Iterator[np.ndarray]:
        """What each row of tiles finished."""
        return (self.get(row) for row in range(rows))

    def _path(self, row: int) -> Path:
        return self.folder / f"{row:06d}.npy"


@contextmanager
def finished_rows(output: Path, job: dict[str, Any], *, resume: bool) -> Iterator[FinishedRows]:
    """Holds the folder of an output's finished rows, and removes it if the block ends well.

    Args:
        output: File to come.
        job: What is being done, as plain JSON; what is finished of another job is forgotten.
        resume: False forgets what is finished of this job, too.

    Raises:
        UserError: Another process works on the output.
    """
    name = f".{output.name}.partial"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(output.name.encode()).hexdigest()[:16]}.partial"
    folder = output.with_name(name)
    was_there = folder.is_dir()
    with claim(folder, job, renews=True) as known:
        if not resume:
            for path in folder.glob("*.npy"):
                path.unlink()
        yield FinishedRows(folder, renewed=was_there and not known)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def told_by_name(output: Path) -> Iterator[None]:
    """Turns what the file system refuses into a sentence about the output.

    Raises:
        UserError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{shortened(output)} cannot be written ({error.strerror or error}): choose another "
            "output, or make room and start again, which goes on from here."
        ) from error


def shortened(path: Path) -> str:
    """A path as sentences show it."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:60]}...{text[-60:]}"


def write_cog(
    rows: FinishedRows,
    raster: Any,
    grid: Grid,
    output: Path,
    *,
    dtype: str,
    count: int,
    names: Sequence[str],
    tags: dict[str, str],
    categorical: bool,
) -> None:
    """Puts the rows together: a tiled, compressed GeoTIFF with overviews.

    Args:
        rows: All rows, finished.
        raster: The open scene, for its place on Earth.
        grid: Grid of the tiles.
        output: File to make.
        dtype: Data type of the values.
        count: Bands.
        names: Names of the classes (categorical), or of the bands.
        tags: For the file.
        categorical: Whether values are classes: a colour each, and overviews that keep classes.
    """
    import rasterio
    from rasterio.env import Env
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.shutil import copy as copy_raster
    from rasterio.windows import Window

    height, width = grid.cells
    flat = rows.folder / "flat.tif"
    whole = rows.folder / "whole.tif"
    nodata: float = NODATA if dtype == "uint8" else 65535 if dtype == "uint16" else float("nan")
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": dtype,
        "nodata": nodata,
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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                file = rasterio.open(flat, "w", **profile)
            with file:
                _place(file, raster, grid.stride)
                for row in range(grid.rows):
                    first, last = grid.band(row)
                    if last > first:
                        window = Window(0, first, width, last - first)
                        file.write(rows.get(row).astype(dtype), window=window)
                if categorical and dtype == "uint8":
                    file.write_colormap(1, colours(len(names)))
                if not categorical:
                    for number, name in enumerate(names):
                        file.set_band_description(number + 1, name)
                file.update_tags(**tags)
            copy_raster(
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
            f"{shortened(output)} cannot be written ({str(error).splitlines()[0]}): make room, "
            "then start again, which goes on from here."
        ) from error
    whole.replace(output)


def _place(file: Any, raster: Any, size: int) -> None:
    """Places a map as its scene is: by transform, ground control points or rational polynomials.

    Args:
        file: The map, open for writing.
        raster: The open scene.
        size: Pixels of the scene to one cell of the map.
    """
    from affine import Affine
    from rasterio.control import GroundControlPoint

    t = raster.transform
    if raster.crs is not None:
        file.crs = raster.crs
    if not t.is_identity:
        file.transform = Affine(t.a * size, t.b * size, t.c, t.d * size, t.e * size, t.f)
    points, crs = raster.gcps
    if points and t.is_identity:
        cells = [
            GroundControlPoint(p.row / size, p.col / size, p.x, p.y, p.z, p.id, p.info)
            for p in points
        ]
        file.gcps = (cells, crs)
    if raster.rpcs is not None:
        # Rational polynomials count from the centre of the first pixel.
        polynomials = copy(raster.rpcs)
        for axis in ("line", "samp"):
            centre = (getattr(polynomials, f"{axis}_off") + 0.5) / size - 0.5
            setattr(polynomials, f"{axis}_off", centre)
            setattr(polynomials, f"{axis}_scale", getattr(polynomials, f"{axis}_scale") / size)
        file.rpcs = polynomials


def colours(count: int) -> dict[int, tuple[int, int, int, int]]:
    """A colour for each of `count` classes, far apart in hue; nodata is transparent."""
    found = {NODATA: (0, 0, 0, 0)}
    for number in range(count):
        # Steps of the golden angle: neighbouring numbers never look alike.
        hue, value = number * 0.618034 % 1, (0.85, 0.6)[number % 2]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, value)
        found[number] = (round(255 * red), round(255 * green), round(255 * blue), 255)
    return found
