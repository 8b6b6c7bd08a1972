"""Masks and boxes as GeoJSON in longitude and latitude (RFC 7946), with areas in square metres."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Cylindrical equal area: squares of degrees, and of Web Mercator's metres, are no areas.
_EQUAL_AREA = "EPSG:6933"
_WEB_MERCATOR = 3857
_NO_CRS = "The scene has no CRS: coordinates are those of its own transform, or pixels."


def write_polygons(
    raster_path: Path, output: Path, names: Sequence[str], *, min_area: float = 0.0
) -> int:
    """Polygons of the connected areas of each class in a class raster.

    Args:
        raster_path: One band of class numbers, with nodata.
        output: GeoJSON to write.
        names: Of the classes.
        min_area: Square metres (without a CRS: square units) below which a polygon is left out.

    Returns:
        How many there are.
    """
    import rasterio
    from rasterio.features import shapes

    with rasterio.open(raster_path) as raster:
        place = _Place(raster.crs)

        def features() -> Iterator[dict[str, Any]]:
            # GDAL walks through the band itself, so the raster need not fit into memory.
            source = rasterio.band(raster, 1)
            for shape, value in shapes(source, transform=raster.transform):
                if value == raster.nodata:
                    continue
                area = place.area(shape)
                if area >= min_area:
                    yield {
                        "type": "Feature",
                        "geometry": place.geometry(shape),
                        "properties": {
                            "class": names[int(value)],
                            "class_number": int(value),
                            place.area_name: round(area, 2),
                        },
                    }

        return _write(output, features(), place)


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
        scores: (N,).
        labels: (N,).
        raster: The open scene.
        output: GeoJSON to write.
        names: Of the classes.

    Returns:
        How many there are.
    """
    place = _Place(raster.crs)

    def features() -> Iterator[dict[str, Any]]:
        for (x0, y0, x1, y1), score, label in zip(boxes, scores, labels, strict=True):
            corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
            ring = [_on_map(raster.transform, float(x), float(y)) for x, y in corners]
            shape = {"type": "Polygon", "coordinates": [ring]}
            yield {
                "type": "Feature",
                "geometry": place.geometry(shape),
                "properties": {
                    "class": names[int(label)],
                    "class_number": int(label),
                    "score": round(float(score), 4),
                    place.area_name: round(place.area(shape), 2),
                    "pixels": [round(float(v), 2) for v in (x0, y0, x1, y1)],
                },
            }

    return _write(output, features(), place)


class _Place:
    """Where shapes are: from the scene's coordinates to degrees and to areas."""

    def __init__(self, crs: Any) -> None:
        self.crs = crs
        self.area_name = "area_m2" if crs is not None else "area"

    def geometry(self, shape: dict[str, Any]) -> dict[str, Any]:
        from rasterio.warp import transform_geom

        if self.crs is not None:
            shape = transform_geom(self.crs, "EPSG:4326", shape, precision=8)
        rings = [_wound(ring, outer=i == 0) for i, ring in enumerate(shape["coordinates"])]
        return {"type": "Polygon", "coordinates": rings}

    def area(self, shape: dict[str, Any]) -> float:
        from rasterio.warp import transform_geom

        factor = 1.0
        if self.crs is not None:
            if self.crs.is_projected and self.crs.to_epsg() != _WEB_MERCATOR:
                factor = self.crs.linear_units_factor[1] ** 2
            else:
                shape = transform_geom(self.crs, _EQUAL_AREA, shape)
        outer, *holes = (abs(_signed_area(ring)) for ring in shape["coordinates"])
        return (outer - sum(holes)) * factor


def _on_map(t: Any, x: float, y: float) -> tuple[float, float]:
    """A pixel's place in the scene's coordinates."""
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _signed_area(ring: Sequence[Sequence[float]]) -> float:
    """Of a closed ring, positive where it runs counter-clockwise (y up)."""
    points = np.asarray(ring, np.float64)
    points = points - points[0]  # large coordinates would swallow the small differences
    x, y = points[:, 0], points[:, 1]
    return 0.5 * float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def _wound(ring: Sequence[Sequence[float]], *, outer: bool) -> list[list[float]]:
    """Outer rings counter-clockwise and holes clockwise, as RFC 7946 wants them."""
    points = [[float(x), float(y)] for x, y in ring]
    return points if (_signed_area(points) > 0) == outer else points[::-1]


def _write(output: Path, features: Iterable[dict[str, Any]], place: _Place) -> int:
    """Feature by feature into a file beside, which is renamed at the end."""
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with open(partial, "w", encoding="utf-8") as file:
        note = f'"note": {json.dumps(_NO_CRS)},\n' if place.crs is None else ""
        file.write(f'{{"type": "FeatureCollection",\n{note}"features": [')
        for feature in features:
            file.write(("\n" if count == 0 else ",\n") + json.dumps(feature))
            count += 1
        file.write("\n]}\n")
    partial.replace(output)
    return count
