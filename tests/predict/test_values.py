"""The same ground gives the same map, however it is stored; what does not tell is refused."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
import rasterio

from rs_models.data import load
from rs_models.data.windows import WindowSettings, make_windows
from rs_models.errors import UserError
from rs_models.predict.scene import Scene
from rs_models.preprocessing import Preprocessing
from tests.predict.helpers import RGB, UTM, pixels, write

REFLECTANCE = Preprocessing(("red", "green", "blue"), (0.0, 10_000.0), (0.0,) * 3, (1.0,) * 3, 64)
GROUND = pixels(80, 90) / 255 * 0.5  # reflectance from 0 to 0.5
SAFE = "S2A_MSIL2A_20230105T101411_N0509_R022_T32TQM_20230105T153401.tif"
OLD_SAFE = "S2A_MSIL2A_20210105T101411_N0214_R022_T32TQM_20210105T153401.tif"
LANDSAT = "LC08_L2SP_193027_20230105_20230110_02_T1_SR.tif"


def stored(path, values, *, scale=None, offset=None, tags=None, **settings):
    write(path, values, **settings)
    with rasterio.open(path, "r+") as file:
        if scale is not None:
            file.scales, file.offsets = (scale,) * 3, (offset,) * 3
        file.update_tags(**(tags or {}))
    return path


def taken(path, preprocessing=REFLECTANCE, **settings):
    """What the model gets of a whole scene, and the notes."""
    scene = Scene.open(str(path), preprocessing, **settings)
    try:
        return scene.read(0, 0, 80, 90)[0], " ".join(scene.values.notes)
    finally:
        scene.close()


def whole(values):
    return np.round(values).astype(np.uint16)


@pytest.mark.parametrize(
    ("name", "values", "settings", "told"),
    [
        ("a.tif", whole(GROUND * 1e4), {}, ""),
        ("a.tif", whole(GROUND * 1e4).astype(np.int16), {}, ""),
        ("a.tif", whole(GROUND * 1e4), {"scale": 1e-4, "offset": 0.0}, ""),
        ("a.tif", whole((GROUND + 0.1) * 1e4), {"scale": 1e-4, "offset": -0.1}, "offset are appl"),
        ("a.tif", whole((GROUND + 0.2) / 2.75e-5), {"scale": 2.75e-5, "offset": -0.2}, "applied"),
        (SAFE, whole((GROUND + 0.1) * 1e4), {}, "processing baseline 05.09"),
        (OLD_SAFE, whole(GROUND * 1e4), {}, ""),
        ("a.tif", whole((GROUND + 0.1) * 1e4), {"tags": {"PROCESSING_BASELINE": "04.00"}}, "04.00"),
        (LANDSAT, whole((GROUND + 0.2) / 2.75e-5), {}, "Landsat Collection 2"),
        ("a.tif", GROUND.astype(np.float32), {}, "float reflectance"),
        ("a.tif", GROUND.astype(np.float64), {}, "float reflectance"),
    ],
)
def test_the_same_ground_gives_the_same_values(tmp_path, name, values, settings, told):
    path = stored(tmp_path / name, values, **settings)
    given, notes = taken(path)
    np.testing.assert_allclose(given, GROUND * 1e4, atol=1)
    assert told in notes if told else "reflectance" not in notes


@pytest.mark.parametrize(
    ("name", "values", "settings", "message"),
    [
        ("a.tif", whole((GROUND + 0.2) / 2.75e-5), {}, "as Landsat Collection 2 does"),
        ("a.tif", whole(GROUND * 4095 * 2), {"nbits": 12}, "12-bit values"),
        ("a.tif", whole(GROUND * 65535 * 2), {}, "make a reflectance of"),
        ("a.tif", (GROUND * 510).astype(np.float32), {}, "make a reflectance of"),
        ("a.tif", whole(GROUND * 1e4), {"scale": 0.01, "offset": 0.0}, "make a reflectance of"),
        ("a.tif", GROUND.astype(np.float32), {"scale": 1e-4, "offset": 0.0}, "make a reflectance"),
        ("LC09_L1TP_193027_20230105_20230110_02_T1.tif", whole(GROUND * 1e4), {}, "level 1"),
        (SAFE, whole(GROUND * 1e4), {}, "below its offset of 1,000"),
        ("a.tif", pixels(80, 90), {}, "is uint8: its colours are not"),
        ("a.tif", (GROUND * 1e4).astype(np.complex64), {}, "complex values"),
    ],
)
def test_values_that_do_not_tell_what_they_are_are_refused(
    tmp_path, name, values, settings, message
):
    path = stored(tmp_path / name, values, **settings)
    with pytest.raises(UserError, match=message):
        taken(path)


def test_the_user_has_the_last_word(tmp_path):
    path = stored(tmp_path / "a.tif", whole(GROUND * 4095 * 2), nbits=12)
    given, notes = taken(path, scale=1 / 8190)
    np.testing.assert_allclose(given, GROUND * 1e4, atol=2)
    assert "as given" in notes
    path = stored(tmp_path / SAFE, whole(GROUND * 1e4))
    np.testing.assert_allclose(taken(path, scale=1e-4)[0], GROUND * 1e4, atol=1)
    path = stored(tmp_path / "b.tif", whole((GROUND + 0.1) * 1e4))
    np.testing.assert_allclose(taken(path, offset=-0.1)[0], GROUND * 1e4, atol=1)
    with pytest.raises(UserError, match="use --scale and --offset"):
        taken(path, stretch="0,3000")


def test_values_that_may_have_an_offset_are_noted(tmp_path):
    path = stored(tmp_path / "a.tif", whole((GROUND + 0.1) * 1e4))
    assert "--offset -0.1" in taken(path)[1]


def test_sixteen_bits_become_eight_only_by_a_named_stretch(tmp_path):
    path = stored(tmp_path / "a.tif", whole(GROUND * 1e4))
    with pytest.raises(UserError, match=r"is uint16: say .* with --stretch min,max, or"):
        taken(path, RGB)
    given, notes = taken(path, RGB, stretch="1000,4000")
    wanted = np.clip(np.rint((whole(GROUND * 1e4) - 1000.0) / 3000 * 255), 0, 255)
    np.testing.assert_array_equal(given, wanted)
    assert given.dtype == np.uint8 and "from 1000 to 4000 become 0 to 255" in notes
    given, notes = taken(path, RGB, stretch="percentile")
    assert given.min() == 0 and given.max() == 255 and "98th percentile" in notes
    flat = pixels(80, 90)
    np.testing.assert_array_equal(taken(write(tmp_path / "b.tif", flat), RGB)[0], flat)
    for wrong in ("3000", "5,1", "0,nan", "a,b"):
        with pytest.raises(UserError, match="must be min,max"):
            taken(path, RGB, stretch=wrong)
    with pytest.raises(UserError, match="8-bit images"):
        taken(path, RGB, scale=1e-4)


def test_nan_holds_no_data(tmp_path):
    values = GROUND.astype(np.float32)
    values[:, 10:20, 30:] = np.nan
    scene = Scene.open(str(stored(tmp_path / "a.tif", values)), REFLECTANCE)
    given, valid = scene.read(0, 0, 80, 90)
    wanted = np.ones((80, 90), bool)
    wanted[10:20, 30:] = False
    np.testing.assert_array_equal(valid, wanted)
    np.testing.assert_array_equal(scene.valid(0, 0, 80, 90), wanted)
    assert np.isfinite(given).all()
    scene.close()


@pytest.mark.parametrize(
    ("file", "names", "settings", "order"),
    [
        ("LT05_L2SP_1.tif", ["B1", "B2", "B3", "B4"], {}, (3, 2, 1)),
        ("LC08_L2SP_1.tif", ["B1", "B2", "B3", "B4"], {}, (4, 3, 2)),
        ("a.tif", ["SR_B2", "SR_B3", "SR_B4", "SR_B6"], {}, (3, 2, 1)),
        ("a.tif", ["B02", "B03", "B04", "B08"], {}, (3, 2, 1)),
        ("a.tif", ["B2", "B3", "B4", "B8A"], {}, (3, 2, 1)),
        ("HLS.L30.T32TQM.tif", ["B02", "B03", "B04", "B05"], {}, (3, 2, 1)),
        ("a.tif", ["B1", "B2", "B3", "B4"], {"sensor": "landsat-7"}, (3, 2, 1)),
        ("a.tif", ["B1", "B2", "B3", "B4"], {"tags": {"SPACECRAFT_ID": "LANDSAT_9"}}, (4, 3, 2)),
        ("a.tif", ["B1", "B2", "B3", "B4"], {"bands": "red,green,blue,nir"}, (1, 2, 3)),
    ],
)
def test_band_numbers_are_those_of_the_sensor(tmp_path, file, names, settings, order):
    tags = settings.pop("tags", None)
    path = write(tmp_path / file, pixels(40, 40, channels=4), names=names)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(**(tags or {}))
    scene = Scene.open(str(path), RGB, **settings)
    assert tuple(scene.indexes) == order
    scene.close()


@pytest.mark.parametrize("names", [["B1", "B2", "B3", "B4"], ["SR_B1", "SR_B2", "SR_B3", "SR_B4"]])
def test_where_the_sensor_cannot_be_told_it_is_asked_for(tmp_path, names):
    path = write(tmp_path / "a.tif", pixels(40, 40, channels=4), names=names)
    with pytest.raises(UserError, match="name it with --sensor"):
        Scene.open(str(path), RGB)
    with pytest.raises(UserError, match="'spot' is not known"):
        Scene.open(str(path), RGB, sensor="spot")


def test_twelve_bit_counts_without_a_tag_are_refused_or_told(tmp_path):
    counts = np.round(pixels(64, 64) / 255 * 4095).astype(np.uint16)
    counts[:, :4] = 4095  # saturated, as sensors are
    scene = write(tmp_path / "s.tif", counts, names=["red", "green", "blue"])
    with pytest.raises(UserError, match=r"end at 4095, as 12-bit ones do.*--scale 0\.000244"):
        Scene.open(str(scene), REFLECTANCE)
    with closing(Scene.open(str(scene), REFLECTANCE, scale=1 / 4095)) as opened:
        assert opened.read(0, 0, 8, 8)[0][0, 0, 0] == pytest.approx(10_000)
    dark = write(tmp_path / "d.tif", np.minimum(counts, 3900), names=["red", "green", "blue"])
    with closing(Scene.open(str(dark), REFLECTANCE)) as opened:
        assert any("11- or 12-bit counts" in note for note in opened.values.notes)


def test_tiles_are_reflectance_where_the_file_tells_its_scale(tmp_path, caplog):
    truth = np.random.default_rng(0).integers(300, 3000, (3, 32, 32))  # x 10,000
    stored = np.round((truth / 1e4 + 0.2) / 2.75e-5).astype(np.uint16)
    names = ["red", "green", "blue"]
    (tmp_path / "tiles").mkdir()
    write(tmp_path / "tiles/LC08_L2SP_201024_20240501_20240509_02_T1.tif", stored, names=names)
    image = np.asarray(load(tmp_path / "tiles")[0]["image"])
    assert image.dtype == np.uint16
    np.testing.assert_allclose(image.transpose(2, 0, 1), truth, atol=1)
    assert "Landsat Collection 2" in caplog.text


def test_windows_are_reflectance_where_the_file_tells_its_scale(tmp_path, caplog):
    truth = np.random.default_rng(0).integers(300, 3000, (3, 64, 64))  # x 10,000
    counts = np.round((truth / 1e4 + 0.2) / 2.75e-5).astype(np.uint16)
    scene = write(tmp_path / LANDSAT, counts)
    features = []
    for name, left in (("a", 0), ("b", 16)):
        x0, x1, y0, y1 = 500_000 + left, 500_016 + left, 5_000_000, 4_999_968
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"kind": name}, "geometry": geometry})
    labels = {"type": "FeatureCollection", "features": features, "crs": UTM}
    (tmp_path / "l.geojson").write_text(json.dumps(labels))
    settings = WindowSettings(field="kind", size=32, block=1)
    done = make_windows(scene, tmp_path / "l.geojson", tmp_path / "w", settings)
    assert sum(done.rows.values()) == 4 and "Landsat Collection 2" in caplog.text
    for split in done.rows:
        for row in load(tmp_path / "w", split, annotations=False, bands="rgb"):
            left, top = round((row["x"] - 500_000) * 2) - 16, round((5_000_000 - row["y"]) * 2) - 16
            expected = truth[:, top : top + 32, left : left + 32].transpose(1, 2, 0)
            np.testing.assert_allclose(np.asarray(row["image"]), expected, atol=1)
