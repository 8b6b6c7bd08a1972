"""Draws the Spaces' example images: `python spaces/make_examples.py`. They are kept in git."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from rs_models.data.synthetic import CLASSES, draw_scene

SCENES = ("harbor", "residential", "farmland", "beach", "airport", "river", "forest", "parking")
HERE = Path(__file__).parent


def scene(name: str, seed: int, size: int = 384) -> np.ndarray:
    """Red, green and blue (size, size, 3) of a class."""
    return draw_scene(CLASSES.index(name), seed, size)[0][..., :3]


def main() -> None:
    """Writes all examples."""
    for space in ("scene-explorer", "learning-signals", "compare"):
        for number, name in enumerate(SCENES[: 8 if space == "learning-signals" else 4]):
            path = HERE / space / "examples" / f"{name}.jpg"
            Image.fromarray(scene(name, 40 + number)).save(path, quality=88)
    folder = HERE / "segment-a-scene" / "examples"
    Image.fromarray(scene("residential", 41)).save(folder / "residential.jpg", quality=88)
    # Four scenes side by side, 0.5 m a pixel in UTM 32N: areas come in hectares.
    parts = [
        scene(name, 60 + n) for n, name in enumerate(("farmland", "river", "residential", "harbor"))
    ]
    mosaic = np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])
    height, width = mosaic.shape[:2]
    with rasterio.open(
        folder / "mosaic_utm32.tif",
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=from_origin(500_000, 5_400_000, 0.5, 0.5),
        compress="jpeg",
        photometric="ycbcr",
        tiled=True,
        blockxsize=256,
        blockysize=256,
    ) as out:
        out.write(np.moveaxis(mosaic, 2, 0))
        for band, name in enumerate(("red", "green", "blue"), 1):
            out.set_band_description(band, name)


if __name__ == "__main__":
    main()
