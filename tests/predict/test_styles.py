"""Files beside a map of classes: names, colours and hectares for QGIS, GDAL and ArcGIS."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import rasterio

from rs_models.predict import predict
from tests.predict.helpers import pixels, predictor, write

SMALL = {"tile": 32, "overlap": 8, "progress": False}


def test_a_map_of_classes_has_a_table_and_a_style(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(80, 90))
    done = predict(scene, predictor(), tmp_path / "map.tif", **SMALL)
    total = sum(done.hectares.values())
    assert total == pytest.approx(80 * 90 * 0.25 / 0.9996**2 / 1e4, rel=1e-4)
    with rasterio.open(tmp_path / "map.tif") as file:
        palette = file.colormap(1)
    style = ElementTree.parse(tmp_path / "map.qml")
    entries = [entry.attrib for entry in style.iter("paletteEntry")]
    assert [entry["label"] for entry in entries] == ["dark", "red", "blue"]
    assert [entry["color"] for entry in entries] == [
        "#{:02x}{:02x}{:02x}".format(*palette[number][:3]) for number in range(3)
    ]
    table = ElementTree.parse(tmp_path / "map.tif.aux.xml")
    rows = [[value.text for value in row] for row in table.iter("Row")]
    assert [row[:2] for row in rows] == [["0", "dark"], ["1", "red"], ["2", "blue"]]
    for row in rows:
        assert float(row[5]) == pytest.approx(done.hectares.get(row[1], 0), abs=1e-4)
        assert tuple(map(int, row[2:5])) == palette[int(row[0])][:3]


def test_a_style_of_somebody_else_stays(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(40, 40))
    (tmp_path / "map.qml").write_text("<qgis>mine</qgis>")
    (tmp_path / "map.geojson").write_text('{"mine": 1}')
    predict(scene, predictor(), tmp_path / "map.tif", **SMALL)
    assert (tmp_path / "map.qml").read_text() == "<qgis>mine</qgis>"
    with pytest.raises(ValueError, match="was not written by rs_models"):
        predict(scene, predictor(), tmp_path / "map.tif", polygons=True, **SMALL)
    assert (tmp_path / "map.geojson").read_text() == '{"mine": 1}'
    predict(scene, predictor(), tmp_path / "other.tif", polygons=True, **SMALL)
    predict(scene, predictor(), tmp_path / "other.tif", polygons=True, **SMALL)  # again: ours
