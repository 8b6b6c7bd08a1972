"""Labels over scenes: features with a class, and where they lie in a scene's pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from ..names import IGNORE, natural
from ..vectors import class_key
from .settings import Windows, WindowSettings


@dataclass(frozen=True)
class Shape:
    """A labelled geometry.

    Attributes:
        geometry: GeoJSON geometry of one part.
        label: Class number.
    """

    geometry: Any
    label: int


def labelled_shapes(
    features: Sequence[tuple[Any, dict[str, Any]]],
    settings: WindowSettings,
    name: str,
    output: str,
) -> tuple[list[Shape], list[str], Windows]:
    """Geometries with class numbers; what has no class or no place is counted."""
    result = Windows(output)
    properties = sorted({key for _, stated in features for key in stated})
    named: list[tuple[Any, str]] = []
    for geometry, stated in features:
        value = stated.get(settings.field)
        if value is None or class_key(value) == "":
            result.left_out["features without a class"] += 1
            continue
        parts = list(_parts(geometry))
        if not parts:
            result.left_out["features without a geometry"] += 1
        for part in parts:
            if part["type"] == "Point" and not settings.point_size:
                raise UserError(
                    f"{name} holds points: say with --point-size how many pixels each stands for."
                )
            if part["type"] in ("LineString", "MultiLineString"):
                result.left_out["lines"] += 1
                continue
            named.append((part, class_key(value)))
    if not named:
        raise UserError(
            f"{name} has no features with a class in {settings.field!r} (properties: "
            f"{', '.join(properties) or 'none'}): name the property with --classes."
        )
    classes = sorted({label for _, label in named}, key=natural)
    if settings.background is not None and settings.task == "segmentation":
        classes = [settings.background, *(c for c in classes if c != settings.background)]
    if len(classes) > IGNORE:
        raise UserError(f"{name} has {len(classes)} classes in {settings.field!r}: at most 255.")
    result.classes = classes
    return [Shape(part, classes.index(label)) for part, label in named], classes, result


def _parts(geometry: Any) -> Iterator[dict[str, Any]]:
    """Simple geometries of a geometry."""
    if not isinstance(geometry, dict):
        return
    kind = geometry.get("type")
    inner = geometry.get("geometries" if kind == "GeometryCollection" else "coordinates")
    if not _holds_numbers(inner) and kind != "GeometryCollection":
        return  # empty, as after a cut
    if kind == "GeometryCollection":
        for one in inner if isinstance(inner, list | tuple) else ():
            yield from _parts(one)
    elif kind == "MultiPoint":
        for point in inner or ():
            yield {"type": "Point", "coordinates": point}
    else:
        yield {"type": str(kind), "coordinates": inner}


def _holds_numbers(coordinates: Any) -> bool:
    if isinstance(coordinates, list | tuple):
        return any(isinstance(c, int | float) or _holds_numbers(c) for c in coordinates)
    return False


def placed(shapes: Sequence[Shape], crs: Any, raster: Any, settings: WindowSettings) -> Any:
    """Shapes in the pixels of a scene, and their bounds (N, 4): left, top, right, bottom."""
    from rasterio.features import bounds
    from rasterio.warp import transform_geom

    inverse = ~raster.transform
    in_pixels: list[Shape] = []
    for shape in shapes:
        try:
            geometry = transform_geom(crs, raster.crs, shape.geometry)
        except Exception as error:  # GDAL raises many types where a point has no place
            raise UserError(f"A feature cannot be placed in {raster.name} ({error}).") from error
        pixels = _mapped(geometry["coordinates"], inverse)
        kind = geometry["type"]
        if kind == "Point":
            half = (settings.point_size or 1) / 2
            x, y = pixels
            ring = [(x - half, y - half), (x + half, y - half), (x + half, y + half)]
            ring += [(x - half, y + half), (x - half, y - half)]
            kind, pixels = "Polygon", [ring]
        in_pixels.append(Shape({"type": kind, "coordinates": pixels}, shape.label))
    try:
        boxes = np.array([bounds(shape.geometry) for shape in in_pixels], float).reshape(-1, 4)
    except (IndexError, TypeError, ValueError) as error:  # a ring without a point among others
        raise UserError(f"A feature cannot be placed in {raster.name} ({error}).") from error
    return in_pixels, boxes


def _mapped(coordinates: Any, inverse: Any) -> Any:
    if coordinates and isinstance(coordinates[0], int | float):
        return tuple(inverse @ (coordinates[0], coordinates[1]))
    return [_mapped(part, inverse) for part in coordinates]


def touching(boxes: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """Which of the bounds (N, 4) touch a window, (N,) bool."""
    left, top, right, bottom = boxes.T
    return (left < column + size) & (right > column) & (top < row + size) & (bottom > row)


def area_shapes(areas: Any) -> list[Shape]:
    """The parts of the features that say what was labelled."""
    return [Shape(part, 0) for geometry, _ in areas[0] for part in _parts(geometry)]
