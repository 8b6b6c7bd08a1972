"""What `collect` is given by others: catalogues, guides and scenes of every kind."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rs_models.data import load
from rs_models.data.collect import CollectConfig, collect
from rs_models.data.collect.addresses import resolved
from rs_models.data.collect.guide import open_guide
from rs_models.data.collect.scenes import find_scenes
from rs_models.data.collect.stac import Search
from rs_models.errors import UserError

SERVER = "https://93.184.215.14/stac/catalog.json"


def scene(path, pixels=None, side=0.5, crs="EPSG:32632", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        rng = np.random.default_rng(0)
        pixels = rng.integers(20, 200, (3, 128, 128), dtype=np.uint8)
    profile = {"height": pixels.shape[1], "width": pixels.shape[2], "count": pixels.shape[0]}
    place = from_origin(500_000, 5_400_000, side, side)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=pixels.dtype, crs=crs, transform=place, **profile, **more
    ) as raster:
        raster.write(pixels)
    return path


def run(folder, output, **settings):
    settings = {"tile": 32, "n": 4, "duplicates": True, **settings}
    return collect(
        CollectConfig(scenes=str(folder), output=str(output), **settings), progress=False
    )


# Catalogues


def test_a_fetched_catalogue_leads_to_addresses_alone():
    assert resolved(SERVER, "/item.json") == "https://93.184.215.14/item.json"
    assert resolved(SERVER, "../a.tif") == "https://93.184.215.14/a.tif"
    assert resolved(SERVER, "s3://bucket/a.tif") == "s3://bucket/a.tif"


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "/vsicurl/http://127.0.0.1/a.tif",
        "http://127.0.0.1:8000/a.tif",
        "http://localhost/a.tif",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.tif",
        "//10.0.0.1/a.tif",
        "http://2130706433/a.tif",
        "http://0x7f.1/a.tif",
        "http://user:word@127.0.0.1/a.tif",
        "http://[::ffff:127.0.0.1]/a.tif",
        "http://[::ffff:a9fe:a9fe]/a.tif",
        "http://[64:ff9b::a9fe:a9fe]/a.tif",
        "http://[2002:7f00:1::]/a.tif",
        "http://[fe80::1]/a.tif",
        "http://0.0.0.0/a.tif",
        "http://224.0.0.1/a.tif",
        "FILE:///etc/passwd",
        "http:///a.tif",
        "http://127.0.0.%31/a.tif",
        "http://[fe80::1%25eth0]/a.tif",
        "data:text/plain,x",
        "ftp://example.org/a.tif",
    ],
)
def test_a_fetched_catalogue_names_no_file_and_no_private_address(href):
    with pytest.raises(UserError, match=r"a catalogue that was fetched may"):
        resolved(SERVER, href)


@pytest.mark.parametrize("href", ["http://[::1/a.tif", "http://[/", "a\0b"])
def test_what_is_no_address_is_told(href):
    with pytest.raises(UserError, match="names"):
        resolved(SERVER, href)


def test_links_of_a_local_catalogue(tmp_path):
    base = str(tmp_path / "catalog.json")
    assert resolved(base, "./a.tif") == str(tmp_path / "a.tif")
    assert resolved(base, "https://example.org/a.tif") == "https://example.org/a.tif"
    with pytest.raises(UserError, match="download it first"):
        resolved(base, "ftp://example.org/a.tif")


def item(assets, **more):
    return {"type": "Feature", "id": "i", "properties": {}, "assets": assets, **more}


@pytest.mark.parametrize(
    "content",
    [
        [],
        "text",
        {"type": "FeatureCollection", "features": [None]},
        {"type": "FeatureCollection", "features": None},
        {"type": "Catalog", "links": None},
        {"type": "Catalog", "links": [None, {"rel": "item"}, {"rel": "item", "href": 3}]},
        item(None),
        item([]),
        item({"visual": None}),
        item({"visual": {}}),
        item({"visual": {"href": None}}),
        item({"a": {"href": "a.tif"}, "b": {"href": "b.tif"}}, properties=None),
    ],
)
def test_malformed_catalogues_end_in_a_sentence(tmp_path, content):
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(UserError):
        find_scenes(str(tmp_path / "s.json"))


def test_a_search_needs_an_api(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"type": "Catalog", "links": []}))
    with pytest.raises(UserError, match="no STAC API"):
        find_scenes(str(tmp_path / "s.json"), search=Search(dates="2024-01-01"))


def test_assets_of_one_band_each_are_put_together(tmp_path):
    pixels = np.random.default_rng(1).integers(300, 3000, (3, 64, 64)).astype(np.uint16)
    assets = {}
    for number, (key, band) in enumerate((("B04", "red"), ("B03", "green"), ("B02", "blue"))):
        scene(tmp_path / "s" / f"{key}.tif", pixels[number : number + 1])
        assets[key] = {"href": f"s/{key}.tif", "eo:bands": [{"common_name": band}]}
    (tmp_path / "i.json").write_text(json.dumps(item(assets)))
    for asset in ("B04,B03,B02", "red,green,blue"):
        output = tmp_path / asset
        done = run(tmp_path / "i.json", output, asset=asset)
        assert done.tiles == 4
        row = load(output, bands="rgb")[0]
        at = np.s_[:, row["row"] : row["row"] + 32, row["column"] : row["column"] + 32]
        np.testing.assert_array_equal(np.asarray(row["image"]), pixels[at].transpose(1, 2, 0))
    with pytest.raises(UserError, match="no asset 'nir': it has B04, B03, B02"):
        find_scenes(str(tmp_path / "i.json"), asset="nir")


def numbered_item(keys, name="i", **properties):
    assets = {key: {"href": f"s/{key}.tif"} for key in keys}
    return item(assets, id=name) | {"properties": properties}


@pytest.mark.parametrize(
    ("name", "platform", "asset", "keys"),
    [
        ("i", "landsat-7", "red,green,blue", ["SR_B3", "SR_B2", "SR_B1"]),
        ("LC09_L2SP_201024_20240501", None, "red,nir", ["SR_B4", "SR_B5"]),
        ("S2A_31UFT_20240501_0_L2A", None, "red,nir", ["SR_B4", "SR_B8"]),
        ("i", "landsat-5", "B3,B04", ["SR_B3", "SR_B4"]),
    ],
)
def test_bands_by_number_are_those_of_the_items_sensor(tmp_path, name, platform, asset, keys):
    keys_of_all = [f"SR_B{number}" for number in (1, 2, 3, 4, 5, 7, 8)]
    platform = {"platform": platform} if platform else {}
    (tmp_path / "i.json").write_text(json.dumps(numbered_item(keys_of_all, name, **platform)))
    (found,) = find_scenes(str(tmp_path / "i.json"), asset=asset)
    assert [Path(part).stem for part in found.parts] == keys


def test_a_band_number_without_a_sensor_is_asked_about(tmp_path):
    assets = {
        key: {"href": f"s/{key}.tif", "eo:bands": [{"common_name": key}]}
        for key in ("red", "green", "blue")
    }
    (tmp_path / "i.json").write_text(json.dumps(item(assets)))
    with pytest.raises(UserError, match=r"does not say which sensor .* 'B3'"):
        find_scenes(str(tmp_path / "i.json"), asset="B3,B2,B1")
    landsat = item(assets) | {"properties": {"platform": "landsat-7"}}
    (tmp_path / "i.json").write_text(json.dumps(landsat))
    (found,) = find_scenes(str(tmp_path / "i.json"), asset="B3,B2,B1")
    assert [Path(part).stem for part in found.parts] == ["red", "green", "blue"]


# Scenes


@pytest.mark.parametrize(
    "second, settings, said",
    [
        ({"pixels": np.ones((3, 128, 128), np.uint16)}, {}, "3 bands of uint16"),
        ({"pixels": np.ones((4, 128, 128), np.uint8)}, {}, "4 bands of uint8"),
        ({"side": 10.0}, {}, "pixels of 10 m"),
        ({}, {"bands": [1, 9]}, r"bands=\[1, 9\] are not all in the scene"),
        ({"pixels": np.ones((3, 128, 128), np.float32)}, {}, "float32 pixels"),
        ({"crs": None}, {}, "does not say where it lies"),
    ],
)
def test_scenes_that_are_not_alike_are_refused_before_anything_is_written(
    tmp_path, second, settings, said
):
    scene(tmp_path / "s" / "a.tif")
    scene(tmp_path / "s" / "b.tif", **second)
    with pytest.raises(UserError, match=said):
        run(tmp_path / "s", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_other_resolutions_where_they_are_wanted(tmp_path):
    scene(tmp_path / "s" / "a.tif")
    scene(tmp_path / "s" / "b.tif", side=10.0)
    assert run(tmp_path / "s", tmp_path / "out", any_resolution=True).tiles == 4


def test_a_text_that_calls_itself_tif_is_no_scene(tmp_path):
    scene(tmp_path / "a.tif")
    text = (
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd</SourceFilename>'
        "</VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "b.tif").write_text(text)
    with pytest.raises(UserError, match=r"b\.tif"):
        run(tmp_path, tmp_path / "out")


def _collect(folder, output, started, told):
    started.wait()
    try:
        run(folder, output, n=16, rate=8.0)
        told.put("done")
    except UserError as error:
        told.put(str(error))


def test_of_two_collections_into_one_folder_one_works(tmp_path):
    scene(tmp_path / "s" / "a.tif")
    context = multiprocessing.get_context("fork")
    started, told = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=_collect, args=(tmp_path / "s", tmp_path / "out", started, told))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    answers = sorted(told.get(timeout=60) for _ in both)
    for process in both:
        process.join()
    assert "is being worked on" in answers[0] and answers[1] == "done"
    assert len(load(tmp_path / "out")) == 16


# Guides


def guide(path, features, **more):
    listed = [{"type": "Feature", "properties": p, "geometry": g} for p, g in features]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed, **more}), "utf-8")
    return str(path)


SQUARE = {"type": "Polygon", "coordinates": [[[9, 48], [9.1, 48], [9.1, 48.1], [9, 48.1], [9, 48]]]}


def test_guides_as_tools_write_them(tmp_path, caplog):
    features = [
        ({"class": 1}, SQUARE),
        ({"class": 2.0}, {"type": "GeometryCollection", "geometries": [SQUARE]}),
        ({"class": "3"}, {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]}),
        ({"class": 1}, None),
        ({"class": 1}, {"type": "Polygon", "coordinates": []}),
        ({"class": 1}, {"type": "Point", "coordinates": [9, 48]}),
        (None, SQUARE),
    ]
    path = guide(tmp_path / "g.geojson", features, crs=None)
    assert open_guide(path, None, "class").names == ["1", "2", "3"]
    assert "4 features" in caplog.text
    named = open_guide(path, {1: "forest", "2": "water"}, "class")
    assert named.names == ["forest", "water"]
    (tmp_path / "bom.geojson").write_bytes(b"\xef\xbb\xbf" + open(path, "rb").read())
    assert open_guide(str(tmp_path / "bom.geojson"), None, "class").names == ["1", "2", "3"]


@pytest.mark.parametrize("crs", ["EPSG:nope", {"properties": {"name": "x"}}, 7])
def test_a_guide_in_an_unknown_system(tmp_path, crs):
    with pytest.raises(UserError, match="coordinate system"):
        open_guide(guide(tmp_path / "g.geojson", [({"class": 1}, SQUARE)], crs=crs), None, "class")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"features": 3}', '{"features": [3]}', "null"])
def test_malformed_geojson(tmp_path, text):
    (tmp_path / "g.geojson").write_text(text)
    with pytest.raises(UserError, match="no GeoJSON"):
        open_guide(str(tmp_path / "g.geojson"), None, "class")


def test_a_geopackage_guide_in_its_own_system(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    box = shapely.box(500_000, 5_399_968, 500_064, 5_400_000)
    pyogrio.raw.write(
        str(tmp_path / "g.gpkg"),
        np.array([shapely.to_wkb(box)], object),
        [np.array(["roof"], object)],
        ["kind"],
        geometry_type="Polygon",
        crs="EPSG:32632",
    )
    found = open_guide(str(tmp_path / "g.gpkg"), None, "kind")
    place = from_origin(500_000, 5_400_000, 1, 1)
    assert (found.classes(place, "EPSG:32632", 32, 64) == 0).all()


def test_a_geopackage_whose_features_are_a_query_is_refused(tmp_path):
    """A query without an end was read for ever."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    path = tmp_path / "g.gpkg"
    shape = np.array([shapely.to_wkb(shapely.box(9, 48, 10, 49))], object)
    fields = {"geometry_type": "Polygon", "crs": "EPSG:4326", "fields": ["kind"]}
    pyogrio.raw.write(path, geometry=shape, field_data=[np.array(["a"], object)], **fields)
    assert open_guide(str(path), None, "kind").names == ["a"]
    endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)"
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"CREATE VIEW v AS {endless} SELECT x AS fid, geom, kind FROM r JOIN g")
        file.execute("UPDATE gpkg_contents SET table_name = 'V'")
        file.commit()
    with pytest.raises(UserError, match="a view and no table"):
        open_guide(str(path), None, "kind")


def test_an_alpha_band_of_a_guide_says_where_it_reaches(tmp_path):
    pixels = np.stack([np.full((64, 64), 7, np.uint8), np.full((64, 64), 255, np.uint8)])
    pixels[1, :, 32:] = 0
    path = scene(tmp_path / "g.tif", pixels, side=1.0, ALPHA="YES")
    found = open_guide(str(path), {7: "field"}, "class")
    classes = found.classes(from_origin(500_000, 5_400_000, 1, 1), "EPSG:32632", 64, 64)
    assert (classes[:, :32] == 0).all() and (classes[:, 32:] == -1).all()
