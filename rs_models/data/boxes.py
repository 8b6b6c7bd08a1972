"""Boxes as people store them -> {bbox [x, y, w, h] in pixels, category}."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..errors import UserError
from .names import natural

logger = logging.getLogger(__name__)

BoxFormat = Literal["xywh", "xyxy"]
_BOXES = (
    *("bbox", "bboxes", "boxes", "box"),
    *("segmentation", "polygon", "polygons", "poly", "points", "obb"),  # their hull
)
_CATEGORIES = (
    *("category", "categories", "category_id", "label", "labels", "class", "classes", "class_id"),
    *("class_labels", "name", "category_name"),
)
_CROWD = ("iscrowd", "is_crowd", "crowd")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"))
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
_TOLERANCE = 1.0  # pixels beyond the border that annotation tools draw


def standard_objects(
    rows: Any, name: str, *, others: Sequence[Any] = (), box_format: BoxFormat = "xywh"
) -> Any:
    """Rows whose `objects` are {bbox [x, y, w, h], category} with named categories.

    Objects may be a dictionary of lists or a list of dictionaries, with other key names, boxes of
    polygons (their hull) or of named corners, categories as text or numbers; those marked as crowds
    are left out. Boxes follow the orientation of their image and end at its border.

    Args:
        rows: `datasets.Dataset` with an `objects` column.
        name: The data's name, for messages.
        others: The `objects` columns of the other splits, as lists, so that a category has one
            number everywhere.
        box_format: What four numbers of a box are: corner and sides, or two corners.

    Raises:
        UserError: Objects that cannot be right, by their row.
    """
    from datasets import ClassLabel, Features, List, Value
    from datasets.fingerprint import update_fingerprint

    names = _class_names(rows.features["objects"])
    stored = rows.with_format(None)["objects"][:]
    parsed = [_parsed(value, row, name) for row, value in enumerate(stored)]
    if names is None:
        elsewhere = [_parsed(value, 0, name) for other in others for value in other]
        names = _names([category for _, found in (*parsed, *elsewhere) for category in found], name)
        number = {category: place for place, category in enumerate(_sorted(parsed, elsewhere))}
        parsed = [(boxes, [number[category] for category in found]) for boxes, found in parsed]
    else:
        _check_numbers(parsed, names, name)
    boxes = _checked(parsed, image_sizes(rows), _turned(rows), name, box_format)
    if names and not any(found for _, found in parsed):
        logger.warning("No image of %s has a box.", name)
    objects = [
        {"bbox": own, "category": found} for own, (_, found) in zip(boxes, parsed, strict=True)
    ]
    feature: Any = {
        "bbox": List(List(Value("float32"), length=4)),
        "category": List(ClassLabel(names=names or ["object"])),
    }
    feature = Features({"objects": feature})["objects"]
    if objects == stored and rows.features["objects"] == feature:
        return rows
    order = rows.column_names
    fingerprint = update_fingerprint(
        rows._fingerprint, "standard_objects", {"names": names, "format": box_format}
    )
    rows = rows.remove_columns("objects").add_column(
        "objects", objects, new_fingerprint=fingerprint, feature=feature
    )
    return rows.select_columns(order)


def image_sizes(rows: Any) -> list[tuple[int, int] | None]:
    """(width, height) of each image as it is displayed, from its header; None where none is."""
    from datasets import Image

    from .columns import BandArray, CorruptImageError, open_image, orientation
    from .orientation import encoded

    feature = rows.features["image"]
    if isinstance(feature, BandArray):
        height, width, last = feature.shape
        size = (width, height) if last == len(feature.bands) else (last, width)
        return [size] * len(rows)
    if not isinstance(feature, Image):
        return [_raster_size(value) for value in encoded_tiles(rows)]
    sizes: list[tuple[int, int] | None] = []
    for value in encoded(rows, "image"):
        try:
            image = open_image(value)
            turned = orientation(image) >= 5
            sizes.append(image.size[::-1] if turned else image.size)
        except (OSError, SyntaxError, ValueError, TypeError, CorruptImageError):
            sizes.append(None)  # told where the image is read
    return sizes


def encoded_tiles(rows: Any) -> Any:
    """Stored values of a column of raster tiles."""
    from .columns import GeoTiff

    feature = rows.features["image"]
    if isinstance(feature, GeoTiff):
        rows = rows.cast_column("image", GeoTiff(feature.bands, decode=False))
    for row in rows.select_columns(["image"]).with_format(None):
        yield row["image"]


def _raster_size(value: Any) -> tuple[int, int] | None:
    from .columns import open_tile

    try:
        source = value["path"] if value["bytes"] is None else value["bytes"]
        with open_tile(source) as raster:
            return raster.width, raster.height
    except (UserError, TypeError, KeyError):
        return None


def _turned(rows: Any) -> dict[int, int]:
    from .orientation import orientations

    return orientations(rows)


def _class_names(feature: Any) -> list[str] | None:
    """Names that the categories carry; None where they are text or bare numbers."""
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, Mapping):
        return None
    key = next((key for key in _CATEGORIES if key in inner), None)
    category = inner.get(key) if key else None
    while category is not None and not hasattr(category, "names"):
        category = getattr(category, "feature", None)
    return list(category.names) if category is not None else None


def _parsed(value: Any, row: int, name: str) -> tuple[list[Any], list[Any]]:
    """Boxes and categories of a row's objects as they are stored, crowds left out.

    Raises:
        UserError: No boxes or categories, or not as many of the one as of the other.
    """
    if value is None:
        return [], []
    columns: dict[str, list[Any]] = {}
    if isinstance(value, Mapping):
        columns = {key: list(items or []) for key, items in value.items() if _is_list(items)}
    elif isinstance(value, list):
        if not value:
            return [], []
        for key in value[0]:
            columns[key] = [item.get(key) for item in value]
    boxes_key = next((key for key in _BOXES if key in columns), None)
    class_key = next((key for key in _CATEGORIES if key in columns), None)
    boxes = columns.get(boxes_key or "") if boxes_key else _named_corners(columns)
    if boxes is None or class_key is None:
        raise UserError(
            f"The objects in row {row} of {name} have the keys {', '.join(columns) or 'none'}: "
            "give them bbox (x, y, width, height in pixels) and category."
        )
    categories = columns[class_key]
    if len(boxes) != len(categories):
        raise UserError(
            f"Row {row} of {name} has {len(boxes)} boxes and {len(categories)} categories: give "
            "each box one."
        )
    crowd = next((columns[key] for key in _CROWD if key in columns), [False] * len(boxes))
    kept = [number for number, is_crowd in enumerate(crowd) if not is_crowd]
    return [boxes[number] for number in kept], [categories[number] for number in kept]


def _is_list(items: Any) -> bool:
    return items is None or isinstance(items, list | tuple) or hasattr(items, "tolist")


def _named_corners(columns: Mapping[str, list[Any]]) -> list[Any] | None:
    """Boxes from columns like xmin, ymin, xmax, ymax, as [x, y, w, h] dictionaries' values."""
    for keys in _CORNERS:
        if all(key in columns for key in keys):
            return [
                {"corners": corners}
                for corners in zip(*(columns[key] for key in keys), strict=True)
            ]
    for keys in _SIDES:
        if all(key in columns for key in keys):
            sides = zip(*(columns[key] for key in keys), strict=True)
            return [{"corners": (x, y, x + w, y + h)} for x, y, w, h in sides]
    return None


def _sorted(*parts: Sequence[tuple[list[Any], list[Any]]]) -> list[Any]:
    values = {category for part in parts for _, found in part for category in found}
    return sorted(values, key=lambda value: natural(str(value)))


def _names(categories: Sequence[Any], name: str) -> list[str]:
    if any(category is None for category in categories):
        raise UserError(f"A box of {name} has no category: give each one.")
    # -1 is how sets without class names say "none"; a class of that name would be learned.
    if below := [value for value in categories if isinstance(value, int | float) and value < 0]:
        raise UserError(
            f"A box of {name} has the category {below[0]}, and classes are numbered from 0: give "
            "it one, or leave the box out."
        )
    return [str(value) for value in sorted(set(categories), key=lambda v: natural(str(v)))]


def _check_numbers(parsed: Sequence[Any], names: Sequence[str], name: str) -> None:
    for row, (_, categories) in enumerate(parsed):
        for category in categories:
            if category is None or not 0 <= category < len(names):
                raise UserError(
                    f"A box in row {row} of {name} has the category {category}, and there are "
                    f"{len(names)} classes: repair it."
                )


def _checked(
    parsed: Sequence[tuple[list[Any], list[Any]]],
    sizes: Sequence[tuple[int, int] | None],
    turned: Mapping[int, int],
    name: str,
    box_format: BoxFormat,
) -> list[list[list[float]]]:
    """Boxes [x, y, w, h] inside of their images.

    Raises:
        UserError: Boxes that cannot be right, with the first one's row.
    """
    wrong: list[str] = []
    cut = outside = fractions = number = 0
    every: list[list[list[float]]] = []
    as_corners = True
    for row, (boxes, _) in enumerate(parsed):
        own: list[list[float]] = []
        size = sizes[row]
        for box in boxes:
            number += 1
            corners = _corners(box, box_format, row, name)
            if size is not None and row in turned:
                corners = _displayed(corners, size, turned[row])
            reason = _amiss(corners, size)
            if reason == "lies outside of its image":
                outside += 1
            if reason:
                wrong.append(f"row {row}, {_told(box)}, {reason}")
                as_corners = as_corners and _fits_as_corners(box, size)
                continue
            as_corners = as_corners and _fits_as_corners(box, size)
            fractions += max(corners) <= 1
            if size is not None:
                corners, was_cut = _in_image(corners, size)
                cut += was_cut
            x0, y0, x1, y1 = corners
            own.append([float(x0), float(y0), float(x1 - x0), float(y1 - y0)])
        every.append(own)
    if number and fractions == number:
        raise UserError(
            f"All boxes of {name} lie between 0 and 1: give them in pixels, not as fractions of "
            "the image."
        )
    if box_format == "xywh" and as_corners and (cut or outside):
        raise UserError(
            f"{cut + outside} of {number} boxes of {name} leave their images as x, y, width, "
            "height, and all fit as two corners x0, y0, x1, y1: say so with box_format=xyxy."
        )
    if wrong:
        raise UserError(
            f"{len(wrong)} of {number} boxes of {name} cannot be right (first: {wrong[0]}): repair "
            "or remove them."
        )
    if cut:
        logger.warning(
            "%d of %d boxes of %s reach beyond their images: cut there.", cut, number, name
        )
    return every


def _corners(box: Any, box_format: BoxFormat, row: int, name: str) -> tuple[float, ...]:
    """x0, y0, x1, y1 of a box, or of the hull of a polygon."""
    if isinstance(box, Mapping):
        if "corners" in box:
            return tuple(float(part) for part in box["corners"])
        named = _named_corners({key: [value] for key, value in box.items()})
        if named:
            return tuple(float(part) for part in named[0]["corners"])
    else:
        points = list(box)
        while points and _is_list(points[0]) and points[0] is not None:
            points = [part for point in points for part in point]
        if len(points) == 4:
            a, b, c, d = (float("nan") if part is None else float(part) for part in points)
            return (a, b, c, d) if box_format == "xyxy" else (a, b, a + c, b + d)
        if len(points) >= 6 and len(points) % 2 == 0:
            xs, ys = [float(x) for x in points[::2]], [float(y) for y in points[1::2]]
            return min(xs), min(ys), max(xs), max(ys)
    raise UserError(
        f"A box in row {row} of {name} is {_told(box)}: give four numbers, or the corners of a "
        "polygon (x1, y1, x2, y2, ...)."
    )


def _amiss(corners: Sequence[float], size: tuple[int, int] | None) -> str | None:
    if not all(math.isfinite(part) for part in corners):
        return "is not finite"
    x0, y0, x1, y1 = corners
    if x1 <= x0 or y1 <= y0:
        return "has no area"
    if size is not None and (x0 >= size[0] or y0 >= size[1] or x1 <= 0 or y1 <= 0):
        return "lies outside of its image"
    return None


def _fits_as_corners(box: Any, size: tuple[int, int] | None) -> bool:
    if isinstance(box, Mapping) or size is None or len(box) != 4 or _is_list(box[0]):
        return False
    x0, y0, x1, y1 = box
    if None in (x0, y0, x1, y1):
        return False
    inside = x1 <= size[0] + _TOLERANCE and y1 <= size[1] + _TOLERANCE
    return bool(0 <= x0 < x1 and 0 <= y0 < y1 and inside)


def _displayed(corners: Sequence[float], size: tuple[int, int], number: int) -> tuple[float, ...]:
    """A box in a turned image: boxes are the stored one's unless they fit the displayed one alone.

    Args:
        corners: As they are stored.
        size: (width, height) of the displayed image.
        number: EXIF's.
    """
    from .orientation import turned_box

    stored = size[::-1] if number >= 5 else size
    fits_stored, fits_shown = (
        corners[2] <= width + _TOLERANCE and corners[3] <= height + _TOLERANCE
        for width, height in (stored, size)
    )
    if fits_shown and not fits_stored:
        return tuple(corners)
    return turned_box(corners, number, stored)


def _in_image(corners: Sequence[float], size: tuple[int, int]) -> tuple[tuple[float, ...], bool]:
    """A box cut at its image's border, and whether more than a pixel was cut off."""
    x0, y0, x1, y1 = corners
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
    moved = max(abs(a - b) for a, b in zip(corners, inside, strict=True))
    return inside, moved > _TOLERANCE


def _told(box: Any) -> str:
    if isinstance(box, Mapping):
        return str(dict(box))
    parts = [f"{part:g}" if isinstance(part, int | float) else str(part) for part in box]
    return f"[{', '.join(parts)}]"
