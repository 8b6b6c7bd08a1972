"""Polygons and boxes: right areas, right place, right winding."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from rs_models.predict.vector_files import is_ours
from rs_models.predict.vectors import write_polygons
from tests.conftest import ROOT
from tests.predict.helpers import UTM, write

NAMES = ["ground", "road", "house"]


@pytest.fixture
def classes():
    """A house with a yard on ground, and what holds no data."""
    found = np.zeros((60, 80), np.uint8)
    found[10:30, 10:40] = 2
    found[15:20, 20:30] = 0
    found[40:42, 0:80] = 1
    found[50:, 70:] = 255
    return found


def polygons(path, folder, **settings):
    out = folder / "out.geojson"
    count = write_polygons(path, out, NAMES, **settings)
    content = json.loads(out.read_text())
    assert count == len(content["features"])
    return content


def ring_area(ring):
    x, y = np.asarray(ring)[:, 0], np.asarray(ring)[:, 1]
    x, y = x - x[0], y - y[0]
    return 0.5 * float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def test_areas_are_those_of_the_pixels(tmp_path, classes):
    path = write(
        tmp_path / "c.tif", classes[None], nodata=255
    )  # 0.25 of UTM's square metres a pixel
    features = polygons(path, tmp_path)["features"]
    by_class = {}
    for feature in features:
        properties = feature["properties"]
        by_class[properties["class"]] = by_class.get(properties["class"], 0) + properties["area_m2"]
    for number, name in enumerate(NAMES):
        assert by_class[name] == pytest.approx(
            0.25 / 0.9996**2 * (classes == number).sum(), rel=1e-4
        )
    assert len(features) == 5  # two grounds beside the road, the yard, road, house


def test_polygons_lie_in_longitude_and_latitude_wound_as_the_format_wants(tmp_path, classes):
    path = write(tmp_path / "c.tif", classes[None], nodata=255)
    features = polygons(path, tmp_path)["features"]
    west, south, east, north = transform_bounds(UTM, "EPSG:4326", 500_000, 4_999_970, 500_040, 5e6)
    for feature in features:
        outer, *holes = feature["geometry"]["coordinates"]
        lon, lat = np.asarray(outer).T
        assert west - 1e-7 <= lon.min() and lon.max() <= east + 1e-7
        assert south - 1e-7 <= lat.min() and lat.max() <= north + 1e-7
        assert outer[0] == outer[-1] and ring_area(outer) > 0
        assert all(ring_area(hole) < 0 for hole in holes)
    house = next(f for f in features if f["properties"]["class"] == "house")
    assert len(house["geometry"]["coordinates"]) == 2


@pytest.mark.parametrize(("crs", "size"), [("EPSG:4326", 1e-5), ("EPSG:3857", 1.0)])
def test_areas_are_square_metres_on_the_ground_in_any_system(tmp_path, classes, crs, size):
    """At 45 degrees north a degree of longitude, and Mercator's metre, are short."""
    from rasterio.warp import transform

    x, y = transform("EPSG:4326", crs, [10.0], [45.0])
    place = {"crs": crs, "transform": from_origin(x[0], y[0], size, size)}
    path = write(tmp_path / "c.tif", classes[None], nodata=255, **place)
    features = polygons(path, tmp_path)["features"]
    house = next(f for f in features if f["properties"]["class"] == "house")["properties"]
    # Metres a degree on the WGS 84 ellipsoid at 45 degrees: 111,132 by 78,847; Mercator's scale
    # there is 1 / cos(45 degrees), by the ellipsoid a little less.
    pixel = 1e-10 * 111_132 * 78_847 if crs == "EPSG:4326" else 0.5
    assert house["area_m2"] == pytest.approx(550 * pixel, rel=5e-3)


def test_small_polygons_are_left_out(tmp_path, classes):
    path = write(tmp_path / "c.tif", classes[None], nodata=255)
    found = polygons(path, tmp_path, min_area=30)["features"]
    assert {f["properties"]["class"] for f in found} == {"ground", "road", "house"}
    assert len(found) == 4  # without the yard of 12.5 square metres
    assert polygons(path, tmp_path, min_area=1e9)["features"] == []


def test_a_scene_without_a_place_on_earth_says_so(tmp_path, classes):
    path = write(
        tmp_path / "c.tif", classes[None], crs=None, transform=from_origin(0, 60, 1, 1), nodata=255
    )
    content = polygons(path, tmp_path)
    assert "no CRS" in content["note"]
    house = next(f for f in content["features"] if f["properties"]["class"] == "house")
    assert house["properties"]["area"] == 550 and "area_m2" not in house["properties"]
    assert np.asarray(house["geometry"]["coordinates"][0]).max() == 50.0


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp", ".parquet"])
def test_other_formats_hold_the_same_in_the_scenes_own_coordinates(tmp_path, classes, suffix):
    import shapely

    path = write(tmp_path / "c.tif", classes[None], nodata=255)
    wanted = polygons(path, tmp_path)["features"]
    out = tmp_path / f"o{suffix}"
    assert write_polygons(path, out, ["Boden", "Straße", "house"]) == len(wanted) == 5
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(out)
        about = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
        assert about["encoding"] == "WKB" and about["crs"]["id"]["code"] == 32631
        columns = {name: table[name].to_numpy() for name in table.column_names}
        geometries = shapely.from_wkb(columns.pop("geometry"))
    else:
        import pyogrio

        meta, _, wkb, values = pyogrio.raw.read(out)
        assert meta["crs"] == "EPSG:32631"
        columns, geometries = dict(zip(meta["fields"], values, strict=True)), shapely.from_wkb(wkb)
    order = np.argsort(columns["area_m2"])
    areas = sorted(feature["properties"]["area_m2"] for feature in wanted)
    np.testing.assert_allclose(columns["area_m2"][order], areas)
    assert set(columns["class"]) == {"Boden", "Straße", "house"}
    assert set(columns["class_no" if suffix == ".shp" else "class_number"]) == {0, 1, 2}
    assert shapely.is_valid(geometries).all()
    np.testing.assert_allclose(shapely.area(geometries).sum(), 0.25 * (classes != 255).sum())
    assert shapely.total_bounds(geometries).tolist() == [500_000, 5e6 - 30, 500_040, 5e6]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    assert is_ours(out)
    if suffix in (".gpkg", ".fgb"):  # which name their layers: after the file and no process
        assert pyogrio.list_layers(out)[0, 0] in ("polygons", "o")


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".shp", ".parquet"])
def test_what_a_person_drew_is_not_ours(tmp_path, suffix):
    import pyogrio
    import shapely

    file = tmp_path / f"labels{suffix}"
    drawn = np.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))], object)
    fields = {"geometry_type": "Polygon", "crs": "EPSG:4326", "fields": ["class"]}
    if suffix == ".parquet":
        file.write_bytes(b"PAR1 and no more")
    else:
        pyogrio.raw.write(file, geometry=drawn, field_data=[np.array(["a"], object)], **fields)
    assert not is_ours(file)


def test_no_polygons_and_other_suffixes(tmp_path, classes):
    from rs_models.errors import UserError

    path = write(tmp_path / "c.tif", classes[None], nodata=255)
    for suffix in (".gpkg", ".fgb", ".parquet", ".shp"):
        assert write_polygons(path, tmp_path / f"o{suffix}", NAMES, min_area=1e9) == 0
        assert (tmp_path / f"o{suffix}").exists()
    with pytest.raises(UserError, match=r"should end in one of \.geojson"):
        write_polygons(path, tmp_path / "o.kml", NAMES)


_NO_ROOM = r"There is no room left for {file}: free some, or choose another disk; run it again\."


@pytest.mark.parametrize(
    ("suffix", "boxes", "room"),
    [
        # GDAL cuts off without a word what it writes when it closes, and tells the rest.
        (".shp", 20, 1000),
        (".shp", 1000, 5000),
        (".geojson", 20, 1000),
        (".geojson", 1000, 5000),
        (".gpkg", 20, 1000),
        (".gpkg", 1000, 110_000),
        (".fgb", 20, 1000),
    ],
)
def test_a_disk_that_is_full_is_told(tmp_path, suffix, boxes, room):
    file = tmp_path / f"a{suffix}"
    done = _write_boxes(file, boxes, room)
    assert done.returncode == 2
    told = _NO_ROOM.replace("{file}", re.escape(str(file)))
    assert re.fullmatch(f"error: {told}\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
    assert _write_boxes(file, boxes, 10**6).returncode == 0
    assert _rows(file) == [*range(boxes)]


@pytest.mark.parametrize("suffix", [".shp", ".gpkg"])
def test_of_two_who_write_one_file_at_once_each_ends_well_and_one_is_kept(tmp_path, suffix):
    """A Shapefile is four files under one stem: those of two writers were mixed."""
    file = tmp_path / f"a{suffix}"
    counts = (300, 700)
    begun = [_write_boxes(file, boxes, 10**8, again=8, wait=False) for boxes in counts]
    for process in begun:
        _, told = process.communicate(timeout=100)
        assert (process.returncode, told) == (0, "")
    rows = _rows(file)
    assert rows in [[*range(boxes)] for boxes in counts]
    assert {path.stem for path in tmp_path.iterdir()} == {"a"}


_PROGRAM = """
import resource, sys
import numpy as np, pyogrio, shapely
from pathlib import Path
from rs_models.predict.vector_files import written_by_ogr
from rs_models.settings import run_script
file, count, room, again = sys.argv[1], *map(int, sys.argv[2:])
boxes = np.array([shapely.to_wkb(shapely.box(i, 0, i + 1, 1)) for i in range(count)], object)
def write(path):
    pyogrio.raw.write(str(path), geometry=boxes, crs="EPSG:4326", geometry_type="Polygon",
        field_data=[np.arange(count)], fields=["row"], layer="a")
def main(argv):
    for _ in range(again):
        written_by_ogr(Path(file), write)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
sys.exit(run_script(main, []))
"""


def _write_boxes(file, boxes, room, *, again=1, wait=True):
    """A process that writes a file of so many boxes where no file may have more bytes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, file, str(boxes), str(room), str(again)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return process
    _, told = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, None, told)


def _rows(file):
    """The attribute of each shape, where each is whole and where it should be."""
    import pyogrio
    import shapely

    _, _, shapes, (rows,) = pyogrio.raw.read(file)
    assert [shapely.from_wkb(shape).bounds[0] for shape in shapes] == rows.tolist()
    return sorted(rows.tolist())
