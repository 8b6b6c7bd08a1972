"""Points on a scene become its map: the page's own examples are right, and so are its files."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import rasterio

from rs_models.data.synthetic import LAND_COVER
from rs_models.demos import dense_scene, models
from rs_models.demos.dense_scene import looked_at
from rs_models.demos.scene_marks import area, point
from rs_models.demos.scene_work import MAX_MARKS, Work
from rs_models.errors import UserError
from tests.conftest import ROOT
from tests.support.models import nano, provenance

EXAMPLES = ROOT / "spaces" / "segment-a-scene" / "examples"
POINTS = json.loads((EXAMPLES / "points.json").read_text())
# Places on the patchwork, in its pixels, that were looked at and are none of its points.
PLACES = {
    "water": "28,10 45,55 64,95 120,140 110,245 124,190",
    "sand": "10,140 30,190 20,245 50,150 58,32 70,60",
    "tree": "120,90 270,140 320,170 370,190 300,230 345,245 250,220 303,97",
    "grass": "140,70 180,120 150,118 220,10 245,40 180,140 165,180 150,230",
    "pavement": "170,45 200,85 225,85 245,110 190,20",
    "building": "335,12 315,45 285,70",
}

# An area of each of its classes, in its pixels.
AREAS = {
    "water": "86,140 126,140 126,250 80,250",
    "sand": "2,150 55,150 50,250 2,250",
    "tree": "262,150 380,150 380,250 262,250",
    "grass": "165,135 205,135 205,165 165,210",
    "pavement": "150,10 165,5 240,110 225,118",
    "building": "325,5 345,3 348,18 328,22",
}


def pixels(text):
    return [tuple(map(int, one.split(","))) for one in text.split()]


def example(model, name):
    known = POINTS[name]
    marks = [point(x, y, kind) for kind, many in known.items() for x, y in many]
    return Work(looked_at(f"rs/{model}", str(EXAMPLES / name)), list(known), marks)


@pytest.mark.parametrize("model", ["rsisc-resnet18", "rsisc-resnet-mini-aid"])
def test_the_real_example_is_right_where_nobody_clicked(model):
    work = example(model, "patchwork.png")
    mask, right = work.mask((256, 384)), []
    for kind, places in PLACES.items():
        for x, y in pixels(places):
            right.append(work.used[mask[y, x]] == kind)
    assert np.mean(right) >= 0.94, right


def test_the_drawn_example_is_right_by_its_truth_and_in_hectares():
    made = runpy.run_path(str(ROOT / "spaces" / "make_examples.py"), run_name="examples")
    _, cover = made["drawn"]()
    work = example("rsisc-resnet18", "mosaic_utm32.tif")
    mask, right, seen = work.mask(work.scene.size), 0, 0
    for kind, kinds in made["GROUNDS"].items():
        here = np.isin(cover, [LAND_COVER.index(one) for one in kinds])
        right += int((mask[here] == work.used.index(kind)).sum())
        seen += int(here.sum())
    assert right / seen > 0.85
    # 768 x 768 pixels of half a metre, on the ground and not in the projection.
    assert work.scene.ground.sum() == pytest.approx(147_574, rel=1e-3)
    cells = [float(line.split("<")[0].replace(",", "")) for line in _numbers(work.legend(mask))]
    assert sum(cells) == pytest.approx(14.757, abs=0.03)
    tiff, polygons = work.files()
    with rasterio.open(tiff) as raster:
        assert raster.crs.to_epsg() == 32632 and raster.shape == (768, 768)
        assert np.array_equal(raster.read(1), mask)
    shapes = json.loads(open(polygons, encoding="utf-8").read())["features"]
    assert {shape["properties"]["class"] for shape in shapes} == set(work.used)


def _numbers(legend):
    """The hectares of a legend: the second number of each row."""
    rows = legend.split("<tr>")[2:]
    return [row.split("class='number'>")[2] for row in rows]


@pytest.fixture
def work(tmp_path, monkeypatch):
    made = nano("resnet_mini", image_size=32)
    made.config.rs_models = provenance(made, train_size=32)
    made.save_pretrained(tmp_path / "model")
    monkeypatch.setenv(models.VARIABLE, str(tmp_path / "model"))
    return Work(looked_at(str(tmp_path / "model"), str(EXAMPLES / "patchwork.png")))


def test_cells_are_small_enough_for_roads(work):
    assert min(work.scene.features.shape[:2]) >= 48
    assert work.scene.features.dtype == np.float16 and work.scene.ground is None
    assert work.scene.features.nbytes < 5e6  # a session keeps it


def test_points_make_a_map_and_taken_back_none(work):
    assert work.mask() is None and work.pictures(None)[1] is work.scene.picture
    work.add([point(0.1, 0.1, "a")], ["a", "b"])
    assert work.mask() is None
    work.add([point(0.9, 0.9, "b")], ["a", "b"])
    assert set(np.unique(work.mask())) <= {0, 1} and "Hectares" not in work.legend(work.mask())
    work.undo()
    with pytest.raises(UserError, match="two classes first"):
        work.files()
    work.clear()
    work.undo()
    assert work.marks == []


@pytest.mark.parametrize(
    "x, y, name, classes, said",
    [
        (1.2, 0.5, "a", ["a"], "outside of the scene"),
        (None, 0.5, "a", ["a"], "outside of the scene"),
        (float("nan"), 0.5, "a", ["a"], "outside of the scene"),
        (0.5, 0.5, "b", ["a"], "not among yours"),
        (0.5, 0.5, "a", ["a", ""], "1 to 40 characters"),
        (0.5, 0.5, "a", [str(n) for n in range(10)], "9 at most"),
    ],
)
def test_points_that_are_none_are_refused(work, x, y, name, classes, said):
    with pytest.raises(UserError, match=said):
        work.add([point(x, y, name)], classes)
    assert work.marks == []


def test_marks_have_a_limit(work):
    work.add([point(0.5, 0.5, "a")] * MAX_MARKS, ["a"])
    with pytest.raises(UserError, match="are the most"):
        work.add([point(0.5, 0.5, "a")], ["a"])
    assert len(work.marks) == MAX_MARKS


def test_one_area_a_class_maps_the_real_example():
    work = example("rsisc-resnet18", "patchwork.png")
    work.clear()
    for kind, corners in AREAS.items():
        work.add([area([[x / 384, y / 256] for x, y in pixels(corners)], kind)], list(AREAS))
    assert work.counted == f"{len(AREAS)} areas"
    right = [
        work.used[work.mask((256, 384))[y, x]] == kind
        for kind, places in PLACES.items()
        for x, y in pixels(places)
    ]
    assert np.mean(right) >= 0.8, right


def test_a_place_is_like_itself_and_less_like_others():
    scene = example("rsisc-resnet18", "patchwork.png").scene
    like = scene.likeness(0.25, 0.7)  # the sea
    height, width = like.shape
    sea, wood = (
        like[int(0.8 * height), int(0.29 * width)],
        like[int(0.8 * height), int(0.9 * width)],
    )
    assert sea > wood + 0.3 and like.max() <= 1.001


def test_a_model_without_maps_is_refused(monkeypatch):
    monkeypatch.setattr(dense_scene, "has_dense", lambda model: False)
    with pytest.raises(UserError, match="no feature map"):
        looked_at("rs/rsisc-resnet18", str(EXAMPLES / "patchwork.png"))
