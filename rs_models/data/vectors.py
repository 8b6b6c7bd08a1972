"""Vector files: geometries with their properties, and the coordinate system that they are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

GEOJSON = (".geojson", ".json")
VECTORS = (".gpkg", ".fgb", ".shp", ".parquet", ".geoparquet")  # by the extra `geo`
_DEGREES = "EPSG:4326"


def class_key(value: Any) -> str:
    """A class's name or number as text; whole numbers without a point, however they are stored."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | np.number) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def read_features(path: str) -> tuple[list[tuple[Any, dict[str, Any]]], Any]:
    """Geometries with properties of a vector file, and its CRS.

    Args:
        path: GeoJSON, or what `pyogrio` reads: GeoPackage, FlatGeobuf, Shapefile, GeoParquet.

    Raises:
        UserError: A file that cannot be read.
    """
    if path.lower().endswith(GEOJSON):
        return _geojson(path)
    try:
        import pyogrio
        import shapely
    except ImportError:
        raise UserError(
            f"{path} needs pyogrio and shapely: pip install 'rs_models[geo]', or convert it to "
            "GeoJSON."
        ) from None
    try:
        meta, _, shapes, columns = pyogrio.raw.read(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a vector file.") from error
    names = [str(name) for name in meta["fields"]]
    features = []
    for number, shape in enumerate(shapes):
        geometry = shapely.from_wkb(shape) if shape is not None else None
        stated = {name: _value(column[number]) for name, column in zip(names, columns, strict=True)}
        features.append((geometry.__geo_interface__ if geometry is not None else None, stated))
    return features, _crs(meta.get("crs"), path)


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
    return features, _crs(name, path)


def _crs(name: Any, path: str) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if name is None:
        return CRS.from_string(_DEGREES)
    try:
        return CRS.from_user_input(name)
    except (CRSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} names the coordinate system {name!r:.80}, which is not known: write its EPSG "
            "code, or leave it out for longitude and latitude."
        ) from error
