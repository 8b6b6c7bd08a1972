"""One unlabelled pile from several sets: what a run learns from when it learns from all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import write_json
from .names import MIXTURE, data_name
from .sources import load

if TYPE_CHECKING:
    import datasets


def write_mixture(
    folder: str | os.PathLike[str],
    sets: Mapping[str, int],
    *,
    split: str = "train",
    tile: int | None = None,
) -> Path:
    """Writes the images of several sets as one Parquet folder, for `data.name` of a run.

    Its columns are `image`; `source`, the set's name; and `label`, a class of a set
    (`aid96/Airport`, or the set where it has no classes), which may serve as a guide of
    class-balanced sampling. Images keep their stored bytes. Records call it by its sets.

    Args:
        folder: To write; it must not exist.
        sets: Data set as `load` takes it -> n: every n-th image of it, 1 for all.
        split: Split of every set.
        tile: Cut images of at least twice this side in pixels into tiles of it; None cuts nothing.

    Returns:
        The folder.

    Raises:
        UserError: The folder exists, a number below 1, or what `load` raises.
    """
    import datasets

    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists: choose another folder for the mixture.")
    if wrong := [name for name, every in sets.items() if every < 1]:
        raise UserError(f"'{wrong[0]}' is taken every {sets[wrong[0]]} images: use 1 or more.")
    parts = [_part(name, every, split, tile) for name, every in sets.items()]
    names = [name for _, classes in parts for name in classes]
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=names),
        source=datasets.Value("string"),
    )
    rows = datasets.concatenate_datasets([part.cast(features) for part, _ in parts])
    (folder / "data").mkdir(parents=True)
    rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    counted = {data_name(name): every for name, every in sets.items()}
    write_json(folder / MIXTURE, {"sets": counted, "split": split, "tile": tile})
    return folder


def _part(
    name: str, every: int, split: str, tile: int | None
) -> tuple[datasets.Dataset, list[str]]:
    """The rows that one set gives, `label` as text, and the classes among them."""
    import datasets

    rows = load(name, split)
    rows = rows.select(range(0, len(rows), every))
    title = Path(name).name
    if "label" in rows.features:
        classes = [f"{title}/{own}" for own in rows.features["label"].names]
        labels = [classes[number] for number in rows["label"]]
    else:
        classes, labels = [title], [title] * len(rows)
    images = rows.cast_column("image", datasets.Image(decode=False))["image"]
    pieces = [
        {"image": piece, "label": label, "source": title}
        for image, label in zip(images, labels, strict=True)
        for piece in _pieces(image, tile)
    ]
    used = {piece["label"] for piece in pieces}
    return datasets.Dataset.from_list(pieces), [own for own in classes if own in used]


def _pieces(image: dict[str, Any], tile: int | None) -> Iterator[dict[str, Any]]:
    """The stored image, or its tiles as PNG from left to right and top to bottom."""
    from PIL import Image

    stored = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    if tile is not None:
        whole = Image.open(io.BytesIO(stored))
        if min(whole.size) >= 2 * tile:
            for top in range(0, whole.height - tile + 1, tile):
                for left in range(0, whole.width - tile + 1, tile):
                    buffer = io.BytesIO()
                    whole.crop((left, top, left + tile, top + tile)).save(buffer, "PNG")
                    yield {"bytes": buffer.getvalue(), "path": None}
            return
    yield {"bytes": stored, "path": None}
