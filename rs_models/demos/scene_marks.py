"""What a user marks on a scene: points and areas of classes, drawn or from a file of polygons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..data.vectors import GEOJSON, read_features
from ..data.windows.settings import WindowSettings
from ..data.windows.shapes import labelled_shapes, placed
from ..errors import UserError
from .dense_scene import DenseScene
from .pile_desk import checked_name
from .uploads import MAX_BYTES, no_upload

FIELD = "class"
"""Property of a file's polygons that names their class; our own GeoJSON has it too."""
FILES = (*GEOJSON, ".gpkg", ".fgb")
"""Endings of the files with polygons that the page takes."""
MAX_CORNERS = 20_000
"""Corners that the marks of a scene may have."""
_OUTSIDE = "That point lies outside of the scene: click inside."


@dataclass(frozen=True)
class Mark:
    """A point or an area of a class.

    Attributes:
        name: Its class.
        rings: Corners (x, y) of the outline, then of each hole, from 0 to 1 over the scene; what a
            file has may reach beyond. A point is one outline of one corner.
    """

    name: str
    rings: tuple[tuple[tuple[float, float], ...], ...]

    @property
    def is_area(self) -> bool:
        """Whether it has an inside."""
        return len(self.rings[0]) > 1

    @property
    def corners(self) -> int:
        """Number of its corners."""
        return sum(map(len, self.rings))


def point(x: Any, y: Any, name: str) -> Mark:
    """A point of a class.

    Raises:
        UserError: A place outside of the scene, or none.
    """
    return Mark(name, ((place(x, y),),))


def area(corners: Any, name: str) -> Mark:
    """An area of a class, drawn by its corners.

    Args:
        corners: [x, y] of each, from 0 to 1.
        name: Its class.

    Raises:
        UserError: Corners that are none or lie outside, fewer than three, or too many.
    """
    if not isinstance(corners, list) or len(corners) < 3:
        raise UserError("An area has three corners or more: click them one after the other.")
    if len(corners) > MAX_CORNERS:
        raise UserError(f"An area has {MAX_CORNERS:,} corners at most: draw it with fewer.")
    if not all(isinstance(corner, list) and len(corner) == 2 for corner in corners):
        raise UserError(_OUTSIDE)
    return Mark(name, (tuple(place(x, y) for x, y in corners),))


def place(x: Any, y: Any) -> tuple[float, float]:
    """A place of a scene.

    Raises:
        UserError: It is none, or lies outside.
    """
    if not all(isinstance(v, int | float) and 0 <= v <= 1 for v in (x, y)):
        raise UserError(_OUTSIDE)
    return float(x), float(y)


def from_file(path: str, scene: DenseScene) -> list[Mark]:
    """The polygons and points of a vector file that lie on a scene, as `predict --head` takes them.

    Args:
        path: GeoJSON, GeoPackage or FlatGeobuf; the property `class` names the class.
        scene: With a place.

    Raises:
        UserError: A scene without a place, no such file, or one without classes on the scene.
    """
    file = Path(path)
    if "crs" not in scene.place:
        raise UserError(
            "This scene has no place on the ground, so a file's polygons cannot be laid on it: "
            "draw them, or choose a GeoTIFF with a coordinate system."
        )
    if not file.is_file():
        raise UserError(no_upload(path))
    if file.suffix.lower() not in FILES:
        raise UserError(f"{file.name} should end in one of {', '.join(FILES)}.")
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"{file.name} has more than {MAX_BYTES // 2**20} MB: give fewer polygons.")
    try:
        features, crs = read_features(path)
    except UserError as error:  # it names the server's folder
        raise UserError(str(error).replace(path, file.name)) from None
    if features and not any(FIELD in stated for _, stated in features):
        names = sorted({key for _, stated in features for key in stated})
        raise UserError(
            f"{file.name} does not say the class of its polygons in a property '{FIELD}' (it has "
            f"{', '.join(names)[:200] or 'none'}): name the property so."
        )
    settings = WindowSettings(field=FIELD, point_size=1)
    shapes, classes, _ = labelled_shapes(features, settings, file.name, "")
    raster = SimpleNamespace(**scene.place, name=scene.name)
    in_pixels, bounds = placed(shapes, crs, raster, settings)
    height, width = scene.size
    left, top, right, bottom = bounds.T
    inside = (left < width) & (right > 0) & (top < height) & (bottom > 0)
    marks = [
        mark
        for number in np.flatnonzero(inside).tolist()
        for mark in _marks(
            checked_name(classes[shapes[number].label]),
            shapes[number].geometry["type"] == "Point",
            in_pixels[number].geometry,
            scene.size,
        )
    ]
    if not marks:
        raise UserError(
            f"Nothing in {file.name} lies on this scene: check its coordinate system, and that it "
            "was drawn on this scene."
        )
    return marks


def _marks(
    name: str, is_point: bool, geometry: dict[str, Any], size: Sequence[int]
) -> Iterator[Mark]:
    """A geometry in a file's pixels as marks; a point comes as the square of its pixel."""
    height, width = size
    parts = geometry["coordinates"]
    for rings in parts if geometry["type"] == "MultiPolygon" else [parts]:
        scaled = tuple(tuple((x / width, y / height) for x, y in ring) for ring in rings if ring)
        if not scaled or not all(math.isfinite(v) for ring in scaled for xy in ring for v in xy):
            continue
        if is_point:
            (x0, y0), (x1, y1) = scaled[0][0], scaled[0][2]
            scaled = ((((x0 + x1) / 2, (y0 + y1) / 2),),)
        yield Mark(name, scaled)


def cells(marks: Sequence[Mark], shape: Sequence[int]) -> np.ndarray:
    """The mark of every cell of a grid, (h, w) int32, -1 for none; later marks lie over earlier.

    A point has its cell and those around it, an area those whose centre lies in it, or where there
    is none those that it touches.

    Args:
        marks: Points and areas.
        shape: Rows and columns of the grid.
    """
    from rasterio.features import rasterize

    height, width = shape
    grid = np.full((height, width), -1, np.int32)
    for number, mark in enumerate(marks):
        if not mark.is_area:
            x, y = mark.rings[0][0]
            row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
            grid[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = number
            continue
        rings = [[(x * width, y * height) for x, y in (*ring, ring[0])] for ring in mark.rings]
        outline = [({"type": "Polygon", "coordinates": rings}, 1)]
        for all_touched in (False, True):
            inside = rasterize(
                outline, out_shape=(height, width), all_touched=all_touched, dtype="uint8"
            ).astype(bool)
            if inside.any():
                break
        grid[inside] = number
    return grid
