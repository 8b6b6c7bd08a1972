"""Areas are those of the ground, whatever the scene's coordinate system, and in bulk."""

from __future__ import annotations

import time

import numpy as np
import pytest
import rasterio
from pyproj import Geod
from rasterio.transform import from_origin

from rs_models.predict.place import hectares, place_of
from rs_models.predict.vectors import write_polygons
from tests.predict.helpers import write
from tests.predict.test_vectors import NAMES, polygons

WEB_MERCATOR = (
    "+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0=0 +x_0=0 +y_0=0 +k=1 +units=m "
    "+nadgrids=@null +no_defs"
)
PLACES = {
    "utm": ("EPSG:32632", from_origin(500_000, 5_400_000, 0.5, 0.5)),
    "utm at 80 N, far from its meridian": ("EPSG:32632", from_origin(700_000, 8_900_000, 10, 10)),
    "utm over 180": ("EPSG:32760", from_origin(817_000, 8_117_000, 30, 30)),
    "degrees": ("EPSG:4326", from_origin(10, 45, 1e-4, 1e-4)),
    "degrees over 180": ("EPSG:4326", from_origin(179.99, -17, 1e-4, 1e-4)),
    "degrees at 80 N": ("EPSG:4326", from_origin(20, 80, 1e-4, 1e-4)),
    "web mercator": ("EPSG:3857", from_origin(1e6, 8e6, 10, 10)),
    "web mercator spelled out": (WEB_MERCATOR, from_origin(1e6, 8e6, 10, 10)),
    "world mercator at 80 N": ("EPSG:3395", from_origin(1e6, 1.55e7, 10, 10)),
    "feet": ("EPSG:2263", from_origin(980_000, 200_000, 3, 3)),
    "polar, far from its parallel": ("EPSG:3413", from_origin(-2.5e6, 2.5e6, 100, 100)),
    "around the pole": ("EPSG:3413", from_origin(-4000, 3000, 100, 100)),
    "equal area": ("EPSG:6933", from_origin(1e6, 6e6, 1000, 1000)),
}


def on_the_ground(place, shape):
    """Square metres of each cell by a geodesic polygon around it."""
    rows, columns = np.indices(shape)
    areas = np.zeros(shape)
    geod = Geod(ellps="WGS84")
    for row, column in zip(rows.ravel(), columns.ravel(), strict=True):
        along = np.linspace(0, 1, 5)
        one = np.ones(5)
        x = column + np.concatenate((along, one, along[::-1], 0 * one))
        y = row + np.concatenate((0 * one, along, one, along[::-1]))
        areas[row, column] = abs(geod.polygon_area_perimeter(*place.lonlat(x, y))[0])
    return areas


@pytest.mark.parametrize("name", PLACES)
def test_each_class_has_the_ground_of_its_cells(tmp_path, name):
    classes = np.zeros((60, 80), np.uint8)
    classes[10:30, 10:40] = 2
    classes[15:20, 20:30] = 0
    classes[40:42] = 1
    classes[50:, 70:] = 255
    crs, transform = PLACES[name]
    path = write(tmp_path / "c.tif", classes[None], crs=crs, transform=transform, nodata=255)
    features = polygons(path, tmp_path)["features"]
    assert len(features) == 5
    with rasterio.open(path) as raster:
        cells = on_the_ground(place_of(raster), classes.shape)
        totals = hectares(raster, NAMES)
    for number, class_name in enumerate(NAMES):
        wanted = cells[classes == number].sum()
        area = sum(
            feature["properties"]["area_m2"]
            for feature in features
            if feature["properties"]["class"] == class_name
        )
        assert area == pytest.approx(wanted, rel=1e-3)
        assert totals[class_name] * 1e4 == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("name", PLACES)
def test_a_few_cells_of_a_scene_as_wide_as_a_tile_have_their_ground(tmp_path, name):
    """Between blocks of hundreds of cells the ground is as right as within them."""
    crs, transform = PLACES[name]
    with rasterio.open(
        tmp_path / "c.tif",
        "w",
        driver="GTiff",
        width=2000,
        height=1500,
        count=1,
        dtype="uint8",
        crs=crs,
        transform=transform,
        sparse_ok=True,
    ) as raster:
        place = place_of(raster)
        for row, column in ((0, 0), (731, 1333), (1490, 3)):
            there = place_of(_Shifted(raster, column, row))
            wanted = on_the_ground(there, (6, 4)).sum()
            box = np.array([[column, row, column + 4, row + 6]])
            assert place.areas.boxes(box)[0] == pytest.approx(wanted, rel=1e-5)


class _Shifted:
    """A raster that begins at another of its cells."""

    def __init__(self, raster, column, row):
        self.crs, self.gcps, self.rpcs = raster.crs, raster.gcps, raster.rpcs
        self.height, self.width = 6, 4
        self.transform = raster.transform @ rasterio.Affine.translation(column, row)


def test_the_whole_earth_has_the_area_of_the_earth(tmp_path):
    classes = np.zeros((90, 180), np.uint8)
    classes[:30] = 1  # from the pole to 30 degrees north: half of a hemisphere, nearly
    place = {"crs": "EPSG:4326", "transform": from_origin(-180, 90, 2, 2)}
    path = write(tmp_path / "c.tif", classes[None], nodata=255, **place)
    with rasterio.open(path) as raster:
        totals = hectares(raster, NAMES)
    assert sum(totals.values()) * 1e4 == pytest.approx(510.0656e12, rel=1e-3)  # WGS 84
    features = polygons(path, tmp_path)["features"]
    assert sum(f["properties"]["area_m2"] for f in features) == pytest.approx(510.0656e12, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_a_hundred_thousand_polygons_take_seconds_however_the_system_is_spelled(tmp_path, suffix):
    """The processor's seconds, so that a busy machine does not count."""
    noise = np.random.default_rng(0).integers(0, 3, (520, 540), dtype=np.uint8)
    spelled = 'PROJCS["mine",' + rasterio.crs.CRS.from_epsg(2056).to_wkt().split(",", 1)[1]
    spelled = spelled[: spelled.rindex(",AUTHORITY")] + "]"
    place = {"crs": spelled, "transform": from_origin(2_600_000, 1_200_000, 10, 10)}
    path = write(tmp_path / "c.tif", noise[None], nodata=255, **place)
    begin = time.process_time()
    count = write_polygons(path, tmp_path / f"out{suffix}", NAMES)
    assert count > 100_000
    assert time.process_time() - begin < 10
