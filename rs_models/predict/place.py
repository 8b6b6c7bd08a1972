"""Where the cells of a raster lie on the Earth, and how much ground they cover.

A raster is placed by its geotransform, by ground control points or by rational polynomials. Either
way it comes down to one function, from cells to longitude and latitude; areas are measured on the
ellipsoid through that function and never in a projection's plane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import UserError

LONGITUDE_LATITUDE = "EPSG:4326"
# Blocks a side in which ground areas are measured. With 128 the areas between are right within
# 1e-4 over the whole Earth in degrees, the coarsest that there is; with 32, a sixteenth of the
# time, within 1e-7 where a transform places no more than a Sentinel-2 tile.
_BLOCKS, _BLOCKS_OF_A_TILE = 128, 32
_TILE = 110_000.0**2  # square metres
_LONGEST_STEP = 1000.0  # metres over which the ground is taken to be flat, at most
# GDAL's own order of polynomials follows few points; more of them (Sentinel-1 has 210) are met.
_MANY_POINTS = 20
_NO_PLACE = "it has no CRS and no control points, so coordinates are {unit}"

Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Where a raster lies.

    Attributes:
        height: Rows of cells.
        width: Columns of cells.
        crs: The coordinates' system (rasterio's); None where it is not known.
        on_map: Corners of cells (column, row) -> coordinates in that system.
        lonlat: Corners of cells (column, row) -> longitude and latitude in degrees; None where the
            system is not known.
        how: "transform", "gcps", "rpcs" or "pixels".
        unit: Square map units to one cell, for rasters without a place.
        note: What must be known of these positions; None where they are plain.
    """

    height: int
    width: int
    crs: Any
    on_map: Callable[[np.ndarray, np.ndarray], Points]
    lonlat: Callable[[np.ndarray, np.ndarray], Points] | None
    how: str
    unit: float = 1.0
    note: str | None = None

    @property
    def area_name(self) -> str:
        """Name of areas: square metres of ground, or square units of the raster's own."""
        return "area_m2" if self.lonlat is not None else "area"

    @cached_property
    def areas(self) -> GroundAreas:
        """Ground that the cells cover."""
        return GroundAreas(self)


def place_of(raster: Any) -> Place:
    """Where an open raster lies.

    Args:
        raster: Open rasterio data set.
    """
    size: dict[str, Any] = {"height": raster.height, "width": raster.width}
    points, points_crs = raster.gcps
    if not raster.transform.is_identity:
        return _by_transform(raster, size)
    if len(points) >= 3 and points_crs is not None:
        on_map = _by_points(points, points_crs)
        note = f"placed by {len(points)} ground control points: positions are as good as these"
        lonlat = _to_lonlat(points_crs)
        if lonlat is not None:
            return Place(
                crs=points_crs,
                on_map=on_map,
                lonlat=lambda x, y: lonlat(*on_map(x, y)),
                how="gcps",
                note=note,
                **size,
            )
    if raster.rpcs is not None:
        on_map = _by_polynomials(raster.rpcs)
        height = raster.rpcs.height_off
        note = (
            f"placed by rational polynomials (RPC) at a height of {height:g} m: hills are not "
            "accounted for"
        )
        return Place(
            crs=_rasterio_crs(LONGITUDE_LATITUDE),
            on_map=on_map,
            lonlat=on_map,
            how="rpcs",
            note=note,
            **size,
        )
    return Place(
        crs=None,
        on_map=lambda x, y: (x, y),
        lonlat=None,
        how="pixels",
        note=_NO_PLACE.format(unit="pixels"),
        **size,
    )


def _by_transform(raster: Any, size: dict[str, Any]) -> Place:
    t = raster.transform

    def on_map(x: np.ndarray, y: np.ndarray) -> Points:
        return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f

    to_lonlat = _to_lonlat(raster.crs) if raster.crs is not None else None
    if to_lonlat is None:
        note = (
            "its coordinate system cannot be placed on the Earth, so coordinates are its own"
            if raster.crs is not None
            else _NO_PLACE.format(unit="those of its own transform")
        )
        unit = abs(t.a * t.e - t.b * t.d)
        return Place(
            crs=None, on_map=on_map, lonlat=None, how="transform", unit=unit, note=note, **size
        )
    return Place(
        crs=raster.crs,
        on_map=on_map,
        lonlat=lambda x, y: to_lonlat(*on_map(x, y)),
        how="transform",
        **size,
    )


def _to_lonlat(crs: Any) -> Callable[[np.ndarray, np.ndarray], Points] | None:
    """From a system's coordinates to degrees, looked up once; None for one of no place on Earth."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        system = CRS.from_user_input(crs.to_wkt()).to_2d()
        transformer = Transformer.from_crs(system, LONGITUDE_LATITUDE, always_xy=True)
    except (ProjError, ValueError):
        return None
    if not transformer.source_crs or system.is_engineering:
        return None

    def lonlat(x: np.ndarray, y: np.ndarray) -> Points:
        longitude, latitude = transformer.transform(x, y)
        return np.asarray(longitude, np.float64), np.asarray(latitude, np.float64)

    return lonlat


def _by_points(points: list[Any], crs: Any) -> Callable[[np.ndarray, np.ndarray], Points]:
    from rasterio.control import GroundControlPoint
    from rasterio.transform import GCPTransformer

    xs = np.asarray([point.x for point in points])
    if crs.is_geographic and np.ptp(xs) > 180:  # on both sides of the antimeridian
        xs = np.where(xs < 0, xs + 360, xs)
    placed = [
        GroundControlPoint(point.row, point.col, x, point.y, point.z or 0)
        for point, x in zip(points, xs.tolist(), strict=True)
    ]
    transformer = GCPTransformer(placed, tps=len(placed) > _MANY_POINTS)
    return _corners(transformer)


def _by_polynomials(rpcs: Any) -> Callable[[np.ndarray, np.ndarray], Points]:
    from rasterio.transform import RPCTransformer

    return _corners(RPCTransformer(rpcs, RPC_HEIGHT=rpcs.height_off))


def _corners(transformer: Any) -> Callable[[np.ndarray, np.ndarray], Points]:
    def on_map(x: np.ndarray, y: np.ndarray) -> Points:
        shape = np.shape(x)
        xs, ys = transformer.xy(np.ravel(y), np.ravel(x), offset="ul")
        return np.asarray(xs, np.float64).reshape(shape), np.asarray(ys, np.float64).reshape(shape)

    return on_map


def _rasterio_crs(name: str) -> Any:
    from rasterio.crs import CRS

    return CRS.from_user_input(name)


class GroundAreas:
    """The ground that any union of cells covers, in square metres on the WGS 84 ellipsoid.

    The ground of a cell is measured by geodesics across it (`pyproj.Geod`) in blocks of the raster,
    and summed from the upper left corner on. The area of a ring along cells' edges is then a sum of
    differences of that table at its corners (Green's theorem), a few operations a corner: exact for
    a polygon of any size, over the antimeridian, around a pole, and for 100,000 of them.

    Without a place on Earth the areas are those of the raster's own units.
    """

    def __init__(self, place: Place) -> None:
        """Measures the blocks."""
        self.place = place
        if place.lonlat is not None:
            self._table = self._summed()

    def before(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Area of all cells to the upper left of corners (column, row)."""
        if self.place.lonlat is None:
            return np.asarray(x, np.float64) * y * self.place.unit
        return np.asarray(self._table.ev(y, x))

    def rings(self, x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Area of each closed ring that goes along cells' edges.

        Args:
            x: (N,) columns of all rings' corners; each ring ends where it began.
            y: (N,) rows.
            starts: (R,) where each ring begins.
        """
        sums = self.before(x, y)
        steps = np.diff(sums, append=sums[-1:])
        steps[np.append(x[1:] != x[:-1], True)] = 0  # along rows, and from ring to ring
        steps[starts[1:] - 1] = 0
        return np.abs(np.add.reduceat(steps, starts))

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Area of upright boxes (N, 4) x0 y0 x1 y1 in cells."""
        x0, y0, x1, y1 = boxes.T.astype(np.float64)
        before = self.before
        return before(x1, y1) - before(x0, y1) - before(x1, y0) + before(x0, y0)

    def _summed(self) -> Any:
        from scipy.interpolate import RectBivariateSpline

        rows, columns, blocks = self._blocks(_BLOCKS_OF_A_TILE)
        sides = sorted((self.place.height, self.place.width))
        square = blocks.sum() * sides[1] / sides[0]  # what a strip is long counts, not its ground
        if self.place.how != "transform" or square > _TILE:
            rows, columns, blocks = self._blocks(_BLOCKS)
        table = np.zeros((len(rows), len(columns)))
        table[1:, 1:] = blocks.cumsum(0).cumsum(1)
        order = {"kx": min(3, len(rows) - 1), "ky": min(3, len(columns) - 1)}
        return RectBivariateSpline(rows, columns, table, **order)

    def _blocks(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and columns between blocks, at most `count` a side, and the ground of each."""
        height, width = self.place.height, self.place.width
        rows = np.linspace(0, height, min(height, count) + 1)
        columns = np.linspace(0, width, min(width, count) + 1)
        x, y = np.meshgrid((columns[1:] + columns[:-1]) / 2, (rows[1:] + rows[:-1]) / 2)
        assert self.place.lonlat is not None
        ground = _ground(self.place.lonlat, x, y)
        return rows, columns, ground * np.diff(rows)[:, None] * np.diff(columns)


def _ground(
    lonlat: Callable[[np.ndarray, np.ndarray], Points], x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Square metres of a cell at positions; 0 where the system reaches beyond the Earth."""
    from pyproj import Geod

    geod = Geod(ellps="WGS84")
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))

    centre = [np.where(np.isfinite(axis), axis, 0.0) for axis in lonlat(x, y)]

    def across(dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
        """Distance over a step centred at each position, and direction of its second half."""
        west, south = lonlat(x - dx / 2, y - dy / 2)
        east, north = lonlat(x + dx / 2, y + dy / 2)
        good = np.isfinite(west) & np.isfinite(south) & np.isfinite(east) & np.isfinite(north)
        west, south, east, north = (np.where(good, v, 0.0) for v in (west, south, east, north))
        _, _, distance = geod.inv(west, south, east, north)
        direction, _, _ = geod.inv(centre[0], centre[1], east, north)
        return np.where(good, distance, 0.0), np.radians(direction)

    # Over a whole cell, which tells its size, and again over no more than what is flat.
    step, (along, azimuth_along), (down, azimuth_down) = 1.0, across(1, 0), across(0, 1)
    longest = max(float(np.max(along)), float(np.max(down)))
    if longest > _LONGEST_STEP:
        step = _LONGEST_STEP / longest
        (along, azimuth_along), (down, azimuth_down) = across(step, 0), across(0, step)
    return along * down * np.abs(np.sin(azimuth_down - azimuth_along)) / step**2


def hectares(class_map: Any, names: list[str]) -> dict[str, float]:
    """Hectares of each class that occurs in an open map of class numbers; without a place, cells.

    Args:
        class_map: Open rasterio data set of one band.
        names: Names of the classes.

    Raises:
        UserError: A class number without a name.
    """
    place = place_of(class_map)
    unit = 1e4 if place.lonlat is not None else place.unit
    totals = np.zeros(len(names) + 1)
    # Within a block each cell counts alike: a 64th of the map, so that it is small on the Earth.
    side = math.ceil(max(1, min(256, class_map.width / 64, class_map.height / 64)))
    edges = np.arange(0, class_map.width, side)
    blocks = np.arange(class_map.width) // side
    from rasterio.windows import Window

    for top in range(0, class_map.height, side):
        rows = min(side, class_map.height - top)
        values = class_map.read(1, window=Window(0, top, class_map.width, rows)).astype(np.int64)
        nodata = values == class_map.nodata
        values[nodata] = len(names)
        if values.max(initial=0) > len(names):
            raise UserError(f"{class_map.name} holds class {values.max()}, which has no name.")
        counts = np.bincount(
            (blocks * len(totals) + values).ravel(), minlength=len(edges) * len(totals)
        ).reshape(len(edges), len(totals))
        ends = np.minimum(edges + side, class_map.width)
        lines = np.full(len(edges), top), np.full(len(edges), top + rows)
        blocks_ground = place.areas.boxes(np.column_stack((edges, lines[0], ends, lines[1])))
        totals += blocks_ground / ((ends - edges) * rows) @ counts
    return {
        name: float(total / unit)
        for name, total in zip(names, totals[:-1].tolist(), strict=True)
        if total
    }
