"""Parquet shards that `datasets` and the Hub read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..parquet import png, write_parquet
from .scenes import Scene
from .tiles import Tile


def write_shard(
    path: Path, tiles: Sequence[Tile], names: Sequence[str], scenes: Sequence[Scene]
) -> None:
    """Writes one file, beside and then renamed.

    Three bands of bytes become PNG images, anything else arrays (H, W, C).

    Args:
        path: File to write.
        tiles: Tiles that become its rows.
        names: Names of the guidance classes.
        scenes: Scenes that the tiles were drawn from.
    """
    from datasets import Array3D, ClassLabel, Dataset, Features, Image, Value

    first = tiles[0].pixels
    picture = first.dtype == np.uint8 and first.shape[-1] == 3
    features = Features(
        {
            "image": Image() if picture else Array3D(first.shape, str(first.dtype)),
            "label": ClassLabel(names=list(names)),
            "purity": Value("float32"),
            "latitude": Value("float64"),
            "longitude": Value("float64"),
            "date": Value("string"),
            "scene": Value("string"),
            "row": Value("int32"),
            "column": Value("int32"),
        }
    )
    columns: dict[str, list[Any]] = {
        "image": [png(tile.pixels, level=3) if picture else tile.pixels for tile in tiles],
        "label": [tile.at.label for tile in tiles],
        "purity": [tile.at.purity for tile in tiles],
        "latitude": [tile.latitude for tile in tiles],
        "longitude": [tile.longitude for tile in tiles],
        "date": [scenes[tile.at.scene].date for tile in tiles],
        "scene": [scenes[tile.at.scene].name for tile in tiles],
        "row": [tile.at.row for tile in tiles],
        "column": [tile.at.column for tile in tiles],
    }
    write_parquet(Dataset.from_dict(columns, features=features), path)
