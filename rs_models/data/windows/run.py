"""Training windows from scenes and polygons, points or boxes over them, split by place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import new_folder, write_text
from ..folders import files_below
from ..names import SPLITS
from ..values import stated_values
from ..vectors import read_features
from .rows import Window, kept_bands, open_scene, window_rows
from .settings import Windows, WindowSettings
from .shapes import Shape, area_shapes, labelled_shapes, placed, touching
from .writing import card, write_split

logger = logging.getLogger(__name__)

_SUFFIXES = (".tif", ".tiff", ".vrt")
_FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def make_windows(
    scenes: str | Path,
    labels: str | Path,
    output: str | Path,
    settings: WindowSettings,
    *,
    area: str | Path | None = None,
    strict: bool = False,
) -> Windows:
    """Cuts scenes into a data set with masks or boxes, splits by place, and a card.

    Args:
        scenes: GeoTIFF, or a folder of them.
        labels: Vector file; later features lie over earlier ones.
        output: Folder to write.
        settings: How the scenes are cut.
        area: Vector file of what was labelled: outside nothing is learned. None takes the windows
            that hold labels.
        strict: Stop at a scene or feature that cannot be used, instead of leaving it out and
            counting it.

    Raises:
        UserError: Files that cannot be used, or labels that do not reach the scenes; with `strict`
            anything that would be left out.
    """
    if settings.size < 16 or settings.block < 1:
        raise UserError("--size is 16 or more and --block 1 or more: change them.")
    with new_folder(output) as folder:
        features, crs = read_features(str(labels))
        shapes, classes, result = labelled_shapes(features, settings, str(labels), str(output))
        areas = read_features(str(area)) if area is not None else None
        if strict and result.left_out:
            reason, count = next(iter(result.left_out.items()))
            raise UserError(f"{labels} has {count} {reason}: repair it, or leave strict off.")
        files = _usable(_files(Path(scenes)), Path(scenes), strict, settings, result)
        windows = [
            Window(number, file, row, column)
            for number, file in enumerate(files)
            for row, column in _labelled(file, shapes, crs, areas, settings)
        ]
        if not windows:
            raise UserError(
                f"No feature of {labels} lies in a whole window of {scenes}: check the coordinate "
                f"systems, or take a smaller --size than {settings.size}."
            )
        splits = split_by_place(windows, settings)
        for split in SPLITS:
            rows = window_rows(splits[split], shapes, crs, areas, classes, settings, result, split)
            write_split(folder, split, rows, classes, settings, result)
        if not result.rows:
            raise UserError(f"No window of {scenes} could be used: they hold no data.")
        write_text(folder / "README.md", card(result, scenes, labels, settings))
    return result


def _files(scenes: Path) -> list[Path]:
    files = files_below(scenes, _SUFFIXES) if scenes.is_dir() else [scenes]
    if not files:
        raise UserError(f"{scenes} holds no GeoTIFFs: give a scene or a folder of them.")
    return files


def _usable(
    files: Sequence[Path], scenes: Path, strict: bool, settings: WindowSettings, result: Windows
) -> list[Path]:
    """Scenes that can be opened; others of a folder are counted by their name and reason.

    What becomes of stored values is told with the first scene of a kind.

    Raises:
        UserError: With `strict` at the first one, else where none can be opened.
    """
    usable: list[Path] = []
    told: set[str] = set()
    for file in files:
        try:
            with open_scene(file) as raster:
                bands = [n for n in kept_bands(raster, settings) if n <= raster.count]
                notes = stated_values(raster, bands, str(file)).notes
            usable.append(file)
        except UserError as error:
            if strict or not scenes.is_dir() or (file == files[-1] and not usable):
                raise
            result.left_out[f"scene: {error}".rstrip(".")] += 1
            continue
        for note in notes:
            if (kind := note.partition(": ")[2]) not in told:
                told.add(kind)
                logger.warning(note)
    return usable


def _labelled(
    file: Path, shapes: Sequence[Shape], crs: Any, areas: Any, settings: WindowSettings
) -> Iterator[tuple[int, int]]:
    """Upper left pixels of a scene's whole windows that a label, or the area, touches."""
    with open_scene(file) as raster:
        if settings.bands and not all(1 <= band <= raster.count for band in settings.bands):
            raise UserError(
                f"--bands {list(settings.bands)} are not all in {file}, which has {raster.count}."
            )
        _, boxes = placed(shapes, crs, raster, settings)
        if areas is not None:
            _, boxes = placed(area_shapes(areas), areas[1], raster, settings)
        size = settings.size
        for row in range(0, raster.height - size + 1, size):
            for column in range(0, raster.width - size + 1, size):
                if touching(boxes, row, column, size).any():
                    yield row, column


def split_by_place(windows: Sequence[Window], settings: WindowSettings) -> dict[str, list[Window]]:
    """Blocks of windows in an order of the seed, shared out until each split has its part.

    Raises:
        UserError: Fewer blocks than splits.
    """
    side = settings.size * settings.block
    blocks: dict[tuple[str, int, int], list[Window]] = {}
    for window in windows:
        key = (window.file.name, window.row // side, window.column // side)
        blocks.setdefault(key, []).append(window)
    if len(blocks) < len(_FRACTIONS):
        raise UserError(
            f"The labels lie in {len(blocks)} blocks of {side} pixels, and three splits need three "
            "at least: take a smaller --block or --size."
        )
    order = sorted(
        blocks, key=lambda key: hashlib.sha256(f"{settings.seed} {key}".encode()).digest()
    )
    splits: dict[str, list[Window]] = {split: [] for split in SPLITS}
    for place, key in enumerate(order):
        if place < len(SPLITS):
            split = SPLITS[place]  # each has one
        else:
            split = max(SPLITS, key=lambda s: _FRACTIONS[s] * len(windows) - len(splits[s]))
        splits[split] += blocks[key]
    for chosen in splits.values():
        chosen.sort(key=lambda window: (window.scene, window.row, window.column))
    return splits
