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
from .scenes import GDAL, Scene, open_scene

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
        from rasterio.windows import Window

        rasters = self._rasters(scene)
        raster = rasters[0]
        window = Window(at.column, at.row, self.tile, self.tile)
        if scene.parts:
            chosen = [rasters[band - 1] for band in self.bands or range(1, len(rasters) + 1)]
            pixels = np.stack([part.read(1, window=window) for part in chosen])  # (C, H, W)
            valid = np.any([part.read_masks(1, window=window) for part in chosen], axis=0)
        else:
            bands = self.bands or [1, 2, 3]
            pixels = raster.read(bands, window=window)  # (C, H, W)
            flags = {flag.name for band in bands for flag in raster.mask_flag_enums[band - 1]}
            valid = np.ones(pixels.shape[1:], bool)
            if flags != {"all_valid"}:
                valid = raster.read_masks(bands, window=window).any(axis=0)
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
