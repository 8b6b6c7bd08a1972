"""Boxes from the formats of detection sets: VOC, LEVIR, DOTA."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import ElementTree

from .layouts import Layout


def read_boxes(layout: Layout, path: Path, size: tuple[int, int]) -> dict[str, list]:
    """The objects of an image.

    Args:
        layout: The data set's layout.
        path: Annotation file.
        size: (width, height) of the image.

    Returns:
        `bbox` (list of [x, y, w, h] in pixels), `category` (class numbers), and for DOTA `polygon`
        (list of x1 y1 ... x4 y4) and `difficult`.

    Raises:
        BadFile: A line that cannot be read, an unknown category, a box that is empty or lies
            outside of the image.
    """
    from .problems import BadFile

    readers: dict[str | None, Any] = {"voc": _voc, "levir": _levir, "dota": _dota}
    found: dict[str, list] = {"bbox": [], "category": []}
    if layout.annotation == "dota":
        found |= {"polygon": [], "difficult": []}
    try:
        objects = list(readers[layout.annotation](layout, path))
    except (ValueError, KeyError, IndexError, AttributeError, ParseError) as error:
        raise BadFile(f"its annotation {path.name} cannot be read ({error})") from error
    width, height = size
    for name, (x0, y0, x1, y1), more in objects:
        if name not in layout.classes:
            raise BadFile(f"its annotation {path.name} has the unknown category {name!r}")
        if not all(math.isfinite(corner) for corner in (x0, y0, x1, y1)):
            raise BadFile(f"its annotation {path.name} has a box that is not finite")
        # Half a pixel beyond the border is how some tools draw.
        if x1 <= x0 or y1 <= y0:
            raise BadFile(f"its annotation {path.name} has an empty box ({x0}, {y0}, {x1}, {y1})")
        if layout.annotation == "dota":  # oriented boxes of objects at the border reach beyond it
            x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1 or x1 <= x0 or y1 <= y0:
            raise BadFile(
                f"its annotation {path.name} has a box outside of the image "
                f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
            )
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        found["bbox"].append([float(x0), float(y0), float(x1 - x0), float(y1 - y0)])
        found["category"].append(layout.classes.index(name))
        for key, value in more.items():
            found[key].append(value)
    return found


def _voc(layout: Layout, path: Path) -> Any:
    known = {name.lower(): name for name in layout.classes}
    root: Any = ElementTree.parse(path).getroot()
    for item in root.iter("object"):
        name = item.find("name").text.strip()
        box = item.find("bndbox")
        corners = [float(box.find(key).text) for key in ("xmin", "ymin", "xmax", "ymax")]
        yield known.get(name.lower(), name), corners, {}


def _levir(layout: Layout, path: Path) -> Any:
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if line.strip():
            number, *corners = (float(text) for text in line.replace(",", " ").split())
            if len(corners) != 4:
                raise ValueError(f"{line.strip()!r} is not a class and four numbers")
            index = int(number) - 1
            known = 0 <= index < len(layout.classes)
            yield (layout.classes[index] if known else f"{int(number)}"), corners, {}


def _dota(layout: Layout, path: Path) -> Any:
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        parts = line.split()
        if not parts or ":" in parts[0]:  # imagesource:GoogleEarth, gsd:0.146
            continue
        polygon = [float(text) for text in parts[:8]]
        xs, ys = polygon[::2], polygon[1::2]
        more = {"polygon": polygon, "difficult": parts[9] != "0" if len(parts) > 9 else False}
        yield parts[8], [min(xs), min(ys), max(xs), max(ys)], more
