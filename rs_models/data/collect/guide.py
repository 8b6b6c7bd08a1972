"""A land-cover map that says what a place shows: a raster of class numbers, or polygons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import UserError

NONE = -1


class Guide(Protocol):
    """Class of each point of a grid.

    Attributes:
        names: Of the classes, by number from 0.
    """

    names: list[str]

    def classes(self, transform: Any, crs: Any, height: int, width: int) -> np.ndarray:
        """Class numbers (height, width) on a grid of another raster; `NONE` where there is none.

        Args:
            transform: Affine from the grid's cells to `crs`.
            crs: Of the grid.
            height: In cells.
            width: In cells.
        """
        ...


def open_guide(path: str, classes: Mapping[str, Any] | None, field: str) -> Guide:
    """A guide from a file: GeoJSON polygons by their suffix, else a raster.

    Args:
        path: Of the file, or an http(s) address of a raster.
        classes: Number or name in the map -> name of ours; None takes all.
        field: Property of polygons that names their class.

    Raises:
        UserError: A file that cannot be read, or none of the classes in it.
    """
    if path.lower().endswith((".geojson", ".json")):
        return _Polygons(path, classes, field)
    return _Raster(path, classes)


class _Raster:
    def __init__(self, path: str, classes: Mapping[str, Any] | None) -> None:
        import rasterio
        from rasterio.errors import RasterioError

        self.path = f"/vsicurl/{path}" if path.startswith("http") else path
        try:
            with rasterio.open(self.path) as raster:
                self.nodata, crs = raster.nodata, raster.crs
                kind = np.dtype(raster.dtypes[0])
                if classes is None:
                    # An overview is enough to see which classes there are.
                    side = min(1024, raster.width), min(1024, raster.height)
                    seen = np.unique(raster.read(1, out_shape=side[::-1]))
        except RasterioError as error:
            raise UserError(f"The guide {path} cannot be read: {error}.") from error
        if crs is None or kind.kind not in "ui":
            raise UserError(f"The guide {path} should be whole numbers with a CRS.")
        if classes is None:
            known = {int(value): str(int(value)) for value in seen if value != self.nodata}
        else:
            try:
                known = {int(number): str(name) for number, name in classes.items()}
            except ValueError as error:
                raise UserError(f"classes of a raster guide are numbers: {error}.") from error
        if not known:
            raise UserError(f"The guide {path} holds no classes.")
        self.names = sorted(set(known.values()))
        self.numbers = {value: self.names.index(name) for value, name in known.items()}

    def classes(self, transform: Any, crs: Any, height: int, width: int) -> np.ndarray:
        import rasterio
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        found = np.full((height, width), NONE, np.int16)
        with (
            rasterio.open(self.path) as raster,
            WarpedVRT(
                raster,
                crs=crs,
                transform=transform,
                height=height,
                width=width,
                resampling=Resampling.nearest,
                add_alpha=True,  # where the map does not reach
            ) as grid,
        ):
            values = grid.read(1)
            there = grid.read(grid.count) > 0
        for value, number in self.numbers.items():
            found[there & (values == value)] = number
        return found


class _Polygons:
    """GeoJSON, whose coordinates are longitude and latitude unless it names a CRS."""

    def __init__(self, path: str, classes: Mapping[str, Any] | None, field: str) -> None:
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            features = content["features"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"The guide {path} is no GeoJSON feature collection.") from error
        said = content.get("crs", {}).get("properties", {}).get("name")
        self.crs = said or "EPSG:4326"
        shapes: list[tuple[Any, str]] = []
        for feature in features:
            value = (feature.get("properties") or {}).get(field)
            if value is None or feature.get("geometry") is None:
                continue
            name = str(value) if classes is None else classes.get(str(value))
            if name is not None:
                shapes.append((feature["geometry"], str(name)))
        if not shapes:
            raise UserError(f"The guide {path} has no polygons with a known class in {field!r}.")
        self.names = sorted({name for _, name in shapes})
        self.shapes = [(geometry, self.names.index(name)) for geometry, name in shapes]

    def classes(self, transform: Any, crs: Any, height: int, width: int) -> np.ndarray:
        from rasterio.features import rasterize
        from rasterio.warp import transform_geom

        placed = [
            (transform_geom(self.crs, crs, geometry), number) for geometry, number in self.shapes
        ]
        return rasterize(
            placed,
            out_shape=(height, width),
            transform=transform,
            fill=NONE,
            dtype="int16",
        )
