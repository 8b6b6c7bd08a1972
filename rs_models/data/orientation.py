"""Images that EXIF turns for display, and masks and boxes that turn with them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

# EXIF's numbers -> names of Pillow's transposes, as `ImageOps.exif_transpose` has them.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_HEAD = 65_536  # EXIF stands at the beginning of a file


def orientations(rows: Any) -> dict[int, int]:
    """Row -> EXIF's number, of the images that are turned for display.

    Args:
        rows: `datasets.Dataset` whose `image` is an `Image` column; others are never turned.
    """
    from datasets import Image

    from .columns import orientation

    if not isinstance(rows.features.get("image"), Image):
        return {}
    turned: dict[int, int] = {}
    for row, value in enumerate(encoded(rows, "image")):
        if value is None or not _may_turn(value):
            continue
        number = orientation(value)
        if number in _TURNS:
            turned[row] = number
    return turned


def encoded(rows: Any, column: str) -> Any:
    """Values of an image column as they are stored, {"bytes", "path"}, one after the other."""
    from datasets import Image

    undecoded = rows.select_columns([column])
    if isinstance(rows.features[column], Image):
        undecoded = undecoded.cast_column(column, Image(decode=False))
    for row in undecoded.with_format(None):
        yield row[column]


def _may_turn(value: dict) -> bool:
    if value["bytes"] is None:
        try:
            with open(value["path"], "rb") as file:
                head = file.read(_HEAD)
        except OSError:
            return False
    else:
        head = value["bytes"][:_HEAD]
    return b"Exif" in head or b"eXIf" in head or head[:2] in (b"II", b"MM")


def turned_mask(value: dict, number: int, displayed: tuple[int, int] | None) -> dict:
    """A stored mask turned as its image is; one of the displayed size alone is not turned again.

    Args:
        value: {"bytes", "path"} of the mask.
        number: EXIF's orientation of the image.
        displayed: (width, height) of the turned image; None, where the image cannot be read, leaves
            the mask as it is.
    """
    import PIL.Image

    from .columns import open_image

    if displayed is None:
        return value
    mask = open_image(value)
    stored = displayed[::-1] if number >= 5 else displayed
    if mask.size != stored:
        return value  # drawn on the image as it is displayed, or of another size altogether
    buffer = io.BytesIO()
    turn = getattr(PIL.Image.Transpose, _TURNS[number])
    mask.transpose(turn).save(buffer, format="png")
    return {"bytes": buffer.getvalue(), "path": value["path"]}


def turned_box(
    box: Sequence[float], number: int, stored: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box of corners turned as its image is.

    Args:
        box: x0, y0, x1, y1 in the stored image.
        number: EXIF's, of the image.
        stored: (width, height) of the stored image.
    """
    x0, y0, x1, y1 = box
    w, h = stored
    return {
        2: (w - x1, y0, w - x0, y1),
        3: (w - x1, h - y1, w - x0, h - y0),
        4: (x0, h - y1, x1, h - y0),
        5: (y0, x0, y1, x1),
        6: (h - y1, x0, h - y0, x1),
        7: (h - y1, w - x1, h - y0, w - x0),
        8: (y0, w - x1, y1, w - x0),
    }[number]
