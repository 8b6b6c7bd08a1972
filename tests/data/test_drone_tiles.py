"""RGBA images, as mosaics of drones have them: alpha is a mask and no band, wherever read."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.warp import transform_geom

from rs_models.data import build_cache, load
from rs_models.data.windows import WindowSettings, make_windows
from rs_models.predict import predict
from tests.predict.helpers import UTM, expected, pixels, predictor, read, write

COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
SIDE, HIDDEN = 128, 32  # pixels; columns that alpha hides


@pytest.fixture
def drone(tmp_path):
    """A mosaic whose left columns are hidden, and its pixels."""
    image = pixels(SIDE, SIDE)
    alpha = np.full((1, SIDE, SIDE), 255, np.uint8)
    alpha[:, :, :HIDDEN] = 0
    path = write(tmp_path / "drone.tif", np.concatenate([image, alpha]))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = COLOURS
    return path, image


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_tiles_of_a_folder_have_three_bands(drone, tmp_path, suffix):
    path, image = drone
    folder = tmp_path / "tiles/train/field"
    folder.mkdir(parents=True)
    if suffix == ".tif":
        (folder / "a.tif").write_bytes(path.read_bytes())
    else:
        PIL.Image.fromarray(read(path).transpose(1, 2, 0)).save(folder / "a.png")
    cache = build_cache(load(tmp_path / "tiles"), cache_dir=tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(cache.images[0].numpy(), image)


def test_a_map_has_no_class_under_alpha(drone, tmp_path):
    path, image = drone
    predict(path, predictor(), tmp_path / "map.tif", tile=64, overlap=16, progress=False)
    found = read(tmp_path / "map.tif")[0]
    assert (found[:, :HIDDEN] == 255).all()
    np.testing.assert_array_equal(found[:, HIDDEN:], expected(image)[:, HIDDEN:])


def test_windows_learn_nothing_under_alpha(drone, tmp_path):
    path, _ = drone
    features = []
    for name, left, right in (("field", 0, 64), ("water", 64, SIDE)):
        x0, x1 = 500_000 + left / 2, 500_000 + right / 2
        y0, y1 = 5_000_000, 5_000_000 - SIDE / 2
        ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        geometry = transform_geom(UTM, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
        features.append({"type": "Feature", "properties": {"kind": name}, "geometry": geometry})
    (tmp_path / "l.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    settings = WindowSettings(field="kind", size=64, block=1)
    done = make_windows(path, tmp_path / "l.json", tmp_path / "w", settings)
    assert done.counts and sum(sum(c.values()) for c in done.counts.values()) == 96 * SIDE
    for split in done.rows:
        for row in load(tmp_path / "w", split):
            assert np.asarray(row["image"]).shape == (64, 64, 3)
            at = round((row["x"] - 500_000) * 2) - 32  # the window's first column
            hidden = np.arange(at, at + 64) < HIDDEN
            assert (np.asarray(row["mask"])[:, hidden] == 255).all()
            assert (np.asarray(row["mask"])[:, ~hidden] != 255).all()
