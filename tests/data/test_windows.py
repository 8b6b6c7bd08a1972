"""Windows from scenes and vectors, and what `check` says of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from rs_models.cli import main
from rs_models.data import load
from rs_models.data.check import check
from rs_models.data.windows import WindowSettings, make_windows
from rs_models.errors import UserError
from tests.data import make

PLACE = from_origin(500_000, 5_400_000, 1, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A scene of 256 x 256 whose left half is a field and right half water, and its polygons."""
    root = tmp_path_factory.mktemp("world")
    pixels = np.zeros((3, 256, 256), np.uint8) + 60
    pixels[:, :, 128:] = 180
    profile = {"height": 256, "width": 256, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(root / "s.tif", "w", driver="GTiff", transform=PLACE, **profile) as raster:
        raster.write(pixels)
    vectors(root / "land.geojson", [(0, 0, 128, 256, "field"), (128, 0, 256, 128, "water")])
    vectors(root / "cars.geojson", [(x, x, x + 8, x + 6, "car") for x in range(10, 240, 40)])
    vectors(root / "area.geojson", [(0, 0, 256, 192, "seen")])
    return root


def vectors(path, boxes):
    features = []
    for left, top, right, bottom, name in boxes:
        x0, y0, x1, y1 = 500_000 + left, 5_400_000 - top, 500_000 + right, 5_400_000 - bottom
        ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        shape = {"type": "Polygon", "coordinates": [ring]}
        geometry = transform_geom("EPSG:32632", "EPSG:4326", shape)
        features.append({"type": "Feature", "properties": {"kind": name}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def cut(world, output, labels="land", **settings):
    area = settings.pop("area", None)
    settings = WindowSettings(**{"field": "kind", "size": 32, "block": 2, **settings})
    return make_windows(world / "s.tif", world / f"{labels}.geojson", output, settings, area=area)


def test_masks_lie_where_the_polygons_lie(world, tmp_path):
    done = cut(world, tmp_path / "w")
    assert done.classes == ["field", "water"] and sum(done.rows.values()) == 48
    for split in done.rows:
        for row in load(tmp_path / "w", split):
            bright = np.asarray(row["image"])[..., 0] > 100
            expected = np.where(bright, 1, 0)
            assert ((row["mask"] == expected) | (row["mask"] == 255)).mean() > 0.99
    total = {name: sum(c[name] for c in done.counts.values()) for name in done.classes}
    assert total["field"] == pytest.approx(128 * 256, rel=0.01)
    assert total["water"] == pytest.approx(128 * 128, rel=0.01)


def test_splits_are_by_blocks_and_seeded(world, tmp_path):
    done = cut(world, tmp_path / "w")
    blocks = {}
    for split in done.rows:
        for row in load(tmp_path / "w", split):
            at = (int(row["x"] - 500_000) // 64, int(5_400_000 - row["y"]) // 64)
            assert blocks.setdefault(at, split) == split
    again = cut(world, tmp_path / "again")
    assert again.rows == done.rows and set(done.rows) == {"train", "validation", "test"}
    first = load(tmp_path / "w")[0]
    assert first["file"] == "s.tif" and first["crs"] == "EPSG:32632"
    assert first["longitude"] == pytest.approx(9.0, abs=0.01)


def test_a_scene_that_cannot_be_read_is_counted_or_stops(world, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    (scenes / "a.tif").write_bytes((world / "s.tif").read_bytes())
    (scenes / "b.tif").write_text("no tiff")
    settings = WindowSettings(field="kind", size=32, block=1)
    done = make_windows(scenes, world / "land.geojson", tmp_path / "w", settings)
    assert any("b.tif" in reason for reason in done.left_out) and sum(done.rows.values()) == 48
    with pytest.raises(UserError, match=r"b\.tif"):
        make_windows(scenes, world / "land.geojson", tmp_path / "no", settings, strict=True)
    assert not (tmp_path / "no").exists()


def test_outside_of_the_labelled_area_nothing_is_learned(world, tmp_path):
    done = cut(world, tmp_path / "w", background="rest", area=world / "area.geojson")
    assert done.classes == ["rest", "field", "water"]
    ignored = known = 0
    for split in done.rows:
        for row in load(tmp_path / "w", split):
            top = 5_400_000 - row["y"] - 16
            ignored += int((row["mask"] == 255).sum())
            known += int((row["mask"] != 255).sum())
            assert top < 192
    assert known == pytest.approx(256 * 192, rel=0.01)


def test_boxes_of_polygons_and_points(world, tmp_path):
    done = cut(world, tmp_path / "w", "cars", task="detection", size=64, block=1)
    assert done.classes == ["car"]
    boxes = [b for s in done.rows for r in load(tmp_path / "w", s) for b in r["objects"]["bbox"]]
    assert len(boxes) == 6
    assert all(
        w == pytest.approx(8, abs=0.2) and h == pytest.approx(6, abs=0.2)
        for *_, w, h in boxes
        if w > 7
    )
    points = json.loads((world / "cars.geojson").read_text())
    for feature in points["features"]:
        corner = feature["geometry"]["coordinates"][0][0]
        feature["geometry"] = {"type": "Point", "coordinates": corner}
    (world / "points.geojson").write_text(json.dumps(points))
    with pytest.raises(UserError, match="--point-size"):
        cut(world, tmp_path / "p", "points", task="detection", size=64, block=1)
    done = cut(world, tmp_path / "p", "points", task="detection", size=64, block=1, point_size=10)
    boxes = [b for s in done.rows for r in load(tmp_path / "p", s) for b in r["objects"]["bbox"]]
    assert len(boxes) == 6


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"field": "class"}, r"no features with a class in 'class' \(properties: kind\)"),
        ({"size": 256}, "1 blocks"),
        ({"size": 300}, "No feature of"),
        ({"size": 4}, "--size is 16 or more"),
        ({"bands": (1, 7)}, "are not all in"),
    ],
)
def test_what_cannot_be_cut_is_told(world, tmp_path, settings, said):
    with pytest.raises(UserError, match=said):
        cut(world, tmp_path / "w", **settings)
    assert not (tmp_path / "w").exists()


def test_from_the_command_line_to_the_check(world, tmp_path, capsys):
    output = str(tmp_path / "w")
    arguments = ["--classes", "kind", "--output", output, "--size", "32", "--block", "2"]
    assert main(["windows", str(world / "s.tif"), str(world / "land.geojson"), *arguments]) == 0
    assert "--data.classes '[field, water]'" in capsys.readouterr().out
    assert main(["check", output]) == 0
    said = capsys.readouterr().out
    assert "mask values" in said and "32 x 32" in said and "nothing is amiss" in said
    assert "Splits are by place" in (tmp_path / "w" / "README.md").read_text()


def test_a_check_says_what_is_there_and_what_is_not(tmp_path, capsys):
    make.class_folders(tmp_path / "train", {"sea": 2, "river": 1, "field": 1})
    make.class_folders(tmp_path / "testing", {"sea": 1, "river": 1})
    (tmp_path / "train" / "sea" / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("mine")
    report = check(tmp_path)
    facts = dict(report.facts)
    assert facts["splits"] == "train, test" and facts["not read"] == "1 .txt"
    assert any("broken.png" in problem for problem in report.problems)
    assert any("test: no image has the class field" in problem for problem in report.problems)
    assert main(["check", str(tmp_path)]) == 2
    assert "3 classes: field 1, river 1, sea 3" in capsys.readouterr().out


def test_a_check_of_a_scene(world):
    facts = dict(check(world / "s.tif").facts)
    assert facts["scene"] == "GTiff, 256 x 256" and facts["place"].startswith("EPSG:32632")
    assert facts["values"].endswith("60, 60, 120, 180, 180")
