"""Tiny data in every layout that users have."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image


def pixels(seed: int, height: int = 20, width: int = 24, bands: int = 3) -> np.ndarray:
    """Smooth random pixels, (height, width, bands), uint8."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, bands)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, -(-height // 5), 0), -(-width // 6), 1)[:height, :width]


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def save(path: Path, seed: int, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels(seed, **size)).save(path)
    return path


def class_folders(root: Path, classes: dict[str, int], suffix: str = ".png") -> Path:
    """One folder a class with so many images; names may have more than one level."""
    for number, (name, count) in enumerate(classes.items()):
        for i in range(count):
            save(root / name / f"{i:03d}{suffix}", seed=100 * number + i)
    return root


def tiles(root: Path, array: np.ndarray, *, descriptions: tuple[str, ...] | None = None) -> Path:
    """GeoTIFF tiles from (N, H, W, C)."""
    import rasterio

    root.mkdir(parents=True, exist_ok=True)
    for i, tile in enumerate(array):
        height, width, count = tile.shape
        profile = {"driver": "GTiff", "height": height, "width": width, "count": count}
        with rasterio.open(root / f"{i:03d}.tif", "w", dtype=tile.dtype, **profile) as raster:
            raster.write(np.moveaxis(tile, 2, 0))
            if descriptions:
                raster.descriptions = descriptions
    return root
