"""Tiles: read politely, judged, compared."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bands import default_value_range
from .plan import Candidate
from .scenes import GDAL, Scene, Source, finest, open_scene, sources

LOOK_SIDE = 8  # means a side by which tiles are compared, so the least side of one
_OPEN = 8  # scenes that a reader keeps open
_WHITE, _GREY = 0.8, 0.12  # a cloud's pixel: bright in all bands, and hardly coloured


@dataclass
class Tile:
    """One tile.

    Attributes:
        pixels: Stored values (H, W, C).
        valid: Which pixels hold data, (H, W) bool.
        latitude: Latitude of the centre, WGS 84.
        longitude: Longitude of the centre, WGS 84.
        at: Position that was drawn.
    """

    pixels: np.ndarray
    valid: np.ndarray
    latitude: float
    longitude: float
    at: Candidate


class Reader:
    """Reads tiles from any number of threads.

    Args:
        tile: Side in pixels.
        bands: Numbers of the bands to keep, from 1; None is the first three (or all, where there
            are fewer).
        rate: Tiles a second at most, of all threads together.
        retries: How often a failed read is repeated, each time after twice the wait.
    """

    def __init__(
        self, tile: int, bands: list[int] | None, *, rate: float | None, retries: int
    ) -> None:
        """Nothing is opened yet."""
        self.tile, self.bands, self.retries = tile, bands, retries
        self.pause, self.next, self.guard = 1 / rate if rate else 0.0, 0.0, threading.Lock()
        self.own = threading.local()

    def read(self, scene: Scene, at: Candidate) -> tuple[Tile | None, str | None]:
        """The tile, or "unreadable" after the last retry."""
        import rasterio
        from rasterio.errors import RasterioError

        from ...errors import UserError

        for attempt in range(self.retries + 1):
            self._wait()
            try:
                with rasterio.Env(**GDAL):
                    return self._read(scene, at), None
            except (RasterioError, OSError, UserError):
                self._forget(scene)
                if attempt < self.retries:
                    time.sleep(0.25 * 2**attempt)
        return None, "unreadable"

    def _wait(self) -> None:
        if not self.pause:
            return
        with self.guard:
            now = time.monotonic()
            mine = max(now, self.next)
            self.next = mine + self.pause
        time.sleep(max(0.0, mine - now))

    def _read(self, scene: Scene, at: Candidate) -> Tile:
        from rasterio.warp import transform

        rasters = self._rasters(scene)
        raster = finest(rasters)
        parts, masks = [], []
        for source in sources(scene, rasters, self.bands):
            pixels, mask = _window(source, raster, at, self.tile)
            parts.append(pixels)
            masks.append(mask)
        pixels, valid = np.concatenate(parts), np.any(masks, axis=0)
        half = self.tile / 2
        x, y = raster.transform @ (at.column + half, at.row + half)
        longitude, latitude = transform(raster.crs, "EPSG:4326", [x], [y])
        return Tile(
            np.ascontiguousarray(pixels.transpose(1, 2, 0)),
            valid,
            float(latitude[0]),
            float(longitude[0]),
            at,
        )

    def _rasters(self, scene: Scene) -> list[Any]:
        kept = self.own.__dict__.setdefault("rasters", {})
        if scene.addresses not in kept:
            while len(kept) >= _OPEN:
                for raster in kept.pop(next(iter(kept))):
                    raster.close()
            kept[scene.addresses] = [open_scene(address) for address in scene.addresses]
        return kept[scene.addresses]

    def _forget(self, scene: Scene) -> None:
        """Opens a scene anew next time."""
        for raster in self.own.__dict__.get("rasters", {}).pop(scene.addresses, ()):
            raster.close()


def _window(source: Source, grid: Any, at: Candidate, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, side, side) of one file, and where they hold data; coarser pixels are repeated.

    Args:
        source: File and bands.
        grid: The open file whose pixels the position counts.
        at: Position of the tile.
        side: Side of the tile in pixels.
    """
    from rasterio.windows import Window

    across = grid.transform.a / source.raster.transform.a
    down = grid.transform.e / source.raster.transform.e
    window = Window(at.column * across, at.row * down, side * across, side * down)
    shape = (side, side)
    pixels = source.raster.read(source.bands, window=window, out_shape=(len(source.bands), *shape))
    flags = {flag.name for band in source.bands for flag in source.raster.mask_flag_enums[band - 1]}
    valid = np.ones(shape, bool)
    if flags != {"all_valid"}:
        masks = source.raster.read_masks(
            source.bands, window=window, out_shape=(len(source.bands), *shape)
        )
        valid = masks.any(axis=0)
    return source.values.stored(pixels), valid


def judge(tile: Tile, max_cloud: float, max_nodata: float) -> str | None:
    """Why a tile is left out; None keeps it.

    Clouds are told by brightness and lack of colour alone, which also catches snow and bright
    roofs: the share is a limit, not a mask.

    Args:
        tile: Whole.
        max_cloud: Largest share of white, bright pixels.
        max_nodata: Largest share without data; pixels of zeros in all bands count too.
    """
    empty = ~tile.valid | (tile.pixels == 0).all(axis=-1)
    if empty.mean() > max_nodata:
        return "nodata"
    _, full = default_value_range(tile.pixels.dtype, ())
    x = tile.pixels[..., :3].astype(np.float32) / full
    white = (x.min(-1) > _WHITE) & (x.max(-1) - x.min(-1) < _GREY)
    return "cloud" if white.mean() > max_cloud else None


def look_alike(pixels: np.ndarray) -> str:
    """A name that tiles share which look the same: of 8 x 8 means, in 32 steps of grey a band.

    Args:
        pixels: (H, W, C), sides of 8 or more.
    """
    h, w, c = pixels.shape
    side = LOOK_SIDE
    cut = pixels[: h // side * side, : w // side * side].astype(np.float32)
    means = cut.reshape(side, h // side, side, w // side, c).mean((1, 3))
    step = 8.0 if pixels.dtype == np.uint8 else 320.0
    coarse = np.round(means / step).astype(np.uint16)
    return hashlib.sha256(coarse.tobytes()).hexdigest()[:16]
