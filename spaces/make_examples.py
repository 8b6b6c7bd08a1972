"""Makes the Spaces' example images: `python spaces/make_examples.py`. They are kept in git.

Tiles are UC Merced's, of the clone (`hub/datasets/rs/ucmerced`; USGS, public domain), three times
as large. The scene with a place is drawn, since no real one of open terms lies here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from rs_models.data import load
from rs_models.data.synthetic import CLASSES, LAND_COVER, draw_scene
from rs_models.demos.dense_scene import looked_at
from rs_models.demos.scene_marks import point
from rs_models.demos.scene_work import Work

HERE = Path(__file__).parent
DATA = "rs/ucmerced"
# Rows of the test split, which no page searches, chosen by looking at them.
TILES = {
    "harbor": 154,
    "residential": 188,
    "farmland": 8,
    "river": 243,
    "airport": 17,
    "beach": 52,
    "forest": 108,
    "parking": 228,
}
# Rows of the train split, side by side: a river, a road, houses; a beach, a golf course, a wood.
PATCHWORK = ((484, 247, 368), (94, 274, 217))
# Points on the patchwork in its pixels, set by hand.
CLICKS = {
    "water": "32,24 56,72 78,112 112,160 116,224 100,200",
    "sand": "20,160 40,220 50,24 64,40 220,176 196,238 60,190",
    "tree": "116,60 108,20 16,100 337,43 300,150 350,200 280,220 240,150",
    "grass": "145,90 165,110 235,20 170,150 160,210 190,180",
    "pavement": "150,25 180,50 215,60 235,105 275,25 160,10",
    "building": "330,20 308,40 290,64 364,39 378,110",
}
QUARTERS = ("farmland", "river", "residential", "harbor")
# What is told apart on the drawn scene: bare and green fields are one, boats and cars none.
GROUNDS = {
    "tree": ("tree",),
    "soil": ("soil", "crop", "grass"),
    "water": ("water",),
    "sand": ("sand",),
    "building": ("building",),
    "pavement": ("pavement",),
}
MODEL = "rs/rsisc-resnet18"
# Points a class to begin with, and rounds in which the worst mistakes of the map get a point each.
_FIRST, _ROUNDS, _A_ROUND = 4, 14, 3


def scene(name: str, seed: int, size: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """Red, green and blue (size, size, 3) of a drawn class, and its land cover (size, size)."""
    image, cover, _ = draw_scene(CLASSES.index(name), seed, size)
    return image[..., :3], cover


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """The drawn scene (768, 768, 3) and its land cover."""
    parts = [scene(name, 60 + n) for n, name in enumerate(QUARTERS)]
    rows = [[np.hstack(pair) for pair in zip(*parts[n : n + 2], strict=True)] for n in (0, 2)]
    image, cover = (np.vstack(both) for both in zip(*rows, strict=True))
    return image, cover


def points_of(path: Path, cover: np.ndarray) -> dict[str, list[list[float]]]:
    """Points as a person sets them: some of each class, then where the map is wrong.

    Args:
        path: The scene.
        cover: Its land cover.

    Returns:
        Class -> [x, y] from 0 to 1.
    """
    from scipy.ndimage import distance_transform_edt

    names, height = list(GROUNDS), len(cover)
    wanted = np.full(cover.shape, -1)
    for number, kinds in enumerate(GROUNDS.values()):
        wanted[np.isin(cover, [LAND_COVER.index(kind) for kind in kinds])] = number
    rng, work = np.random.default_rng(0), Work(looked_at(MODEL, str(path)), names)

    def click(column: int, row: int) -> None:
        x, y = round(float(column + 0.5) / height, 4), round(float(row + 0.5) / height, 4)
        work.add([point(x, y, names[wanted[row, column]])], names)

    for number in range(len(names)):
        depth = distance_transform_edt(wanted == number)
        rows, columns = np.nonzero(depth >= min(8, depth.max()))
        for some in rng.choice(len(rows), _FIRST, replace=False):
            click(columns[some], rows[some])
    for _ in range(_ROUNDS):
        mask = work.mask(cover.shape)
        wrong = [distance_transform_edt((wanted == n) & (mask != n)) for n in range(len(names))]
        worst = sorted(range(len(names)), key=lambda n: -(wrong[n] > 0).sum())[:_A_ROUND]
        for number in worst:
            row, column = np.unravel_index(wrong[number].argmax(), cover.shape)
            click(int(column), int(row))
    return {
        name: [list(mark.rings[0][0]) for mark in work.marks if mark.name == name] for name in names
    }


def main() -> None:
    """Writes all examples."""
    tests, train = load(DATA, "test"), load(DATA, "train")
    for space in ("scene-explorer", "learning-signals", "compare"):
        few = len(TILES) if space == "learning-signals" else 4
        for name, row in list(TILES.items())[:few]:
            tile = tests[row]["image"].convert("RGB")
            large = tile.resize((384, 384), Image.Resampling.LANCZOS)
            large.save(HERE / space / "examples" / f"{name}.jpg", quality=86)
    folder = HERE / "segment-a-scene" / "examples"
    side = 128
    patchwork = Image.new("RGB", (3 * side, 2 * side))
    for y, line in enumerate(PATCHWORK):
        for x, row in enumerate(line):
            patchwork.paste(train[row]["image"].convert("RGB"), (x * side, y * side))
    patchwork.save(folder / "patchwork.png", optimize=True)
    mosaic, cover = drawn()
    clicks = {
        name: [[round(int(v) / s, 4) for v, s in zip(one.split(","), (384, 256), strict=True)]
               for one in many.split()]
        for name, many in CLICKS.items()
    }  # fmt: skip
    write_mosaic(folder / "mosaic_utm32.tif", mosaic)
    points = {
        "patchwork.png": clicks,
        "mosaic_utm32.tif": points_of(folder / "mosaic_utm32.tif", cover),
    }
    (folder / "points.json").write_text(json.dumps(points) + "\n")


def write_mosaic(path: Path, mosaic: np.ndarray) -> None:
    """Writes the drawn scene, 0.5 m a pixel in UTM 32N: areas come in hectares."""
    height, width = mosaic.shape[:2]
    with rasterio.open(
        path,
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
