"""Masks and boxes as polygons: their shapes, their ground, and the attributes that go with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..rasters import open_raster
from .place import Place, place_of
from .vector_files import write_shapes

_AT_A_TIME = 20_000  # polygons that are placed and measured together


@dataclass
class Shapes:
    """Polygons along the edges of cells, all of their corners in one array.

    Attributes:
        corners: (N, 2) column and row; each ring is closed.
        ring_starts: (R,) where each ring begins.
        polygon_starts: (P,) number of the first ring, the outer one, of each polygon.
        columns: Attribute -> (P,) values.
    """

    corners: np.ndarray
    ring_starts: np.ndarray
    polygon_starts: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        """How many polygons there are."""
        return len(self.polygon_starts)

    def kept(self, keep: np.ndarray) -> Shapes:
        """Those polygons (P,) bool alone."""
        rings = np.diff(self.polygon_starts, append=len(self.ring_starts))
        corners = np.diff(self.ring_starts, append=len(self.corners))
        keep_rings = np.repeat(keep, rings)
        starts = np.cumsum(corners[keep_rings]) - corners[keep_rings]
        return Shapes(
            self.corners[np.repeat(keep_rings, corners)],
            starts,
            np.cumsum(rings[keep]) - rings[keep],
            {name: values[keep] for name, values in self.columns.items()},
        )


def write_polygons(
    raster_path: Path, output: Path, names: Sequence[str], *, min_area: float = 0.0
) -> int:
    """Polygons of the connected areas of each class in a class raster.

    Args:
        raster_path: One band of class numbers, with nodata.
        output: File to write, in the format of its suffix (see `vector_files`).
        names: Names of the classes.
        min_area: Square metres (without a place on Earth: square units) below which a polygon is
            left out.

    Returns:
        How many there are.
    """
    import rasterio
    from rasterio.features import shapes

    with open_raster(raster_path, max_bytes=None) as raster:
        place = place_of(raster)

        def chunks() -> Iterator[Shapes]:
            # GDAL walks through the band itself, so the raster need not fit into memory.
            polygons = (
                (shape["coordinates"], value)
                for shape, value in shapes(rasterio.band(raster, 1), transform=raster.transform)
                if value != raster.nodata
            )
            while chunk := list(itertools.islice(polygons, _AT_A_TIME)):
                found = _measured(chunk, ~raster.transform, place, names)
                if min_area:
                    found = found.kept(found.columns[place.area_name] >= min_area)
                if len(found):
                    yield found

        return write_shapes(chunks(), place, output, layer="polygons")


def write_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    raster: Any,
    output: Path,
    names: Sequence[str],
) -> int:
    """Boxes as rectangles of the scene, in map coordinates.

    Args:
        boxes: (N, 4) x0 y0 x1 y1 in pixels of the scene.
        scores: (N,) from 0 to 1.
        labels: (N,) class numbers.
        raster: The open scene.
        output: File to write, in the format of its suffix (see `vector_files`).
        names: Names of the classes.

    Returns:
        How many there are.
    """
    place = place_of(raster)
    corners = boxes.astype(np.float64)[:, [[0, 1], [2, 1], [2, 3], [0, 3], [0, 1]]]  # (N, 5, 2)
    columns = {
        "class": np.asarray([names[number] for number in labels], object),
        "class_number": np.asarray(labels, np.int64),
        "score": np.round(scores.astype(np.float64), 4),
        place.area_name: np.round(place.areas.boxes(boxes), 2),
        "pixels": np.round(boxes.astype(np.float64), 2),
    }
    count = np.arange(len(boxes))
    found = Shapes(corners.reshape(-1, 2), count * 5, count, columns)
    return write_shapes(iter([found] if len(boxes) else []), place, output, layer="boxes")


def _measured(
    chunk: list[tuple[Any, float]], to_cells: Any, place: Place, names: Sequence[str]
) -> Shapes:
    """Shapes of GDAL's polygons, with class and area."""
    rings = [ring for polygon, _ in chunk for ring in polygon]
    corners = np.asarray(list(itertools.chain.from_iterable(rings)), np.float64)
    # Back to whole columns and rows: GDAL hands out what the geotransform makes of them.
    t, (x, y) = to_cells, corners.T
    corners = np.rint(np.column_stack((t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f)))
    lengths = np.asarray([len(ring) for ring in rings])
    starts = np.cumsum(lengths) - lengths
    of_polygon = np.asarray([len(polygon) for polygon, _ in chunk])
    first = np.cumsum(of_polygon) - of_polygon
    areas = place.areas.rings(corners[:, 0], corners[:, 1], starts)
    holes = np.ones(len(rings), bool)
    holes[first] = False
    areas[holes] *= -1
    numbers = np.asarray([value for _, value in chunk]).astype(np.int64)
    columns = {
        "class": np.asarray(list(names), object)[numbers],
        "class_number": numbers,
        place.area_name: np.round(np.add.reduceat(areas, first), 2),
    }
    return Shapes(corners, starts, first, columns)
