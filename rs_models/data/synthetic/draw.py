"""Draws scenes by class and seed, and whole data sets of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bands import SENSORS
from ...errors import UserError
from ...settings import progress_bar
from ..cache import default_cache_dir
from ..names import missing_split
from ..parquet import png, write_parquet
from .canvas import Canvas
from .palette import OBJECTS
from .scenes import SCENES

if TYPE_CHECKING:
    import datasets

VERSION = "synthetic-1"
"""Changes whenever the same seed gives another picture."""

CLASSES = tuple(SCENES)
ROWS = {"train": 2048, "validation": 512, "test": 1024}
"""Rows of each split where `num` is not given."""


def draw_scene(
    label: int, seed: int | Sequence[int], size: int = 64
) -> tuple[np.ndarray, np.ndarray, dict[str, list]]:
    """Draws one scene.

    Args:
        label: Class index into `CLASSES`.
        seed: Anything `numpy.random.default_rng` takes.
        size: Side in pixels; the ground shown does not depend on it.

    Returns:
        Image (size, size, 4) uint8 (red, green, blue, near infrared), land cover (size, size) uint8
        (see `LAND_COVER`), and objects {"bbox": [[x, y, w, h], ...] in pixels, "category": [...]}
        (see `OBJECTS`).
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas(
        rng, size, zoom=float(np.exp(rng.uniform(-0.25, 0.3))), angle=rng.uniform(0, 2 * np.pi)
    )
    SCENES[CLASSES[label]](canvas)
    image, cover = canvas.render()
    boxes: dict[str, list] = {
        "bbox": [box for box, _ in canvas.objects],
        "category": [kind for _, kind in canvas.objects],
    }
    return image, cover, boxes


def load_synthetic(
    split: str = "train",
    *,
    size: int = 64,
    num: int | None = None,
    seed: int = 0,
    bands: Sequence[str] = SENSORS["rgb"],
) -> datasets.Dataset:
    """Draws a split, or reads it where it has been drawn before (see `RS_MODELS_CACHE`).

    Labels go round robin, so classes are balanced; splits and seeds never share a scene.

    Args:
        split: "train", "validation" or "test".
        size: Side in pixels.
        num: Rows; None takes `ROWS`.
        seed: Seed of the whole set.
        bands: Canonical names; with "nir" the rows have a `nir` column.

    Returns:
        Rows with image, label, mask, objects, and nir if asked for.

    Raises:
        UserError: Unknown split, a band that is not drawn, or a size or number that cannot
            be.
    """
    from datasets import Dataset

    if split not in ROWS:
        raise missing_split(split, ROWS, "synthetic")
    unknown = set(bands) - set(SENSORS["rgbn"])
    if unknown:
        raise UserError(
            f"Synthetic scenes have no band {', '.join(sorted(unknown))}: they have red, green, "
            "blue, nir; ask for those."
        )
    num = ROWS[split] if num is None else num
    if num < 1 or not 16 <= size <= 1024:
        raise UserError(
            f"Synthetic scenes need num >= 1 and size from 16 to 1024, not num={num}, size={size}."
        )
    with_nir = "nir" in bands
    key = hashlib.sha256(repr((VERSION, split, size, num, seed, with_nir)).encode()).hexdigest()[
        :16
    ]
    path = default_cache_dir() / "synthetic" / f"{key}.parquet"
    if not path.exists():
        drawn = Dataset.from_dict(
            _draw_rows(split, size, num, seed, with_nir), features=_features(with_nir)
        )
        write_parquet(drawn, path)
    return _read(path, key)


def parse_name(name: str) -> dict[str, int]:
    """The settings in a name such as "synthetic:num=640,size=64,seed=1".

    Raises:
        UserError: Unknown key or a value that is not a whole number.
    """
    settings = {}
    for part in filter(None, name.partition(":")[2].split(",")):
        key, _, value = part.partition("=")
        if key.strip() not in ("num", "size", "seed") or not value.strip().isdigit():
            raise UserError(
                f"{part!r} in {name!r} is not a setting: use num=, size= or seed= with a whole "
                "number."
            )
        settings[key.strip()] = int(value)
    return settings


def _draw_rows(split: str, size: int, num: int, seed: int, with_nir: bool) -> dict[str, list]:
    part = list(ROWS).index(split)
    columns: dict[str, list[Any]] = {"image": [], "label": [], "mask": [], "objects": []}
    if with_nir:
        columns["nir"] = []
    with progress_bar(num, f"drawing {split}", "scene", passing=True) as bar:
        for row in range(num):
            label = row % len(CLASSES)
            image, cover, objects = draw_scene(label, [seed, part, row], size)
            columns["image"].append(png(image[..., :3], level=1))
            columns["label"].append(label)
            columns["mask"].append(png(cover, level=1))
            columns["objects"].append(objects)
            if with_nir:
                columns["nir"].append(png(image[..., 3], level=1))
            bar.update()
    return columns


def _features(with_nir: bool) -> datasets.Features:
    from datasets import ClassLabel, Features, Image, List, Value

    features = {
        "image": Image(),
        "label": ClassLabel(names=list(CLASSES)),
        "mask": Image(),
        "objects": {
            "bbox": List(List(Value("float32"), length=4)),
            "category": List(ClassLabel(names=list(OBJECTS))),
        },
    }
    return Features({**features, "nir": Image()} if with_nir else features)


def _read(path: os.PathLike, fingerprint: str) -> datasets.Dataset:
    """Reads a small Parquet file into memory, with its fingerprint and without another cache."""
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(pq.read_table(path)), fingerprint=fingerprint)
