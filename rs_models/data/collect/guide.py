"""A land-cover map that says what a place shows: a raster of class numbers, or polygons."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from ...errors import UserError
from ..names import natural
from ..vectors import GEOJSON, VECTORS, class_key, read_features

logger = logging.getLogger(__name__)

NONE = -1


class Guide(Protocol):
    """Class of each point of a grid.

    Attributes:
        names: Names of the classes, by number from 0.
    """

    names: list[str]

    def classes(self, transform: Any, crs: Any, height: int, width: int) -> np.ndarray:
        """Class numbers (height, width) on a grid of another raster; `NONE` where there is none.

        Args:
            transform: Affine from the grid's cells to `crs`.
            crs: Coordinate system of the grid.
            height: Cells of the grid from top to bottom.
            width: Cells of the grid from left to right.
        """
        ...


def open_guide(path: str, classes: Mapping[str, Any] | None, field: str) -> Guide:
    """A guide from a file: polygons by their suffix, else a raster.

    Args:
        path: Path of the file, or an http(s) address of a raster.
        classes: Number or name in the map -> name of ours; None takes all.
        field: Property of polygons that names their class.

    Raises:
        UserError: A file that cannot be read, or none of the classes in it.
    """
    named = None if classes is None else {class_key(key): name for key, name in classes.items()}
    if path.lower().endswith((*GEOJSON, *VECTORS)):
        return _Polygons(path, named, field)
    return _Raster(path, named)


class _Raster:
    def __init__(self, path: str, classes: Mapping[str, Any] | None) -> None:
        from rasterio.errors import RasterioError

        self.path = f"/vsicurl/{path}" if path.startswith("http") else path
        try:
            with self._open() as raster:
                self.nodata, crs = raster.nodata, raster.crs
                kind = np.dtype(raster.dtypes[0])
                if classes is None:
                    # An overview is enough to see which classes there are.
                    side = min(1024, raster.width), min(1024, raster.height)
                    seen = np.unique(raster.read(1, out_shape=side[::-1]))
        except (RasterioError, UserError) as error:
            raise UserError(f"The guide {path} cannot be read: {error}") from error
        if crs is None or kind.kind not in "ui":
            raise UserError(f"The guide {path} should be whole numbers with a CRS.")
        if classes is None:
            known = {int(value): str(int(value)) for value in seen if value != self.nodata}
        else:
            try:
                known = {int(number): str(name) for number, name in classes.items()}
            except ValueError as error:
                raise UserError(
                    f"The classes of a raster guide are numbers ({error}): write them as such."
                ) from error
        if not known:
            raise UserError(f"The guide {path} holds no classes.")
        self.names = sorted(set(known.values()))
        self.numbers = {value: self.names.index(name) for value, name in known.items()}

    def _open(self) -> Any:
        from ...rasters import open_raster

        return open_raster(self.path, addresses=self.path.startswith("/vsicurl/"), max_bytes=None)

    def classes(self, transform: Any, crs: Any, height: int, width: int) -> np.ndarray:
        from rasterio.enums import ColorInterp, Resampling
        from rasterio.vrt import WarpedVRT

        found = np.full((height, width), NONE, np.int16)
        with self._open() as raster:
            has_alpha = ColorInterp.alpha in raster.colorinterp
            with WarpedVRT(
                raster,
                crs=crs,
                transform=transform,
                height=height,
                width=width,
                resampling=Resampling.nearest,
                add_alpha=not has_alpha,  # where the map does not reach
            ) as grid:
                values = grid.read(1)
                there = grid.read(grid.count) > 0
        for value, number in self.numbers.items():
            found[there & (values == value)] = number
        return found


class _Polygons:
    """Polygons, whose coordinates are longitude and latitude unless the file names a CRS."""

    def __init__(self, path: str, classes: Mapping[str, Any] | None, field: str) -> None:
        features, self.crs = read_features(path)
        shapes: list[tuple[Any, str]] = []
        properties: set[str] = set()
        left_out = 0
        for geometry, stated in features:
            properties |= set(stated)
            value = stated.get(field)
            if value is None:
                left_out += 1
                continue
            name = class_key(value) if classes is None else classes.get(class_key(value))
            if name is None:
                continue
            polygons = list(_polygons(geometry))
            left_out += not polygons
            shapes += [(polygon, str(name)) for polygon in polygons]
        if not shapes:
            raise UserError(
                f"The guide {path} has no polygons with a known class in {field!r} (properties: "
                f"{', '.join(sorted(properties)) or 'none'}): name the property with field, and "
                "its values with classes."
            )
        if left_out:
            logger.warning(
                "%d features of the guide %s have no class or no polygon and are left out.",
                left_out,
                path,
            )
        self.names = sorted({name for _, name in shapes}, key=natural)
        self.shapes = [(geometry, self.names.index(name)) for geometry, name in shapes]

    def classes(self, transform: Any, crs: Any, height: int, width: int) -> np.ndarray:
        from rasterio.features import rasterize
        from rasterio.warp import transform_geom

        try:
            placed = [
                (transform_geom(self.crs, crs, geometry), number)
                for geometry, number in self.shapes
            ]
        except Exception as error:  # GDAL raises many types where a point has no place
            raise UserError(
                f"The guide's polygons cannot be placed ({error}): repair them."
            ) from error
        return rasterize(
            placed, out_shape=(height, width), transform=transform, fill=NONE, dtype="int16"
        )


def _polygons(geometry: Any) -> Iterator[dict[str, Any]]:
    """The whole polygons of a geometry, those of collections too."""
    from rasterio.features import is_valid_geom

    if not isinstance(geometry, Mapping):
        return
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        inner = geometry.get("geometries")
        for part in inner if isinstance(inner, list | tuple) else ():
            yield from _polygons(part)
    elif kind in ("Polygon", "MultiPolygon") and geometry.get("coordinates"):
        try:
            if is_valid_geom(geometry):
                yield dict(geometry)
        except (TypeError, ValueError, IndexError, KeyError):
            return
