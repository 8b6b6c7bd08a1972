"""A map from a few polygons: the right classes at the right places, and refusals that say why."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_geom

from rs_models.commands.predict import main
from rs_models.data.vectors import read_features
from rs_models.errors import UserError
from rs_models.predict import load_predictor, predict
from rs_models.predict.head import fit_head
from tests.conftest import ROOT
from tests.predict.helpers import UTM, read, write

MODEL = str(ROOT / "hub/rs/rsisc-resnet-mini-aid")
SIZE, HALF = 256, 128
COLOURS = {"field": (60, 150, 60), "roof": (190, 70, 50), "water": (30, 50, 120)}


def drawn(seed=0):
    """Field in the north, water in the south-west, roofs in the south-east; and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((SIZE, SIZE), np.uint8)
    truth[HALF:, :HALF], truth[HALF:, HALF:] = 2, 1
    image = np.array(list(COLOURS.values()))[truth] + rng.normal(0, 8, (SIZE, SIZE, 3))
    return np.clip(image, 0, 255).astype(np.uint8).transpose(2, 0, 1), truth


@pytest.fixture
def scene(tmp_path):
    return write(tmp_path / "scene.tif", drawn()[0])


def square(left, top, side, crs="EPSG:4326"):
    """A square of pixels, in map coordinates."""
    x0, y0 = 500_000 + left / 2, 5_000_000 - top / 2
    x1, y1 = x0 + side / 2, y0 - side / 2
    ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    return transform_geom(UTM, crs, {"type": "Polygon", "coordinates": [ring]})


AREAS = [("field", 20, 20), ("field", 180, 60), ("roof", 150, 150), ("roof", 210, 200)]
AREAS += [("water", 20, 180), ("water", 80, 150)]


def labels(path, areas=AREAS, *, field="kind", crs=None, points=False):
    """GeoJSON of squares of 24 pixels, or of the points in their middles."""
    features = []
    for name, left, top in areas:
        geometry = square(left, top, 24, crs or "EPSG:4326")
        if points:
            corners = np.array(geometry["coordinates"][0][:4])
            geometry = {"type": "Point", "coordinates": corners.mean(0).tolist()}
        features.append({"type": "Feature", "properties": {field: name}, "geometry": geometry})
    content = {"type": "FeatureCollection", "features": features}
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return path


def agreement(path, truth, border=12):
    """Share of right pixels away from the borders of classes."""
    away = np.ones(truth.shape, bool)
    away[HALF - border : HALF + border] = False
    away[HALF:, HALF - border : HALF + border] = False
    return float((read(path)[0] == truth)[away].mean())


@pytest.mark.parametrize("crs", [None, "EPSG:3857"])
def test_a_few_polygons_make_the_map_of_a_scene(scene, tmp_path, capsys, crs):
    file = labels(tmp_path / "labels.geojson", crs=crs)
    output = tmp_path / "map.tif"
    arguments = [str(scene), "--model", MODEL, "--head", str(file), "--classes", "kind"]
    assert main([*arguments, "--output", str(output), "--polygons", "--tile", "128"]) == 0
    said = capsys.readouterr().out
    assert "field 1,000 pixels of 2 areas" in said and "right on areas held out" in said
    assert "Next: look at it" in said and " ha " in said
    assert agreement(output, drawn()[1]) > 0.97
    with rasterio.open(output) as raster, rasterio.open(scene) as stored:
        assert raster.shape == stored.shape and raster.transform == stored.transform
        assert raster.tags()["class_1"] == "roof"
    assert output.with_suffix(".qml").is_file() and output.with_suffix(".geojson").is_file()


def test_points_and_other_backbones_will_do(scene, tmp_path):
    file = labels(tmp_path / "points.geojson", points=True)
    embedder = load_predictor(str(ROOT / "hub/rs/last-vit-mini-aid"), task="embedding")
    head = fit_head(embedder, [scene], file, field="kind", point_size=5)
    assert head.pixels == {"field": 50, "roof": 50, "water": 50} and head.areas["roof"] == 2
    predict(scene, head.predictor, tmp_path / "map.tif", progress=False)
    assert agreement(tmp_path / "map.tif", drawn()[1], border=24) > 0.9


def test_more_polygons_refine_the_map(scene, tmp_path):
    file = labels(tmp_path / "labels.geojson", AREAS[:4])
    embedder = load_predictor(MODEL, task="embedding")
    first = fit_head(embedder, [scene], file, field="kind")
    again = fit_head(embedder, [scene], file, field="kind")
    assert first.predictor.names == ["field", "roof"]
    assert first.predictor.revision == again.predictor.revision  # a stopped map goes on
    more = fit_head(embedder, [scene], labels(file, AREAS), field="kind")
    assert more.predictor.names == ["field", "roof", "water"]
    assert more.predictor.revision != first.predictor.revision


def test_labels_of_a_single_area_a_class_give_a_map_without_a_promise(scene, tmp_path):
    areas = [AREAS[0], AREAS[2], ("water", 5000, 5000), ("road", 20, 180)]
    file = labels(tmp_path / "labels.geojson", areas)
    head = fit_head(load_predictor(MODEL, task="embedding"), [scene], file, field="kind")
    assert head.accuracy is None and "draw a second area of field, road, roof" in head.text()
    assert "1 of 4 areas hold no pixel" in head.text() and "labelled water" in head.text()


@pytest.mark.parametrize(
    ("areas", "told"),
    [
        ([("field", 5000, 5000), ("roof", 6000, 0)], "No label of"),
        (AREAS[:2], "are 'field': draw areas of two classes"),
        ([AREAS[0], ("roof", 5000, 0)], "are 'field': draw areas of two classes"),
    ],
)
def test_labels_that_cannot_make_a_map_are_refused(scene, tmp_path, areas, told):
    file = labels(tmp_path / "labels.geojson", areas)
    with pytest.raises(UserError, match=told):
        fit_head(load_predictor(MODEL, task="embedding"), [scene], file, field="kind")


def test_what_is_missing_is_told_in_one_sentence(scene, tmp_path):
    file = labels(tmp_path / "labels.geojson")
    embedder = load_predictor(MODEL, task="embedding")
    with pytest.raises(UserError, match=r"no features with a class in 'class' .*kind"):
        fit_head(embedder, [scene], file)
    with pytest.raises(UserError, match=r"nothing\.gpkg cannot be read"):
        fit_head(embedder, [scene], tmp_path / "nothing.gpkg")
    nowhere = write(tmp_path / "nowhere.tif", drawn()[0], crs=None)
    with pytest.raises(UserError, match="no coordinate system"):
        fit_head(embedder, [nowhere], file, field="kind")
    with pytest.raises(UserError, match="of --head"):
        main([str(scene), "--model", MODEL, "--classes", "kind", "--output", "x.tif"])


def test_metres_in_a_geojson_that_says_of_no_system_are_told_by_feature(tmp_path):
    """PROJ's words of an invalid latitude named neither the feature nor what to do."""
    file = labels(tmp_path / "metres.geojson", crs=UTM)
    content = json.loads(file.read_text())
    assert len(read_features(str(file))[0]) == len(AREAS)
    del content["crs"]
    file.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"Feature 1 of .* lies at 5000\d\d.*, which GeoJSON and files without"
    ):
        read_features(str(file))
