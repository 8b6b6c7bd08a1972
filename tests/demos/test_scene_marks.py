"""Points and areas of a scene: which cells they have, and how a file's polygons become them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from rs_models.demos import scene_work
from rs_models.demos.dense_scene import DenseScene
from rs_models.demos.scene_marks import MAX_CORNERS, Mark, area, cells, from_file, point
from rs_models.demos.scene_work import Work
from rs_models.errors import UserError
from tests.conftest import ROOT

MOSAIC = ROOT / "spaces" / "segment-a-scene" / "examples" / "mosaic_utm32.tif"
BOX = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]


@pytest.fixture
def scene():
    """The drawn example; its upper half looks unlike its lower half."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(32, 32, 8)).astype(np.float16)
    features[:16] += 3
    with rasterio.open(MOSAIC) as raster:
        place = {"crs": raster.crs, "transform": raster.transform}
    picture = np.zeros((256, 256, 3), np.uint8)
    return DenseScene("mosaic", picture, features, (768, 768), place, None)


def test_an_area_has_the_cells_inside_and_later_marks_lie_over_earlier():
    grid = cells([area(BOX, "a"), point(0.5, 0.5, "b")], (8, 8))
    expected = np.full((8, 8), -1)
    expected[2:6, 2:6] = 0
    expected[3:6, 3:6] = 1
    np.testing.assert_array_equal(grid, expected)
    ring = tuple((x, y) for x, y in BOX)
    hole = tuple((0.5 + (x - 0.5) / 2, 0.5 + (y - 0.5) / 2) for x, y in ring)
    holed = cells([Mark("a", (ring, hole))], (8, 8))
    assert (holed >= 0).sum() == 16 - 4 and holed[4, 4] == -1
    beyond = cells([Mark("a", (((-1, -1), (0.5, -1), (0.5, 2), (-1, 2)),))], (8, 8))
    np.testing.assert_array_equal(beyond >= 0, np.arange(8)[None] < np.full((8, 1), 4))


def test_an_area_smaller_than_a_cell_has_the_cell_that_it_touches():
    car = [[0.51, 0.51], [0.53, 0.51], [0.53, 0.53]]
    grid = cells([area(car, "car")], (8, 8))
    assert np.argwhere(grid == 0).tolist() == [[4, 4]]


def test_a_large_area_does_not_outweigh_points(scene):
    """Nine cells of a class beside 400 of another: its half of the scene is still its own."""
    work = Work(scene, ["up", "down"])
    work.add([area([[0, 0.55], [1, 0.55], [1, 1], [0, 1]], "down")], work.classes)
    work.add([point(0.5, 0.25, "up")], work.classes)
    mask = work.mask((32, 32))
    assert (mask[:15] == 0).mean() > 0.9 and (mask[17:] == 1).mean() > 0.9


def test_a_class_under_others_is_not_in_the_map(scene):
    work = Work(scene, ["a", "b"], [point(0.5, 0.5, "a"), area(BOX, "b")])
    assert work.used == ["b"] and work.mask() is None
    work.add([point(0.1, 0.1, "a")], work.classes)
    assert work.used == ["a", "b"] and work.counted == "2 points and 1 area"
    assert set(np.unique(work.mask())) <= {0, 1}


@pytest.mark.parametrize(
    "corners, said",
    [
        (BOX[:2], "three corners or more"),
        (None, "three corners or more"),
        ([*BOX, [1.5, 0.5]], "outside of the scene"),
        ([*BOX, [float("nan"), 0.5]], "outside of the scene"),
        ([*BOX, "x"], "outside of the scene"),
        ([*BOX, [0.1, 0.2, 0.3]], "outside of the scene"),
        ([[0.5, 0.5]] * (MAX_CORNERS + 1), "draw it with fewer"),
    ],
)
def test_areas_that_are_none_are_refused(corners, said):
    with pytest.raises(UserError, match=said):
        area(corners, "a")


def feature(name, coordinates, kind="Polygon"):
    return {
        "type": "Feature",
        "properties": {} if name is None else {"class": name},
        "geometry": {"type": kind, "coordinates": coordinates},
    }


def written(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return str(path)


def on_the_ground(scene, corners):
    """Longitude and latitude of places of a scene from 0 to 1."""
    from rasterio.warp import transform

    x, y = zip(*(scene.place["transform"] @ (768 * a, 768 * b) for a, b in corners), strict=True)
    return [list(place) for place in zip(*transform(scene.place["crs"], 4326, x, y), strict=True)]


@pytest.fixture
def labels(scene, tmp_path):
    """Two areas, one of them with a second part, and a point on the scene; one beside it."""
    box = on_the_ground(scene, [*BOX, BOX[0]])
    corner = on_the_ground(scene, [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.0, 0.0)])
    far = [[lon + 1, lat] for lon, lat in box]
    place = on_the_ground(scene, [(0.9, 0.9)])[0]
    return written(
        tmp_path / "labels.geojson",
        feature("field", [box]),
        feature("water", [[corner], [far]], "MultiPolygon"),
        feature("water", place, "Point"),
        feature("wood", [far]),
    )


def test_polygons_of_a_file_become_marks_where_they_lie(scene, labels):
    marks = from_file(labels, scene)
    assert [mark.name for mark in marks if mark.corners < 5] == ["water", "water"]
    assert {mark.name for mark in marks} == {"field", "water"}
    field = next(mark for mark in marks if mark.name == "field")
    np.testing.assert_allclose(field.rings[0], [*BOX, BOX[0]], atol=1e-4)
    points = [mark for mark in marks if not mark.is_area]
    np.testing.assert_allclose(points[0].rings[0][0], (0.9, 0.9), atol=1e-4)


def test_a_file_is_taken_back_as_it_came(scene, labels):
    work = Work(scene, ["class 1"], [point(0.5, 0.5, "class 1")])
    count = work.add_file(labels)
    assert work.classes == ["class 1", "field", "water"] and len(work.marks) == 1 + count
    assert work.mask() is not None
    work.undo()
    assert [mark.name for mark in work.marks] == ["class 1"]


def test_a_geopackage_says_the_same(scene, labels, tmp_path):
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    from rs_models.data.vectors import read_features

    features, _ = read_features(labels)
    same = tmp_path / "labels.gpkg"
    pyogrio.raw.write(
        same,
        np.array([shapely.to_wkb(shapely.geometry.shape(shape)) for shape, _ in features]),
        [np.array([stated["class"] for _, stated in features])],
        ["class"],
        geometry_type="Unknown",
        crs="EPSG:4326",
    )
    assert from_file(str(same), scene) == from_file(labels, scene)


def test_files_that_do_not_fit_are_refused_without_the_servers_folder(
    scene, labels, tmp_path, monkeypatch
):
    def refused(path, said, scene=scene):
        with pytest.raises(UserError, match=said) as error:
            Work(scene, ["a"]).add_file(str(path))
        assert str(tmp_path) not in str(error.value)

    flat = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    refused(tmp_path / "gone.geojson", "not, or no longer, among the uploads")
    refused(written(tmp_path / "far.geojson", feature("a", [flat])), "Nothing in far.geojson lies")
    refused(written(tmp_path / "none.geojson", feature(None, [flat])), "in a property 'class'")
    (tmp_path / "broken.geojson").write_text("{")
    refused(tmp_path / "broken.geojson", "broken.geojson is no GeoJSON")
    (tmp_path / "broken.gpkg").write_text("{")
    refused(tmp_path / "broken.gpkg", "broken.gpkg cannot be read")
    (tmp_path / "labels.txt").write_text("{")
    refused(tmp_path / "labels.txt", "should end in one of")
    box = on_the_ground(scene, [*BOX, BOX[0]])
    many = [feature(f"class {number}", [box]) for number in range(10)]
    refused(written(tmp_path / "many.geojson", *many), "9 at most")
    monkeypatch.setattr(scene_work, "MAX_CORNERS", 8)
    refused(labels, "simplify them")
    without = DenseScene("photo", scene.picture, scene.features, (256, 256), {}, None)
    refused(labels, "has no place on the ground", scene=without)
