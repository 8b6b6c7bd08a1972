"""Tiny copies of data sets, laid out as their owners distribute them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rs_models.data.convert import LAYOUTS

SIZE = 24
SEGMENTATION = ("potsdam", "deepglobe-land-cover", "dlrsd", "loveda", "massachusetts-roads")
DETECTION = ("levir", "dior", "dota")
SCENES = tuple(name for name, layout in LAYOUTS.items() if layout.task == "scenes")
# One object: x, y, width, height.
BOX = (4, 6, 10, 8)


def pixels(seed: int, size: int = SIZE, bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    high = 256 if dtype == "uint8" else 10_000
    return np.random.default_rng(seed).integers(0, high, (size, size, bands)).astype(dtype)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 3 and (array.shape[2] > 3 or array.dtype != np.uint8):
        import rasterio

        height, width, bands = array.shape
        shape = {"height": height, "width": width, "count": bands, "dtype": array.dtype.name}
        north_up = rasterio.transform.from_origin(0, 0, 1, 1)
        with rasterio.open(path, "w", driver="GTiff", transform=north_up, **shape) as file:
            file.write(array.transpose(2, 0, 1))
    else:
        # JPEG loses little enough of smooth pictures; these are noise, so at full quality.
        Image.fromarray(array.squeeze()).save(
            path, **({"quality": 100} if path.suffix == ".jpg" else {})
        )


def index_mask(classes: int, size: int = SIZE) -> np.ndarray:
    """Class numbers in stripes, the last column without a class."""
    mask = np.tile(np.arange(size) * classes // size, (size, 1)).astype(np.uint8)
    mask[:, -1] = 255
    return mask


def stored_mask(name: str, mask: np.ndarray) -> np.ndarray:
    """A mask of class numbers as the owners store it."""
    back = {number: value for value, number in LAYOUTS[name].mask.items()}
    if 255 not in back:  # no value for "no class": the stripe gets class 0
        mask = np.where(mask == 255, 0, mask)
    colours = np.array([back[int(n)] for n in mask.ravel()], np.uint8)
    return colours.reshape(*mask.shape, *colours.shape[1:])


def make(name: str, root: Path, count: int = 5) -> Path:
    """Builds a tiny copy below `root`; the folder."""
    layout, number = LAYOUTS[name], 0
    if layout.task == "scenes":
        folders = list(layout.renamed) or list(layout.classes) or [f"Class {i}" for i in range(46)]
        suffix = {"uc-merced": ".tif", "eurosat-ms": ".tif"}.get(name, ".jpg")
        for split in ("train", "val") if name == "rsd46-whu" else ("",):
            for folder in folders:
                for i in range(count):
                    number += 1
                    shape = {"bands": 13, "dtype": "uint16"} if name == "eurosat-ms" else {}
                    path = root / "Wrapped" / split / folder / f"{folder}_{i}{suffix}"
                    save(pixels(number, **shape), path)
        return root
    builders = {
        "potsdam": _potsdam,
        "deepglobe-land-cover": _deepglobe,
        "dlrsd": _dlrsd,
        "loveda": _loveda,
        "massachusetts-roads": _roads,
        "levir": _levir,
        "dior": _dior,
        "dota": _dota,
    }
    builders[name](root, count)
    return root


def _masked(
    name: str, image: Path, mask: Path, seed: int, bands: int = 3, size: int = SIZE
) -> None:
    save(pixels(seed, size, bands), image)
    save(stored_mask(name, index_mask(len(LAYOUTS[name].classes), size)), mask)


def _potsdam(root: Path, count: int) -> None:
    for seed, area in enumerate(("2_10", "7_12", "2_13")):
        _masked(
            "potsdam",
            root / "4_Ortho_RGBIR" / f"top_potsdam_{area}_RGBIR.tif",
            root / "5_Labels_all" / f"top_potsdam_{area}_label.tif",
            seed,
            bands=4,
            size=40,
        )


def _deepglobe(root: Path, count: int) -> None:
    for i in range(count):
        folder = root / "land-train"
        _masked("deepglobe-land-cover", folder / f"{i}_sat.jpg", folder / f"{i}_mask.png", i)
    save(pixels(99), root / "land-valid" / "77_sat.jpg")  # public without a mask


def _dlrsd(root: Path, count: int) -> None:
    for i in range(count):
        part = Path("airplane") / f"airplane{i:02d}"
        _masked("dlrsd", root / "Images" / f"{part}.tif", root / "Labels" / f"{part}.png", i)


def _loveda(root: Path, count: int) -> None:
    number = 0
    for split in ("Train", "Val"):
        for scene in ("Urban", "Rural"):
            for i in range(2):
                number += 1
                folder = root / split / scene
                _masked(
                    "loveda", folder / f"images_png/{i}.png", folder / f"masks_png/{i}.png", number
                )


def _roads(root: Path, count: int) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        folder = root / "mass_roads" / split
        _masked(
            "massachusetts-roads",
            folder / "sat" / f"{number}.tiff",
            folder / "map" / f"{number}.tif",
            number,
        )


def _levir(root: Path, count: int) -> None:
    x, y, w, h = BOX
    for i in range(count):
        save(pixels(i), root / "imageWithLabel" / f"{i:05d}.jpg")
        text = "" if i == 0 else f"2 {x} {y} {x + w} {y + h}\n"
        (root / "imageWithLabel" / f"{i:05d}.txt").write_text(text)


def _dior(root: Path, count: int) -> None:
    x, y, w, h = BOX
    box = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
    for i in range(count):
        part = "trainval" if i < count - 1 else "test"
        save(pixels(i), root / f"JPEGImages-{part}" / f"{i:05d}.jpg")
        path = root / "Annotations" / "Horizontal Bounding Boxes" / f"{i:05d}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<annotation><object><name>windmill</name><bndbox>{box}</bndbox></object></annotation>"
        )


def _dota(root: Path, count: int) -> None:
    x, y, w, h = BOX
    corners = f"{x} {y} {x + w} {y} {x + w} {y + h} {x} {y + h}"
    for i in range(count):
        split = "train" if i < count - 1 else "val"
        save(pixels(i), root / split / "images" / f"P{i:04d}.png")
        path = root / split / "labelTxt-v1.0" / f"P{i:04d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"imagesource:GoogleEarth\ngsd:0.15\n{corners} harbor 1\n")
