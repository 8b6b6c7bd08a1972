"""Reading a scene: bands by name, windows beyond its border, nodata, corrupt blocks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..bands import band_indices, resolve_bands
from ..data.columns import raster_bands
from ..data.values import Values, plan_values
from ..errors import UserError
from ..preprocessing import Preprocessing
from ..rasters import SCENE_DRIVERS, VRT_SUFFIX, is_address, open_raster
from .sensors import numbered_bands


class CorruptBlockError(UserError):
    """A part of a scene that cannot be read."""


@dataclass
class Scene:
    """An open raster as a model wants it.

    Attributes:
        path: Path of the file.
        raster: Open rasterio data set.
        indexes: Numbers (from 1) of the bands to read, in the model's order.
        skip_corrupt: Whether blocks that cannot be read become nodata, and are counted.
        values: What is made of stored values.
        corrupt: How many there were.
    """

    path: str
    raster: Any
    indexes: list[int]
    skip_corrupt: bool = False
    values: Values = Values()  # noqa: RUF009 (frozen)
    corrupt: set[tuple[int, int]] = field(default_factory=set)

    @classmethod
    def open(
        cls,
        path: str,
        preprocessing: Preprocessing,
        *,
        bands: str | Sequence[str] | None = None,
        skip_corrupt: bool = False,
        sensor: str | None = None,
        stretch: str | None = None,
        scale: float | None = None,
        offset: float | None = None,
    ) -> Scene:
        """Opens a GeoTIFF, VRT or whatever GDAL reads.

        Args:
            path: Path of the file.
            preprocessing: Preprocessing of the model, which says the bands.
            bands: Names of the file's bands in order, where it does not name them.
            skip_corrupt: Whether blocks that cannot be read become nodata, and are counted.
            sensor: One of `bands.NUMBERING`, where the file does not tell whose numbers they are.
            stretch: "min,max" or "percentile" (see `values.plan_values`).
            scale: Reflectance of a stored unit, in place of what the file says.
            offset: Reflectance of a stored 0, in place of what the file says.

        Raises:
            UserError: Not a raster, bands that are missing or not named, or values that do not tell
                what they are.
        """
        raster = _opened(path)
        try:
            have = _bands(raster, bands, path, sensor)
            notes: tuple[str, ...] = ()
            if have is None and raster.count == len(preprocessing.bands):
                have = preprocessing.bands
                names = ", ".join(have)
                notes = (f"{path}: its bands have no names and are taken as {names}.",)
            if have is None:
                raise UserError(
                    f"{path} has {raster.count} bands that it does not name, and the model takes "
                    f"{', '.join(preprocessing.bands)}: name the file's bands in order with bands."
                )
            places = band_indices(have, preprocessing.bands, source=path)
            indexes = [place + 1 for place in places]
            values = plan_values(
                raster, indexes, preprocessing, path, stretch=stretch, scale=scale, offset=offset
            )
            values = dataclasses.replace(values, notes=(*notes, *values.notes))
            return cls(str(path), raster, indexes, skip_corrupt, values)
        except UserError:
            raster.close()
            raise

    def another(self) -> Scene:
        """The same scene opened again, for another thread."""
        again = dataclasses.replace(self, raster=_opened(self.path))
        return again

    def close(self) -> None:
        """Closes the file."""
        self.raster.close()

    def files(self) -> list[list[Any]]:
        """The file and all that it refers to (a VRT's sources): path, size and time of change."""
        return [
            [path, stat.st_size, stat.st_mtime_ns]
            for path in self.sources()
            if (stat := _stat(path)) is not None
        ] or [[self.path]]

    def sources(self) -> list[str]:
        """Paths of the file and of all that it refers to, a VRT's sources and theirs."""
        return _sources(self.raster, {os.path.abspath(self.path)})

    @property
    def has_nodata(self) -> bool:
        """Whether some pixels may be said to hold nothing."""
        flags = self.raster.mask_flag_enums
        return any("all_valid" not in {flag.name for flag in flags[i - 1]} for i in self.indexes)

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """A window that may reach beyond the right and lower border.

        Args:
            top: First row, within the scene.
            left: First column, within the scene.
            height: In pixels.
            width: In pixels.

        Returns:
            Pixels (C, height, width) as stored, mirrored beyond the border, and where they hold
            something, (height, width) bool.

        Raises:
            CorruptBlockError: A part cannot be read, unless `skip_corrupt`.
        """
        inside_h = min(height, self.raster.height - top)
        inside_w = min(width, self.raster.width - left)
        pixels, valid = self._inside(top, left, inside_h, inside_w)
        below, right = height - inside_h, width - inside_w
        if below or right:
            pixels = np.pad(pixels, ((0, 0), (0, below), (0, right)), mode="symmetric")
            valid = np.pad(valid, ((0, below), (0, right)), mode="symmetric")
        return pixels, valid

    def valid(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Where a window within the scene holds something, (height, width) bool."""
        from rasterio.windows import Window

        if self.corrupt or self._floats:
            return self._inside(top, left, height, width)[1]
        if not self.has_nodata:
            return np.ones((height, width), bool)
        window = Window(left, top, width, height)
        return self.raster.read_masks(self.indexes, window=window).any(axis=0)

    def _inside(
        self, top: int, left: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        from rasterio.errors import RasterioError

        try:
            return self._read(top, left, height, width)
        except RasterioError as error:
            if not self.skip_corrupt:
                raise CorruptBlockError(
                    f"{self.path} cannot be read in rows {top} to {top + height}, columns {left} "
                    f"to {left + width} ({_reason(error)}): repair it and start again, which goes "
                    "on from here, or let corrupt blocks become nodata with skip_corrupt."
                ) from error
        return self._by_blocks(top, left, height, width)

    def _read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        from rasterio.windows import Window

        window = Window(left, top, width, height)
        pixels = self.raster.read(self.indexes, window=window)
        valid = np.ones((height, width), bool)
        if self.has_nodata:
            # A pixel holds nothing where none of its bands does: a dark one may have a 0 in some.
            valid = self.raster.read_masks(self.indexes, window=window).any(axis=0)
        if self._floats:
            finite = np.isfinite(pixels)
            valid = valid & finite.any(axis=0)
            pixels = np.where(finite, pixels, 0)
        return self.values.apply(pixels), valid

    @property
    def _floats(self) -> bool:
        return any(np.dtype(self.raster.dtypes[i - 1]).kind == "f" for i in self.indexes)

    def _by_blocks(
        self, top: int, left: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Block by block of the file; those that cannot be read hold nothing."""
        from rasterio.errors import RasterioError

        stored = np.result_type(*(self.raster.dtypes[i - 1] for i in self.indexes))
        kind = self.values.apply(np.zeros((len(self.indexes), 1, 1), stored)).dtype
        pixels = np.zeros((len(self.indexes), height, width), kind)
        valid = np.zeros((height, width), bool)
        block_h, block_w = self.raster.block_shapes[self.indexes[0] - 1]
        for y in range(top // block_h * block_h, top + height, block_h):
            for x in range(left // block_w * block_w, left + width, block_w):
                y0, x0 = max(y, top), max(x, left)
                y1, x1 = min(y + block_h, top + height), min(x + block_w, left + width)
                here = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
                try:
                    part, known = self._read(y0, x0, y1 - y0, x1 - x0)
                except RasterioError:
                    self.corrupt.add((y, x))
                    continue
                pixels[:, here[0], here[1]], valid[here] = part, known
        return pixels, valid


def _opened(path: str) -> Any:
    """The raster that the user named, which may be a VRT or an address, and is read in windows."""
    return open_raster(
        path,
        name=f"The scene {path}",
        vrt=True,
        drivers=SCENE_DRIVERS,
        addresses=True,
        max_bytes=None,
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _sources(raster: Any, seen: set[str]) -> list[str]:
    """Sorted paths, with those of VRTs among them opened in turn."""
    for path in raster.files:
        whole = os.path.abspath(path) if not is_address(path) else path
        if whole in seen:
            continue
        seen.add(whole)
        if whole.lower().endswith(VRT_SUFFIX):
            with suppress(UserError), _opened(whole) as inner:
                _sources(inner, seen)
    return sorted(seen)


def _bands(
    raster: Any, given: str | Sequence[str] | None, path: str, sensor: str | None
) -> tuple[str, ...] | None:
    """Names of a raster's bands in order; None where neither it nor the user says."""
    if given is None:
        numbered = numbered_bands(raster, path, sensor)
        return numbered or raster_bands(raster) or _named(raster)
    names = resolve_bands(given)
    if len(names) != raster.count:
        raise UserError(
            f"The setting bands names {len(names)} bands ({', '.join(names)}), but {path} has "
            f"{raster.count}: name each of them, in the file's order."
        )
    return names


def _named(raster: Any) -> tuple[str, ...] | None:
    """Names of a raster that has an alpha or other unnamed band beside known ones."""
    from ..bands import band_name

    names = []
    for number, description in enumerate(raster.descriptions):
        said = description or raster.colorinterp[number].name
        try:
            names.append(band_name(said.split(",")[0].split(" (")[0]))
        except UserError:
            names.append(f"band {number + 1}")
    known = [name for name in names if not name.startswith("band ")]
    return tuple(names) if known and len(set(names)) == len(names) else None


def _reason(error: Exception) -> str:
    """The innermost message, in one line."""
    found: BaseException = error
    while found.__cause__ is not None:
        found = found.__cause__
    return str(found).splitlines()[0] if str(found) else type(found).__name__
