"""A pile of tiles in memory: small pictures, vectors, and where each lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..data.resize import resize_and_crop
from ..errors import UserError
from ..evaluation.locations import place_of
from ..evaluation.pile import place_values
from ..labelling import Index
from .explorer import data_name
from .models import encoder, features
from .pictures import squared
from .pile_files import MAX_TILES, opened
from .uploads import open_tiff, read_picture, shrunk

SIDE = 128
"""Pixels of a tile as it is shown to be labelled."""
SMALL = 72
"""Pixels of a tile among many."""
MAX_SCENE = 1200
"""Pixels of the longer side of a scene as it is shown."""

# The example's own classes in five that a person would tell apart; its tiles are UC Merced's.
EXAMPLE_CLASSES = {
    "homes": "denseresidential mediumresidential mobilehomepark sparseresidential",
    "traffic": "airplane freeway intersection overpass parkinglot runway",
    "green": "agricultural baseballdiamond chaparral forest golfcourse",
    "water": "beach harbor river",
    "built": "buildings storagetanks tenniscourt",
}
_AT_A_TIME = 48  # tiles that are encoded between two words of progress

Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Scene:
    """The scene that a pile was cut from.

    Attributes:
        picture: (H, W, 3) uint8, as it is shown.
        boxes: (N, 4) left, top, right, bottom of each tile in that picture.
    """

    picture: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Pile:
    """Tiles to be labelled; nothing of it changes, so that users may share one.

    Attributes:
        index: Their vectors and names; its encoder is the model.
        pictures: JPEG of each tile, `SIDE` pixels.
        small: JPEG of each tile, `SMALL` pixels.
        model: Name of the model.
        title: What the pile is called.
        scene: What it was cut from; None for a pile of images.
        truth: What each tile is, where that is known: the example's.
        notes: What was left out, and why.
    """

    index: Index
    pictures: tuple[bytes, ...]
    small: tuple[bytes, ...]
    model: str
    title: str
    scene: Scene | None = None
    truth: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.pictures)


@lru_cache(maxsize=3)
def example(model: str) -> Pile:
    """The pile that a page opens with: labelled images whose labels are put aside.

    Args:
        model: Name of the encoder.

    Raises:
        UserError: No such model or data.
    """
    from ..data import load

    rows = load(data_name(), "train")
    rows = rows.shuffle(seed=0).select(range(min(len(rows), MAX_TILES)))
    classes = rows.features["label"].names
    groups = {one: name for name, many in EXAMPLE_CLASSES.items() for one in many.split()}
    kinds = [groups.get(classes[number], classes[number]) for number in rows["label"]]
    tiles = [np.asarray(image.convert("RGB")) for image in rows["image"]]
    names = [f"tile-{number:03d}" for number in range(len(tiles))]
    pile = _encoded(
        tiles, names, model, f"The example pile, {len(tiles)} tiles", lambda share, text: None
    )
    return replace(pile, truth=tuple(kinds))


def uploaded(files: Sequence[str], model: str, progress: Progress) -> Pile:
    """A pile of what a user has dropped.

    Args:
        files: Paths of images, of zip archives of images, or of one scene as a GeoTIFF, which is
            cut into tiles.
        model: Name of the encoder.
        progress: Told how far it is, and at what.

    Raises:
        UserError: Nothing that can be read, or more than the limits.
    """
    if not files:
        raise UserError("Drop images, a zip of images, or a GeoTIFF first.")
    if len(files) == 1 and Path(files[0]).suffix.lower() in (".tif", ".tiff"):
        cut = _cut(files[0], model, progress)
        if cut is not None:
            return cut
    progress(0.02, "Reading the images")
    tiles, names, places, notes = [], [], [], []
    with opened(files) as found:
        for number, file in enumerate(found):
            try:
                tiles.append(resize_and_crop(read_picture(file), _side(model)))
            except UserError as error:
                notes.append(str(error))
                continue
            names.append(file.name)
            places.append(_place(file))
            progress(0.02 + 0.3 * number / len(found), f"Reading {len(tiles)} images")
    if len(tiles) < 4:
        more = f" {notes[0]}" if notes else ""
        raise UserError(f"A pile has four images or more, and {len(tiles)} could be read.{more}")
    placed = places if all(place is not None for place in places) else None
    pile = _encoded(tiles, names, model, f"{len(tiles)} images of yours", progress, placed)
    return replace(pile, notes=tuple(notes))


def _side(model: str) -> int:
    """Pixels that a tile is kept at until it is encoded."""
    return max(SIDE, encoder(model).train_size)


def _place(file: Path) -> Any:
    """Where a tile lies; None where its file does not tell."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return None
    with open_tiff(file) as raster:
        return place_of(raster)


def _cut(path: str, model: str, progress: Progress) -> Pile | None:
    """The tiles of a scene side by side; None of one that is no larger than a few tiles."""
    from rasterio.windows import Window

    picture = read_picture(path)
    height, width = picture.shape[:2]
    side = max(encoder(model).train_size, int(np.ceil(np.sqrt(height * width / MAX_TILES))))
    rows, columns = height // side, width // side
    if rows * columns < 12:
        return None
    corners = [(row * side, column * side) for row in range(rows) for column in range(columns)]
    with open_tiff(Path(path)) as raster:
        places = [place_of(raster, Window(left, top, side, side)) for top, left in corners]
    tiles = [picture[top : top + side, left : left + side] for top, left in corners]
    names = [f"row-{top // side + 1:02d}-column-{left // side + 1:02d}" for top, left in corners]
    title = f"{len(tiles)} tiles of {side} pixels, cut from {Path(path).name}"
    placed = places if places[0] is not None else None
    pile = _encoded(tiles, names, model, title, progress, placed)
    shown = shrunk(picture, MAX_SCENE)
    scale = shown.shape[1] / width
    boxes = np.array([(left, top, left + side, top + side) for top, left in corners]) * scale
    return replace(pile, scene=Scene(shown, boxes.round().astype(int)))


def _encoded(
    tiles: Sequence[np.ndarray],
    names: list[str],
    model: str,
    title: str,
    progress: Progress,
    places: Sequence[Any] | None = None,
) -> Pile:
    """A pile of tiles (H, W, 3) uint8."""
    import pyarrow as pa

    frozen = encoder(model)
    parts = []
    for start in range(0, len(tiles), _AT_A_TIME):
        progress(0.35 + 0.6 * start / len(tiles), f"Looking at tile {start} of {len(tiles)}")
        parts.append(features(frozen, list(tiles[start : start + _AT_A_TIME])))
    columns: dict[str, Any] = {"file": names}
    if places is not None:
        values = [place_values(place) for place in places]
        columns |= {key: [value[key] for value in values] for key in values[0]}
    index = Index(np.concatenate(parts), pa.table(columns))
    index.encoder = frozen
    return Pile(
        index=index,
        pictures=tuple(squared(tile, SIDE) for tile in tiles),
        small=tuple(squared(tile, SMALL, 78) for tile in tiles),
        model=model,
        title=title,
    )
