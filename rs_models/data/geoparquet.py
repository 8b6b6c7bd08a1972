"""GeoParquet (geoparquet.org), written and read by pyarrow: pyogrio's wheels know no Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..files import written

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGES = ("image", "embedding")
PARQUET = (".parquet", ".geoparquet")
SOFTWARE = "rs_models"  # what tells files of ours
_GEOMETRY = "geometry"
_MOST = 2 << 30  # bytes in memory; a small file may claim any number of equal values
_ROWS = 1024  # read at a time


def write_geoparquet(
    output: Path,
    wkb: Sequence[bytes] | np.ndarray,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    crs: str | None,
    *,
    note: str = "",
    counterclockwise: bool = False,
) -> None:
    """Writes polygons as GeoParquet 1.1.

    Args:
        output: File to write.
        wkb: One polygon a row, as well-known binary.
        columns: Name -> values, one a row.
        crs: Coordinate system as WKT; None says that there is none.
        note: What must be known of the positions.
        counterclockwise: Whether all outer rings run so.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyproj import CRS

    described: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None if crs is None else CRS.from_wkt(crs).to_json_dict(),
    }
    if counterclockwise:
        described["orientation"] = "counterclockwise"
    geo = {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: described}}
    metadata = {"geo": json.dumps(geo), "software": SOFTWARE}
    if note:
        metadata["note"] = note
    arrays = {name: pa.array(values) for name, values in columns.items()}
    table = pa.table({**arrays, _GEOMETRY: pa.array(list(wkb), pa.binary())})
    with written(output) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial)


def is_geoparquet(path: Path) -> bool:
    """Whether a Parquet file holds geometries, and neither images nor vectors of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException):
        return path.suffix.lower() == PARQUET[1]  # whoever reads it says why
    # Images are structs with their bytes, or lists of bands; so are vectors. A name is text.
    kinds = [schema.field(i).type for i in range(len(schema)) if schema.names[i] in _IMAGES]
    return b"geo" in (schema.metadata or {}) and not any(map(pa.types.is_nested, kinds))


def columns_of_ours(path: Path) -> list[str] | None:
    """Names of the columns but the geometry of a file that we wrote; None of any other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException):
        return None
    ours = (schema.metadata or {}).get(b"software") == SOFTWARE.encode()
    return [name for name in schema.names if name != _GEOMETRY] if ours else None


def read_geoparquet(path: str) -> tuple[list[tuple[Any, dict[str, Any]]], str | None]:
    """Geometries with their properties, and their coordinate system as WKT.

    Args:
        path: A file whose geometries are well-known binary, as all programs write by default.

    Returns:
        (GeoJSON-like geometry or None, properties) of each row; the system, or None where the file
        says that there is none.

    Raises:
        UserError: No GeoParquet, a damaged one, or geometries in another encoding.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    try:
        file = pq.ParquetFile(path)
        geo = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"null"))
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}): give a vector file.") from error
    if geo is None:
        raise UserError(f"{path} holds a table without geometries: give a vector file.")
    try:
        name = geo["primary_column"]
        about = geo["columns"][name]
        encoding, crs = about["encoding"], _crs_of(about)
        if encoding != "WKB":
            raise UserError(
                f"{path} holds geometries as {encoding!r:.40}: export it with WKB, the usual "
                "encoding."
            )
        plain = _plain(file.schema_arrow, geo)
        table = _table(file, [*plain, name], path)
        shapes = shapely.from_wkb(np.array(table[name].to_pylist(), object))
        properties = table.select(plain).to_pylist()
    except UserError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}): give a vector file.") from error
    except (
        *(LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError),
        shapely.errors.ShapelyError,
    ) as error:
        raise UserError(
            f"{path} holds values that cannot be read ({type(error).__name__}): export it again."
        ) from error
    features = [
        (None if shape is None else shape.__geo_interface__, stated)
        for shape, stated in zip(shapes, properties, strict=True)
    ]
    return features, crs


def _table(file: Any, columns: list[str], path: str) -> pa.Table:
    """Some columns of a file, read a piece at a time.

    Raises:
        UserError: More than memory should hold.
    """
    import pyarrow as pa

    schema = pa.schema([_spelled_out(file.schema_arrow.field(name)) for name in columns])
    held, batches = 0, []
    for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
        batches.append(batch.select(columns).cast(schema))
        held += batches[-1].nbytes
        if held > _MOST:
            raise UserError(
                f"{path} holds more than {_MOST / 2**30:.3g} GiB of values: cut out what is needed."
            )
    return pa.Table.from_batches(batches, schema)


def _spelled_out(field: pa.Field) -> pa.Field:
    """A column whose values stand in each row, and are no numbers of a dictionary's."""
    import pyarrow as pa

    plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return pa.field(field.name, plain)


def _plain(schema: pa.Schema, geo: Mapping[str, Any]) -> list[str]:
    """Columns that are no geometry and no rectangle around one."""
    import pyarrow as pa

    beside = [name for name in schema.names if name not in geo["columns"]]
    return [name for name in beside if not pa.types.is_nested(schema.field(name).type)]


def _crs_of(about: Mapping[str, Any]) -> str | None:
    """WKT of a column's coordinate system.

    Raises:
        ValueError: It is none.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        if "crs" not in about:  # as the standard says: longitude and latitude
            return CRS("OGC:CRS84").to_wkt()
        told = about["crs"]
        return None if told is None else CRS.from_json_dict(dict(told)).to_wkt()
    except CRSError as error:
        raise ValueError(str(error)) from error
