"""Files of polygons: GeoJSON, GeoPackage, FlatGeobuf, GeoParquet and Shapefile, by the suffix.

GeoJSON holds longitude and latitude, cut at 180 degrees (RFC 7946); the others hold the scene's own
coordinates, along the edges of its cells. GeoPackage, FlatGeobuf and Shapefile need the extra `geo`
(pyogrio).
"""

from __future__ import annotations

import errno
import glob
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..data.geoparquet import SOFTWARE, columns_of_ours, write_geoparquet
from ..errors import UserError
from ..files import alone, written
from .antimeridian import crosses, cut
from .place import Place

_DIGITS = 8  # of a degree: a millimetre
_MORE = 1 << 16  # bytes that a disk with room left takes
_OGR = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
SUFFIXES = (".geojson", ".json", ".gpkg", ".fgb", ".parquet", ".shp")
_SHORT = {"class_number": "class_no"}  # a Shapefile's field names have at most ten letters
# Columns that tell our polygons from others' where a format has no place to say so.
_NUMBERS = {"class_number", "class_no"}
_COLUMNS = {"class", *_NUMBERS, "score", "area_m2", "area", "x_min", "y_min", "x_max", "y_max"}


def write_shapes(chunks: Iterator[Any], place: Place, output: Path, *, layer: str) -> int:
    """Writes polygons, attributes and what must be known of their positions.

    Args:
        chunks: `vectors.Shapes` one after the other.
        place: Where they lie.
        output: File to write.
        layer: Name of the layer, in formats that have one.

    Returns:
        How many polygons there are.

    Raises:
        UserError: A suffix without a format, or a package that is missing.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    suffix = check_suffix(output)
    if suffix in (".geojson", ".json"):
        return _write_geojson(chunks, place, output)
    geometries, columns = _collected(chunks, place)
    if suffix == ".parquet":
        import shapely

        write_geoparquet(
            output,
            shapely.to_wkb(geometries),
            columns,
            None if place.crs is None else place.crs.to_wkt(),
            note=f"The scene: {place.note}." if place.note else "",
            counterclockwise=True,
        )
    else:
        _write_ogr(geometries, columns, place, output, layer)
    return len(geometries)


def check_suffix(output: Path) -> str:
    """The suffix of a file of polygons, in lower case.

    Raises:
        UserError: A suffix without a format, or a package that is missing.
    """
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{output} should end in one of {', '.join(SUFFIXES)}: it holds polygons.")
    if suffix in _OGR:
        try:
            import pyogrio  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"{output} needs the package pyogrio: `pip install rs-models[geo]`, or write "
                ".geojson or .parquet."
            ) from error
    return suffix


def is_ours(path: Path) -> bool:
    """Whether a file of polygons was written here, and no person's work is lost with it."""
    if path.suffix.lower() in _OGR:
        from ..data.vectors import columns_of

        with suppress(UserError):
            stated, count = columns_of(str(path))
            names = set(stated)
            return not count or bool(_NUMBERS & names and names <= _COLUMNS)
        return False
    if path.suffix.lower() == ".parquet":
        written_here = columns_of_ours(path)  # by `classify` too, whose columns are others
        return written_here is not None and set(written_here) <= _COLUMNS
    try:
        with open(path, "rb") as file:
            start = file.read(1000)
    except OSError:
        return False
    return f'"software": "{SOFTWARE}"'.encode() in start


def _write_geojson(chunks: Iterator[Any], place: Place, output: Path) -> int:
    """Writes feature by feature, so that the file need not fit into memory."""
    count = 0
    with written(output) as partial, open(partial, "w", encoding="utf-8") as file:
        note = f'"note": {json.dumps(f"The scene: {place.note}.")},\n' if place.note else ""
        file.write('{"type": "FeatureCollection",\n')
        file.write(f'"software": "{SOFTWARE}",\n{note}"features": [')
        for shapes in chunks:
            geometries = _geojson_geometries(shapes, place)
            lists = {name: values.tolist() for name, values in shapes.columns.items()}
            for number, geometry in enumerate(geometries):
                properties = {name: values[number] for name, values in lists.items()}
                feature = {"type": "Feature", "geometry": geometry, "properties": properties}
                file.write(("\n" if count == 0 else ",\n") + json.dumps(feature))
                count += 1
        file.write("\n]}\n")
    return count


def _geojson_geometries(shapes: Any, place: Place) -> Iterator[dict[str, Any]]:
    """Polygons in degrees, outer rings counter-clockwise and holes clockwise."""
    placed = place.lonlat or place.on_map
    x, y = (np.round(axis, _DIGITS) for axis in placed(*shapes.corners.T))
    starts = shapes.ring_starts
    over = np.zeros(len(starts), bool)
    if place.lonlat is not None:
        over = crosses(x, starts)
    outer = np.zeros(len(starts), bool)
    outer[shapes.polygon_starts] = True
    turned = (_signed_areas(x, y, starts) > 0) != outer
    points = np.column_stack((x, y))
    ends = [*starts[1:].tolist(), len(points)]
    rings = [points[begin:end] for begin, end in zip(starts.tolist(), ends, strict=True)]
    last = [*shapes.polygon_starts[1:].tolist(), len(starts)]
    for begin, end in zip(shapes.polygon_starts.tolist(), last, strict=True):
        if over[begin:end].any():
            yield _cut(rings[begin:end])
            continue
        coordinates = [
            (rings[i][::-1] if turned[i] else rings[i]).tolist() for i in range(begin, end)
        ]
        yield {"type": "Polygon", "coordinates": coordinates}


def _cut(rings: list[np.ndarray]) -> dict[str, Any]:
    import shapely
    from shapely.geometry import mapping

    geometry = shapely.set_precision(cut(rings), 10.0**-_DIGITS)
    oriented = shapely.orient_polygons(geometry, exterior_cw=False)
    return json.loads(json.dumps(mapping(oriented)))


def _signed_areas(x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Plane area of each closed ring, positive where it runs counter-clockwise (y up)."""
    lengths = np.diff(starts, append=len(x))
    # From each ring's first corner: large coordinates would swallow the small differences.
    x, y = (axis - np.repeat(axis[starts], lengths) for axis in (x, y))
    terms = x * np.append(y[1:], 0) - np.append(x[1:], 0) * y
    terms[np.append(starts[1:], len(x)) - 1] = 0
    return 0.5 * np.add.reduceat(terms, starts)


def _collected(chunks: Iterator[Any], place: Place) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All polygons as shapely geometries in map coordinates, and their attributes."""
    import shapely

    geometries: list[np.ndarray] = []
    columns: list[dict[str, np.ndarray]] = []
    for shapes in chunks:
        points = np.column_stack(place.on_map(*shapes.corners.T))
        lengths = np.diff(shapes.ring_starts, append=len(points))
        rings: Any = shapely.linearrings(
            points, indices=np.repeat(np.arange(len(lengths)), lengths)
        )
        of_polygon = np.diff(shapes.polygon_starts, append=len(rings))
        polygons = shapely.polygons(rings, indices=np.repeat(np.arange(len(shapes)), of_polygon))
        oriented: Any = shapely.orient_polygons(polygons)
        geometries.append(oriented)
        columns.append(_plain(shapes.columns))
    if not columns:
        return np.zeros(0, object), {}
    return np.concatenate(geometries), {
        name: np.concatenate([part[name] for part in columns]) for name in columns[0]
    }


def _plain(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One number or text a column: a box's four sides have one each."""
    plain = {name: values for name, values in columns.items() if values.ndim == 1}
    if "pixels" in columns:
        plain |= dict(zip(("x_min", "y_min", "x_max", "y_max"), columns["pixels"].T, strict=True))
    return plain


def _write_ogr(
    geometries: np.ndarray, columns: dict[str, np.ndarray], place: Place, output: Path, layer: str
) -> None:
    import pyogrio
    import shapely

    suffix = output.suffix.lower()
    names = [_SHORT.get(name, name) if suffix == ".shp" else name for name in columns]
    note = f"The scene: {place.note}." if place.note else None

    def write(path: Path) -> None:
        pyogrio.raw.write(
            os.fspath(path),
            geometry=shapely.to_wkb(geometries),
            field_data=list(columns.values()),
            fields=names,
            crs=place.crs.to_wkt() if place.crs is not None else None,
            driver=_OGR[suffix],
            geometry_type="Polygon",
            layer=layer if suffix == ".gpkg" else output.stem if suffix == ".fgb" else None,
            encoding="UTF-8" if suffix == ".shp" else None,
            layer_metadata={"note": note} if note and suffix == ".gpkg" else None,
        )

    written_by_ogr(output, write)


def written_by_ogr(output: Path, write: Callable[[Path], None]) -> None:
    """Writes a file, or the several of a Shapefile, beside and renames it, the named one last.

    Args:
        output: The file.
        write: Calls pyogrio for the path that it is given.

    Raises:
        UserError: What pyogrio cannot write, and why.
    """
    import pyogrio

    # A journal guards a file that readers share, and would stay after a kill: nobody sees this one.
    pyogrio.set_gdal_config_options({"OGR_SQLITE_JOURNAL": "OFF"})
    # Two writers' files must not be mixed: of a Shapefile each is renamed by itself.
    shapefile = output.suffix.lower() == ".shp"
    if shapefile:
        output.parent.mkdir(parents=True, exist_ok=True)
    one_by_one = alone(output.parent) if shapefile else nullcontext()
    with one_by_one, written(output) as partial:
        try:
            write(partial)
            if not _is_whole(partial):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(output))
            for part in _others(partial):
                with written(output.with_suffix(part.suffix)) as place:
                    os.replace(part, place)
        except (RuntimeError, ValueError) as error:  # of pyogrio, whose have these two bases
            if _is_full(partial):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(output)) from error
            raise UserError(f"{output} cannot be written ({error}): choose another.") from error
        finally:
            for part in _others(partial):
                part.unlink()


def _is_full(file: Path) -> bool:
    """Whether a file that GDAL failed at could not grow, which drivers tell each in their words."""
    try:
        with open(file, "ab", buffering=0) as end:
            return end.write(bytes(_MORE)) < _MORE
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _is_whole(path: Path) -> bool:
    """Whether all of a file reached the disk, of the formats that GDAL cuts off without a word."""
    suffix = path.suffix.lower()
    if suffix == ".geojson":
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 100))
            return file.read().rstrip().endswith(b"]\n}")
    if suffix != ".shp":
        return True
    # By ESRI's description: lengths in 16-bit words, and in dBASE's header rows and their bytes.
    for part in (path, path.with_suffix(".shx")):
        content = part.read_bytes()[:100]
        if len(content) < 100 or part.stat().st_size != 2 * int.from_bytes(content[24:28], "big"):
            return False
    table = path.with_suffix(".dbf")
    start = table.read_bytes()[:12]
    rows, header, width = (
        int.from_bytes(start[a:b], "little") for a, b in ((4, 8), (8, 10), (10, 12))
    )
    return len(start) == 12 and table.stat().st_size >= header + rows * width


def _others(shapefile: Path) -> list[Path]:
    """The files that GDAL has written beside one of that name."""
    beside = shapefile.parent.glob(f"{glob.escape(shapefile.stem)}.*")
    return sorted(path for path in beside if path != shapefile)
