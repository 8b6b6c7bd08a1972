"""Windows as rows: pixels, masks or boxes, and where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ..names import IGNORE
from ..parquet import png
from ..values import stated_values
from .settings import Windows, WindowSettings
from .shapes import Shape, area_shapes, placed, touching

_SEEN = 0.3  # share of a box that lies in a window, from which on it belongs to it


@dataclass(frozen=True)
class Window:
    """A window of a scene.

    Attributes:
        scene: Number of the scene, in the order in which scenes are read.
        file: The scene's file.
        row: Row of the upper left pixel.
        column: Column of the upper left pixel.
    """

    scene: int
    file: Path
    row: int
    column: int


def open_scene(file: Path) -> Any:
    """An open scene that has a place and pixels of a kind that models take.

    Raises:
        UserError: It cannot be read, has no coordinate system, or other pixels.
    """
    from ...rasters import open_raster

    raster = open_raster(file, vrt=True, drivers=("GTiff",), max_bytes=None)
    if raster.crs is None:
        raise UserError(f"{file} does not say where it lies (no CRS): give it one.")
    if raster.dtypes[0] not in ("uint8", "uint16"):
        raise UserError(
            f"{file} has {raster.dtypes[0]} pixels: convert it to uint8 (0 to 255), or to uint16 "
            "reflectance x 10000."
        )
    return raster


def kept_bands(raster: Any, settings: WindowSettings) -> list[int]:
    """Numbers of the bands that windows have."""
    return list(settings.bands or range(1, min(3, raster.count) + 1))


def window_rows(
    windows: Sequence[Window],
    shapes: Sequence[Shape],
    crs: Any,
    areas: Any,
    classes: Sequence[str],
    settings: WindowSettings,
    result: Windows,
    split: str,
) -> Iterator[dict[str, Any]]:
    """The rows of a split, counted."""
    counts = result.counts.setdefault(split, Counter())
    by_file: dict[Path, list[Window]] = {}
    for window in windows:
        by_file.setdefault(window.file, []).append(window)
    for file, own in by_file.items():
        with open_scene(file) as raster:
            lying = placed(shapes, crs, raster, settings)
            inside = (
                placed(area_shapes(areas), areas[1], raster, settings) if areas else (None, None)
            )
            for window in own:
                row = _row(raster, window, lying, inside, classes, settings, counts)
                if row is None:
                    result.left_out["windows without data or labels"] += 1
                else:
                    yield row


def _row(
    raster: Any,
    window: Window,
    lying: tuple[Sequence[Shape], np.ndarray],
    inside: tuple[Any, Any],
    classes: Sequence[str],
    settings: WindowSettings,
    counts: Counter[str],
) -> dict[str, Any] | None:
    from rasterio.errors import RasterioError
    from rasterio.windows import Window as Cut

    size = settings.size
    cut = Cut(window.column, window.row, size, size)
    bands = kept_bands(raster, settings)
    values = stated_values(raster, bands, str(window.file))
    try:
        pixels = values.stored(raster.read(bands, window=cut))
        valid = raster.read_masks(bands, window=cut).any(axis=0)
    except RasterioError as error:
        raise UserError(
            f"{window.file} is damaged: its rows from {window.row} on cannot be read; get it again."
        ) from error
    pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if not valid.any():
        return None
    near = np.flatnonzero(touching(lying[1], window.row, window.column, size)).tolist()
    shapes = [lying[0][number] for number in near]
    labelled = _burnt(inside[0], window, size, 0, 1) == 1 if inside[0] is not None else None
    row: dict[str, Any] = {"image": _image(pixels), **_place(raster, window, size)}
    if settings.task == "detection":
        objects = _boxes(lying[1][near], shapes, window, size)
        if not objects["bbox"] and (labelled is None or not labelled.all()):
            return None
        counts.update(classes[category] for category in objects["category"])
        return {**row, "objects": objects}
    fill = IGNORE if settings.background is None else 0
    mask = _burnt(shapes, window, size, fill, None)
    if labelled is not None:
        mask[~labelled] = IGNORE
    mask[~valid] = IGNORE
    if (mask == IGNORE).all():
        return None
    numbers, amounts = np.unique(mask[mask != IGNORE], return_counts=True)
    counts.update({classes[n]: int(c) for n, c in zip(numbers, amounts, strict=True)})
    return {**row, "mask": png(mask)}


def _burnt(
    shapes: Sequence[Shape], window: Window, size: int, fill: int, value: int | None
) -> np.ndarray:
    """Class numbers (size, size) of the shapes over a window, later ones on top."""
    from affine import Affine
    from rasterio.features import rasterize

    if not shapes:
        return np.full((size, size), fill, np.uint8)
    return rasterize(
        [(shape.geometry, shape.label if value is None else value) for shape in shapes],
        out_shape=(size, size),
        transform=Affine.translation(window.column, window.row),
        fill=fill,
        dtype="uint8",
    )


def _boxes(
    bounds: np.ndarray, shapes: Sequence[Shape], window: Window, size: int
) -> dict[str, list[Any]]:
    """Hulls of the shapes that lie in a window by enough of their area."""
    objects: dict[str, list[Any]] = {"bbox": [], "category": []}
    for (left, top, right, bottom), shape in zip(bounds, shapes, strict=True):
        x0, y0 = max(left - window.column, 0.0), max(top - window.row, 0.0)
        x1, y1 = min(right - window.column, size), min(bottom - window.row, size)
        whole = (right - left) * (bottom - top)
        if whole > 0 and (x1 - x0) * (y1 - y0) >= _SEEN * whole:
            objects["bbox"].append([float(x0), float(y0), float(x1 - x0), float(y1 - y0)])
            objects["category"].append(shape.label)
    return objects


def _place(raster: Any, window: Window, size: int) -> dict[str, Any]:
    from rasterio.warp import transform

    x, y = raster.transform @ (window.column + size / 2, window.row + size / 2)
    longitude, latitude = transform(raster.crs, "EPSG:4326", [x], [y])
    return {
        "file": window.file.name,
        "x": float(x),
        "y": float(y),
        "crs": raster.crs.to_string(),
        "longitude": float(longitude[0]),
        "latitude": float(latitude[0]),
    }


def _image(pixels: np.ndarray) -> Any:
    picture = pixels.dtype == np.uint8 and pixels.shape[2] == 3
    return png(pixels) if picture else pixels
