"""Vector files: geometries with their properties, and the coordinate system that they are in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..errors import UserError
from .geoparquet import PARQUET, read_geoparquet

GEOJSON = (".geojson", ".json")
# Ending -> what such a file begins with, of all but GeoJSON. GDAL takes a file for what its content
# says, and would follow a description in it to any other file or address.
_STARTS = {
    ".gpkg": b"SQLite format 3\0",
    ".fgb": b"fgb\x03",
    ".shp": b"\0\0\x27\x0a",
    **dict.fromkeys(PARQUET, b"PAR1"),
}
VECTORS = tuple(_STARTS)
_DEGREES = "EPSG:4326"
_MOST_EAST = 360  # some count longitude from 0, or go on past 180
# Coordinate systems by code, WKT or PROJ's words; what else GDAL takes may be a file or an address.
_CRS = re.compile(
    r"\d+|CRS84|WGS84|NAD27|NAD83|(EPSG:|ESRI:|OGC:|urn:(x-)?ogc:def:crs:)[\w:.-]+"
    r"|https?://www\.opengis\.net/(def/crs|gml/srs)/[\w./#-]+"
    r"|[A-Z_]+\[.*\]"
    r"|(\+\w+(=[\w.,-]+)?\s*)+",
    re.DOTALL | re.IGNORECASE,
)


def class_key(value: Any) -> str:
    """A class's name or number as text; whole numbers without a point, however they are stored."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def read_features(path: str) -> tuple[list[tuple[Any, dict[str, Any]]], Any]:
    """Geometries with properties of a vector file, and its CRS.

    Args:
        path: GeoJSON, GeoParquet, or what `pyogrio` reads: GeoPackage, FlatGeobuf, Shapefile.

    Raises:
        UserError: A file that cannot be read.
    """
    if path.lower().endswith(GEOJSON):
        return _geojson(path)
    if path.lower().endswith(PARQUET):
        _check_start(path)
        rows, wkt = read_geoparquet(path)
        if wkt is None:
            raise UserError(
                f"{path} says that its coordinate system is not known: export it with one."
            )
        plain = [(shape, {k: _value(v) for k, v in stated.items()}) for shape, stated in rows]
        return _placed(plain, _crs(wkt, path), path)
    try:
        import pyogrio
        import shapely
    except ImportError:
        raise UserError(
            f"{path} needs pyogrio and shapely: pip install 'rs-models[geo]', or convert it to "
            "GeoJSON."
        ) from None
    _check_start(path)
    if path.lower().endswith(".gpkg"):
        _check_tables(path)
    try:
        meta, _, shapes, columns = pyogrio.raw.read(path)
        if shapes is None:
            raise UserError(f"{path} holds a table without geometries: give a vector file.")
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a vector file.") from error
    names = [str(name) for name in meta["fields"]]
    features = []
    for number, shape in enumerate(shapes):
        geometry = shapely.from_wkb(shape) if shape is not None else None
        stated = {name: _value(column[number]) for name, column in zip(names, columns, strict=True)}
        features.append((geometry.__geo_interface__ if geometry is not None else None, stated))
    return _placed(features, _crs(meta.get("crs"), path), path)


def _placed(features: list[tuple[Any, dict[str, Any]]], crs: Any, path: str) -> Any:
    """Features with their system; refuses metres where it is one of degrees, or is not said."""
    if crs.is_geographic:
        _check_degrees(features, path)
    return features, crs


def columns_of(path: str) -> tuple[list[str], int]:
    """Names of the properties of a vector file that `pyogrio` reads, and how many features it has.

    Args:
        path: GeoJSON, GeoPackage, FlatGeobuf or Shapefile.

    Raises:
        UserError: A file that cannot be read.
    """
    import pyogrio

    if not path.lower().endswith(GEOJSON):
        _check_start(path)
    try:
        with open(path, "rb") as file:
            if path.lower().endswith(GEOJSON) and not file.read(1000).lstrip().startswith(b"{"):
                raise UserError(f"{path} is no GeoJSON, whatever its name says.")
        about = pyogrio.read_info(path, force_feature_count=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a vector file.") from error
    return [str(name) for name in about["fields"]], int(about["features"])


def _check_tables(path: str) -> None:
    """Refuses a GeoPackage whose features are computed: such a query may have no end.

    Raises:
        UserError: Naming the view.
    """
    import sqlite3

    place = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(place, uri=True)) as file:
        views = file.execute(
            "SELECT name FROM sqlite_master JOIN gpkg_contents ON lower(name) = lower(table_name) "
            "WHERE type = 'view'"
        ).fetchone()
        if views:
            raise UserError(
                f"{path} holds {views[0]!r:.60}, a view and no table: export it to a new file."
            )


def _check_start(path: str) -> None:
    """Refuses a file that is not what its name says.

    Raises:
        UserError: Another ending, another content, or no file.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _STARTS:
        raise UserError(f"{path} should end in one of {', '.join((*GEOJSON, *_STARTS))}.")
    try:
        with open(path, "rb") as file:
            start = file.read(len(_STARTS[suffix]))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if start != _STARTS[suffix]:
        raise UserError(f"{path} cannot be read: it is no {suffix} file, whatever its name says.")


def _value(value: Any) -> Any:
    missing = isinstance(value, float | np.floating) and np.isnan(value)
    return None if missing else getattr(value, "item", lambda: value)()


def _geojson(path: str) -> tuple[list[tuple[Any, dict[str, Any]]], Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        listed = content["features"]
        features = [
            (feature.get("geometry"), dict(feature.get("properties") or {})) for feature in listed
        ]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is no GeoJSON feature collection ({type(error).__name__}): repair it."
        ) from error
    stated = content.get("crs")
    properties = stated.get("properties") if isinstance(stated, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if stated is not None and name is None and not isinstance(stated, dict):
        name = stated
    return _placed(features, _crs(name, path), path)


def _check_degrees(features: list[tuple[Any, dict[str, Any]]], path: str) -> None:
    """Refuses metres in a file that says of no coordinate system, or of one in degrees."""
    for number, (geometry, _) in enumerate(features, start=1):
        waiting = [geometry]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                waiting += [part.get("geometries"), part.get("coordinates")]
            elif isinstance(part, list | tuple) and part and _is_position(part):
                x, y = part[0], part[1] if len(part) > 1 else 0
                if not (abs(x) <= _MOST_EAST and abs(y) <= 90):
                    raise UserError(
                        f"Feature {number} of {path} lies at {x:.10g}, {y:.10g}, which is no "
                        "longitude and latitude, which GeoJSON and files without a coordinate "
                        "system hold: export it in these, or as GeoPackage, with its own."
                    )
            elif isinstance(part, list | tuple):
                waiting += part


def _is_position(part: Sequence[Any]) -> bool:
    return all(isinstance(coordinate, int | float) for coordinate in part)


def _crs(name: Any, path: str) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if name is None:
        return CRS.from_string(_DEGREES)
    try:
        if not _CRS.fullmatch(str(name).strip()):
            raise CRSError("no code, no WKT and no words of PROJ")
        return CRS.from_user_input(name)
    except (CRSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} names the coordinate system {name!r:.80}, which is not known: write its EPSG "
            "code, or leave it out for longitude and latitude."
        ) from error
