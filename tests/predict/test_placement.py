"""Positions that a file has are kept: control points, rational polynomials, over 180 degrees."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from rasterio.warp import transform
from shapely.geometry import shape

from rs_models.predict import predict
from rs_models.predict.place import place_of
from rs_models.predict.vectors import write_polygons
from tests.predict.helpers import PixelModel, pixels, predictor, write

SMALL = {"tile": 32, "overlap": 8, "batch_size": 3, "progress": False}


def with_points(path, image, *, west=9.0, crs="EPSG:4326"):
    """An image placed by five control points: 1e-5 degrees a pixel from (west, 48) on."""
    count, height, width = image.shape
    corners = ((0, 0), (0, width), (height, 0), (height, width), (height / 2, width / 2))
    points = []
    for row, column in corners:
        longitude = (west + column * 1e-5 + 180) % 360 - 180
        points.append(GroundControlPoint(row, column, longitude, 48 - row * 1e-5, 0))
    layout = {"height": height, "width": width, "count": count, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **layout) as file:
        file.write(image)
        file.gcps = (points, CRS.from_user_input(crs))
    return path


@pytest.mark.parametrize("kind", ["GeoTIFF", "VRT"])
def test_control_points_are_kept_and_place_the_polygons(tmp_path, kind):
    scene = with_points(tmp_path / "scene.tif", pixels(60, 80))
    if kind == "VRT":
        rasterio.shutil.copy(scene, tmp_path / "scene.vrt", driver="VRT")
        scene = tmp_path / "scene.vrt"
    done = predict(scene, predictor(), tmp_path / "map.tif", polygons=True, **SMALL)
    assert "5 ground control points" in done.notes[0]
    with rasterio.open(tmp_path / "map.tif") as file:
        points, crs = file.gcps
        assert len(points) == 5 and crs.to_epsg() == 4326
        assert (points[3].row, points[3].col) == (60, 80)
    content = json.loads((tmp_path / "map.geojson").read_text())
    assert "ground control points" in content["note"]
    bounds = np.asarray([shape(f["geometry"]).bounds for f in content["features"]])
    wanted = (9, 48 - 60e-5, 9 + 80e-5, 48)
    edges = (*bounds[:, :2].min(0), *bounds[:, 2:].max(0))
    np.testing.assert_allclose(edges, wanted, atol=1e-7)
    area = sum(feature["properties"]["area_m2"] for feature in content["features"])
    # Metres a degree on the ellipsoid at 48 degrees: 111,200 by 74,629.
    assert area == pytest.approx(60 * 80 * 1e-10 * 111_200 * 74_629, rel=1e-3)


def test_control_points_on_both_sides_of_180_degrees(tmp_path):
    scene = with_points(tmp_path / "scene.tif", pixels(60, 80), west=180 - 40e-5)
    with rasterio.open(scene) as raster:
        longitude, latitude = place_of(raster).lonlat(np.array([0.0, 80]), np.array([30.0, 30]))
    np.testing.assert_allclose(longitude % 360, [180 - 40e-5, 180 + 40e-5], atol=1e-7)
    np.testing.assert_allclose(latitude, 48 - 30e-5, atol=1e-7)


def plain_rpc(height, width):
    """Polynomials that are linear: 1e-5 degrees a pixel around (9, 48)."""
    one, line, sample = [1.0, *[0.0] * 19], [0.0] * 20, [0.0] * 20
    line[2], sample[1] = -1.0, 1.0  # L = -latitude, S = longitude, both normalised
    return RPC(
        height_off=120.0,
        height_scale=500.0,
        lat_off=48.0,
        lat_scale=height / 2 * 1e-5,
        line_den_coeff=one,
        line_num_coeff=line,
        line_off=height / 2 - 0.5,
        line_scale=height / 2,
        long_off=9.0,
        long_scale=width / 2 * 1e-5,
        samp_den_coeff=one,
        samp_num_coeff=sample,
        samp_off=width / 2 - 0.5,
        samp_scale=width / 2,
    )


@pytest.mark.parametrize("stride", [1, 4])
def test_rational_polynomials_are_kept_and_place_the_map(tmp_path, stride):
    image = pixels(64, 96)
    layout = {"height": 64, "width": 96, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", **layout) as file:
        file.write(image)
        file.rpcs = plain_rpc(64, 96)

    model = predictor()
    if stride > 1:
        model = predictor(Pooled(), stride=stride)
    done = predict(tmp_path / "scene.tif", model, tmp_path / "map.tif", **SMALL)
    assert "height of 120 m" in done.notes[0]
    with rasterio.open(tmp_path / "map.tif") as file:
        place = place_of(file)
        assert place.how == "rpcs"
        x, y = np.array([0.0, file.width]), np.array([0.0, file.height])
        longitude, latitude = place.lonlat(x, y)
    np.testing.assert_allclose(longitude, [9 - 48e-5, 9 + 48e-5], atol=2e-7)
    np.testing.assert_allclose(latitude, [48 + 32e-5, 48 - 32e-5], atol=2e-7)


class Pooled(PixelModel):
    """One answer for 4 x 4 pixels."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(super().forward(x), 4)


def fiji(path, classes):
    x, y = transform("EPSG:4326", "EPSG:32760", [180.0], [-17.0])
    place = {"crs": "EPSG:32760", "transform": from_origin(x[0] - 40 * 30, y[0], 30, 30)}
    return write(path, classes[None], nodata=255, **place)


def test_polygons_over_180_degrees_are_cut_there(tmp_path):
    classes = np.zeros((60, 80), np.uint8)
    classes[10:30, 10:70] = 2  # over the line, with a hole that is over it too
    classes[15:20, 30:50] = 0
    write_polygons(fiji(tmp_path / "c.tif", classes), tmp_path / "o.geojson", ["a", "b", "c"])
    features = json.loads((tmp_path / "o.geojson").read_text())["features"]
    assert len(features) == 3
    house = next(f for f in features if f["properties"]["class"] == "c")
    assert house["geometry"]["type"] == "MultiPolygon"
    for feature in features:
        for part in shape(feature["geometry"]).geoms:
            west, south, east, north = part.bounds
            assert -180 <= west < east <= 180 and east - west < 1 and -18 < south < north < -16
            assert part.exterior.is_ccw and part.is_valid
    # Hectares of both sides together are those of the whole.
    wide = sum(part.area for part in shape(house["geometry"]).geoms)
    degrees = 111_320 * np.cos(np.radians(17)) * 110_650
    assert wide * degrees == pytest.approx(house["properties"]["area_m2"], rel=5e-3)


def test_a_scene_in_degrees_beyond_180_is_cut_too(tmp_path):
    classes = np.zeros((20, 30), np.uint8)
    place = {"crs": "EPSG:4326", "transform": from_origin(179.9, 10, 0.01, 0.01)}
    path = write(tmp_path / "c.tif", classes[None], nodata=255, **place)
    write_polygons(path, tmp_path / "o.geojson", ["a"])
    (feature,) = json.loads((tmp_path / "o.geojson").read_text())["features"]
    parts = sorted(part.bounds for part in shape(feature["geometry"]).geoms)
    np.testing.assert_allclose(parts[0], (-180, 9.8, -179.8, 10), atol=1e-6)
    np.testing.assert_allclose(parts[1], (179.9, 9.8, 180, 10), atol=1e-6)


def test_a_polygon_around_the_pole_holds_it(tmp_path):
    classes = np.zeros((40, 40), np.uint8)
    place = {"crs": "EPSG:3413", "transform": from_origin(-20_000, 20_000, 1000, 1000)}
    path = write(tmp_path / "c.tif", classes[None], nodata=255, **place)
    write_polygons(path, tmp_path / "o.geojson", ["ice"])
    (feature,) = json.loads((tmp_path / "o.geojson").read_text())["features"]
    west, south, east, north = shape(feature["geometry"]).bounds
    assert (west, east, north) == (-180, 180, 90) and 89.7 < south < 89.9


def test_a_scene_of_no_place_says_so(tmp_path):
    layout = {"height": 40, "width": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", **layout) as file:
        file.write(pixels(40, 40))
    done = predict(tmp_path / "s.tif", predictor(), tmp_path / "m.tif", polygons=True, **SMALL)
    assert "no CRS and no control points" in done.notes[0]
    content = json.loads((tmp_path / "m.geojson").read_text())
    assert "coordinates are pixels" in content["note"]
