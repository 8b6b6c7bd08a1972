"""What a table says, as files: CSV, vectors with the tiles' footprints, and a sheet of pictures."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ..data.geoparquet import columns_of_ours, write_geoparquet
from ..data.vectors import columns_of
from ..errors import UserError
from ..files import written
from ..plots import sheet
from ..predict.vector_files import written_by_ogr
from .index import Index
from .labels import holds_labels

# Suffix -> GDAL's driver; of Parquet pyogrio's wheels have none.
VECTORS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".geojson": "GeoJSON",
    ".parquet": None,
    ".shp": "ESRI Shapefile",
}
_TILE = "tile"
_CASE_BLIND = (".gpkg", ".shp")  # small and capital letters are one in names of their columns
GEOMETRY = "geometry"
# What an image that was drawn here says of that, by PNG's own key for it.
_SOFTWARE, _SHEET = "Software", "rs_models contact sheet"
# Pixels between the pictures of a sheet and around them, and pictures in a line.
_GAP, _COLUMNS = 4, 10


def write_rows(
    output: str | os.PathLike[str],
    index: Index,
    rows: Sequence[int] | np.ndarray,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
) -> Path:
    """Writes some tiles of a table with what was found out about them.

    Args:
        output: A `.csv`, or one of `VECTORS` where the table has the tiles' footprints.
        index: The table.
        rows: Rows of the table, in the order to write.
        columns: Name -> values, one a row; they stand behind `tile`. In GeoPackages and Shapefiles,
            where small and capital letters are one, a second such name gets a number.

    Returns:
        The file.

    Raises:
        UserError: See `check_output`.
    """
    output = Path(output)
    suffix = output.suffix.lower()
    names = [index.names[row] for row in rows]
    check_output(output, index)
    if suffix == ".csv":
        with written(output) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([_TILE, *columns])
            writer.writerows(zip(names, *columns.values(), strict=True))
        return output
    fields = {_TILE: names, **columns}
    shapes = np.array(index.table[GEOMETRY].take(np.asarray(rows, np.int64)).to_pylist(), object)
    driver = VECTORS[suffix]
    if driver is None:
        write_geoparquet(output, shapes, fields, crs_of(index))
        return output
    from pyogrio.raw import write

    written_by_ogr(
        output,
        lambda partial: write(
            str(partial),
            layer=re.sub(r"\W+", "_", output.stem),
            geometry=shapes,
            field_data=[_plain(values) for values in fields.values()],
            fields=_told_apart(fields) if suffix in _CASE_BLIND else list(fields),
            geometry_type="Polygon",
            crs=crs_of(index),
            driver=driver,
        ),
    )
    return output


def _told_apart(names: Iterable[str]) -> list[str]:
    """The names, with a number behind one that an earlier one equals but for capital letters."""
    taken: set[str] = set()
    found = []
    for name in names:
        free = (f"{name}_{number}" if number > 1 else name for number in count(1))
        found.append(next(one for one in free if one.lower() not in taken))
        taken.add(found[-1].lower())
    return found


def writes_vectors(index: Index) -> bool:
    """Whether what is said of a table's tiles may be written as a GeoPackage."""
    return GEOMETRY in index.table.column_names and find_spec("pyogrio") is not None


def check_output(output: str | os.PathLike[str], index: Index) -> None:
    """Refuses a place that `write_rows` could not, or should not, write to.

    Args:
        output: The file.
        index: The table whose tiles it would hold.

    Raises:
        UserError: Another suffix, no footprints, or an output that holds labels or is the table's.
    """
    output = Path(output)
    suffix = output.suffix.lower()
    if index.folder is not None and index.folder.resolve() in output.resolve().parents:
        raise UserError(f"{output} lies in the table itself: choose a place outside of it.")
    if holds_labels(output):
        raise UserError(f"{output} holds labels, which are never overwritten: name another file.")
    if suffix == ".csv":
        return
    if suffix not in VECTORS:
        raise UserError(f"{output}: the name must end in .csv or {', '.join(VECTORS)}.")
    if GEOMETRY not in index.table.column_names:
        raise UserError(
            f"{output}: the tiles of this table have no place on the ground. Write a .csv, or "
            "embed tiles that are georeferenced."
        )
    if VECTORS[suffix] and find_spec("pyogrio") is None:
        raise UserError(f"{output} needs pyogrio: pip install 'rs-models[geo]'.")
    if os.path.lexists(output) and not _is_ours(output):
        raise UserError(f"{output} exists and holds no tiles of ours: name another file.")


def _is_ours(path: Path) -> bool:
    """Whether a vector file was written by `write_rows`, which names its first column `tile`."""
    if path.suffix.lower() == ".parquet":
        return (columns_of_ours(path) or [])[:1] == [_TILE]
    try:
        return columns_of(str(path))[0][:1] == [_TILE]
    except UserError:
        return False


def check_sheet(output: str | os.PathLike[str]) -> None:
    """Refuses a place for a sheet where another picture, or anything else, lies.

    Raises:
        UserError: No PNG by its name, or a file that is no sheet of ours.
    """
    from PIL import Image

    output = Path(output)
    if output.suffix.lower() != ".png":
        raise UserError(f"{output} holds a sheet of pictures: its name must end in .png.")
    if not os.path.lexists(output):
        return
    try:
        with Image.open(output, formats=["PNG"]) as picture:
            ours = picture.info.get(_SOFTWARE) == _SHEET
    except (OSError, ValueError, SyntaxError):  # a folder, a broken link, or no picture
        ours = False
    if not ours:
        raise UserError(f"{output} exists and is no sheet of ours: name another file.")


def crs_of(index: Index) -> str:
    """Coordinate system of the table's footprints, as WKT, by its GeoParquet record."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    record = (index.table.schema.metadata or {}).get(b"geo")
    try:
        column = json.loads(record)["columns"][GEOMETRY] if record else {}
        told = column.get("crs")
        # GeoParquet 1.1: no entry is longitude and latitude.
        return (CRS.from_json_dict(told) if isinstance(told, dict) else CRS("OGC:CRS84")).to_wkt()
    except (ValueError, KeyError, TypeError, AttributeError, CRSError) as error:
        raise UserError(
            f"The table {index.folder} is damaged (what it says of its geometry): write a .csv, or "
            "embed the images again."
        ) from error


def write_sheet(
    output: str | os.PathLike[str], pictures: Sequence[np.ndarray], *, side: int = 96
) -> Path:
    """Writes a contact sheet, line by line in the order given.

    Args:
        output: PNG file; an older sheet is replaced.
        pictures: (H, W, 3) uint8 each, of any size.
        side: Pixels that each is brought to.

    Raises:
        UserError: No pictures, or see `check_sheet`.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    check_sheet(output)

    if not pictures:
        raise UserError(f"{output} is not written: there is no tile to show.")
    squares = [
        np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
        for picture in pictures
    ]
    page = sheet(squares, min(_COLUMNS, len(squares)), gap=_GAP, rim=_GAP)
    with written(output) as partial:
        note = PngInfo()
        note.add_text(_SOFTWARE, _SHEET)
        Image.fromarray(page).save(partial, format="PNG", pnginfo=note)
    return Path(output)


def _plain(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind in "US" else array
