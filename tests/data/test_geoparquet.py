"""GeoParquet: what we write is read again, what others write is read, what is none is told."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS

from rs_models.data.check import check
from rs_models.data.geoparquet import read_geoparquet, write_geoparquet
from rs_models.data.vectors import read_features
from rs_models.errors import UserError
from tests.data import make

SQUARES = [shapely.box(500_000 + i, 5_000_000, 500_001 + i, 5_000_001) for i in range(3)]
SQUARE = shapely.to_wkb(SQUARES[0])
UTM = CRS.from_epsg(32631)


def others(path, *, name="geom", encoding="WKB", crs=..., wkb=None, **columns):
    """A file as other programs write it: their own column's name, a rectangle beside it."""
    about = {"encoding": encoding, "geometry_types": ["Polygon"]}
    if crs is not ...:
        about["crs"] = crs
    geo = {"version": "1.0.0", "primary_column": name, "columns": {name: about}}
    wkb = shapely.to_wkb(SQUARES).tolist() if wkb is None else wkb
    table = pa.table({**columns, name: wkb, "bbox": [{"xmin": 0.0}] * len(wkb)})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return str(path)


def test_what_is_written_is_read_again(tmp_path):
    columns = {"kind": ["a", "b", "ü"], "area": np.array([1.5, np.nan, 2.0])}
    path = tmp_path / "out.parquet"
    write_geoparquet(path, shapely.to_wkb(SQUARES), columns, UTM.to_wkt())
    features, crs = read_features(str(path))
    assert crs.to_epsg() == 32631
    assert [shapely.geometry.shape(shape) for shape, _ in features] == SQUARES
    assert [stated for _, stated in features] == [
        {"kind": "a", "area": 1.5},
        {"kind": "b", "area": None},
        {"kind": "ü", "area": 2.0},
    ]
    write_geoparquet(path, [], {"kind": np.array([], str)}, UTM.to_wkt())
    assert read_features(str(path))[0] == []


def test_files_of_others(tmp_path):
    path = others(tmp_path / "a.geoparquet", crs=UTM.to_json_dict(), kind=["a", None, "c"])
    features, crs = read_features(path)
    assert crs.to_epsg() == 32631
    assert [stated for _, stated in features] == [{"kind": "a"}, {"kind": None}, {"kind": "c"}]
    wkb = [shapely.to_wkb(shapely.box(1, 2, 3, 4)), None]
    features, crs = read_features(others(tmp_path / "b.parquet", wkb=wkb))
    assert crs.is_geographic and features[1] == (None, {})  # no entry: longitude and latitude
    assert shapely.geometry.shape(features[0][0]).bounds == (1, 2, 3, 4)
    unknown = others(tmp_path / "c.parquet", crs=None)
    assert read_geoparquet(unknown)[1] is None
    with pytest.raises(UserError, match="says that its coordinate system is not known"):
        read_features(unknown)


def plain(path):
    pq.write_table(pa.table({"x": [1]}), path)


def cut_off(path):
    others(path)
    path.write_bytes(path.read_bytes()[:-20])


def too_much(path):
    """Equal values cost next to nothing."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["x" * 1000])
    others(path, wkb=[SQUARE] * 5000, name_of_place=values)
    assert path.stat().st_size < 100_000


def nested(path):
    table = pa.table({"x": [1]})
    pq.write_table(table.replace_schema_metadata({"geo": "[" * 100_000}), path)


def no_text(path):
    wrong = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    others(path, wkb=[SQUARE], kind=wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (plain, "a table without geometries"),
        (cut_off, "cannot be read"),
        (too_much, r"more than 0\.\d+ GiB of values"),
        (nested, "cannot be read"),
        (no_text, "values that cannot be read .UnicodeDecodeError"),
        (
            lambda path: others(path, wkb=[SQUARE], at=pa.array([2**62], pa.timestamp("ms"))),
            "values that cannot be read",
        ),
        (lambda path: path.write_bytes(b"PAR1 and no more"), "cannot be read"),
        (lambda path: path.write_bytes(b"{}"), "no .parquet file, whatever its name says"),
        (lambda path: others(path, encoding="polygon"), "export it with WKB"),
        (lambda path: others(path, wkb=[b"\x01\x03"]), "cannot be read .GEOSException"),
        (lambda path: others(path, wkb=["text"]), "values that cannot be read"),
        (lambda path: others(path, crs={"type": "nonsense"}), "cannot be read .ValueError"),
        (lambda path: others(path, crs="EPSG:32631"), "values that cannot be read"),
        (lambda path: others(path), "lies at 500001, 5000000, which is no longitude and latitude"),
    ],
)
def test_what_is_none_is_told(tmp_path, monkeypatch, make, words):
    monkeypatch.setattr("rs_models.data.geoparquet._MOST", 2**20)
    path = tmp_path / "bad.parquet"
    make(path)
    with pytest.raises(UserError, match=words):
        read_features(str(path))


def test_check_tells_polygons_from_the_rows_of_a_data_set(tmp_path):
    polygons = others(tmp_path / "labels.parquet", crs=UTM.to_json_dict(), kind=["a", "b", "a"])
    said = check(polygons).text()
    assert "3: 3 Polygon" in said and "EPSG:32631" in said and "a 2, b 1" in said
    assert "nothing is amiss" in said
    # Tiles that lie on the ground have both: their images are looked at.
    tile = {"bytes": make.png(make.pixels(0)), "path": None}
    tiles = others(tmp_path / "tiles.parquet", image=[tile] * 3)
    said = check(tiles).text()
    assert "3 rows" in said and "features" not in said
    named = others(tmp_path / "named.parquet", picture=[tile] * 3)
    assert "3 rows" in check(named, columns={"image": "picture"}).text()
    # The name of an image is no image.
    source = others(tmp_path / "source.parquet", crs=UTM.to_json_dict(), image=["a.tif"] * 3)
    assert "a.tif 3" in check(source).text()
