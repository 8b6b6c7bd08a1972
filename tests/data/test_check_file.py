"""What `check` says of one raster, image or vector file, and of folders that hold traps."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Features, Image
from rasterio.enums import ColorInterp

from rs_models.cli import main
from rs_models.data.check import check
from tests.data import make
from tests.predict.helpers import pixels, write

COLOURS = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]


def facts(path, **settings):
    report = check(path, **settings)
    return {title.strip(): told for title, told in report.facts}, " ".join(report.problems)


def test_an_alpha_band_is_a_mask(tmp_path):
    import rasterio

    alpha = np.full((1, 64, 64), 255, np.uint8)
    alpha[:, :, :16] = 0
    path = write(tmp_path / "drone.tif", np.concatenate([pixels(64, 64) // 2, alpha]))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = COLOURS
    told, problems = facts(path)
    assert told["bands"] == "4: red, green, blue and alpha, a mask" and not problems
    assert told["without data"].startswith("25.0%") and not told["values"].endswith("255")


def test_sixteen_bits_say_what_they_become(tmp_path):
    reflectance = write(tmp_path / "s.tif", pixels(64, 64).astype(np.uint16) * 40)
    told, problems = facts(reflectance)
    assert told["reflectance"] == "taken for reflectance times 10,000" and not problems
    bright = write(tmp_path / "b.tif", np.full((3, 64, 64), 60_000, np.uint16))
    assert "which make a reflectance of 6" in facts(bright)[1]


def test_band_numbers_without_a_sensor_and_broken_pixels_are_problems(tmp_path):
    names = ["B4", "B3", "B2"]
    path = write(tmp_path / "n.tif", pixels(64, 64), names=names)
    assert "calls its bands B4, B3, B2" in facts(path)[1]
    assert facts(path, bands="red,green,blue")[1] == ""
    path = write(tmp_path / "whole.tif", pixels(256, 256))
    (tmp_path / "cut.tif").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "pixels cannot be read" in facts(tmp_path / "cut.tif")[1]


def test_complex_values_are_a_problem(tmp_path):
    path = write(tmp_path / "radar.tif", pixels(64, 64).astype(np.complex64))
    assert "complex numbers (complex64)" in facts(path)[1]


def test_images_need_no_place(tmp_path):
    PIL.Image.fromarray(make.pixels(0)).save(tmp_path / "one.png")
    told, problems = facts(tmp_path / "one.png")
    assert told["place"] == "none" and told["bands"] == "3: red, green, blue" and not problems


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_vectors_say_their_properties_whatever_their_lines_end_in(tmp_path, capsys, ends):
    point = {"type": "Point", "coordinates": [9.0, 48.0]}
    features = [
        {"type": "Feature", "properties": {"kind": 1.0}, "geometry": point},
        {"type": "Feature", "properties": {"kind": "1"}, "geometry": point},
        {"type": "Feature", "properties": {"kind": None}, "geometry": None},
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    content = b"\xef\xbb\xbf" + text.replace("\n", ends).encode()
    (tmp_path / "labels.geojson").write_bytes(content)
    assert main(["check", str(tmp_path / "labels.geojson")]) == 2
    told = capsys.readouterr().out
    assert "3: 2 Point, 1 without a geometry" in told and "EPSG:4326" in told
    assert "kind    1 2, none 1" in told and "1 features have no geometry" in told


def test_images_of_two_types_and_masks_of_another_size_are_problems(tmp_path):
    (tmp_path / "tiles").mkdir()
    write(tmp_path / "tiles/a.tif", pixels(32, 32))
    write(tmp_path / "tiles/b.tif", pixels(32, 32).astype(np.uint16))
    assert "uint8 and uint16 lie side by side" in facts(tmp_path / "tiles")[1]
    rows = {"image": [], "mask": []}
    for side in (32, 16):
        rows["image"].append({"bytes": make.png(pixels(32, 32).transpose(1, 2, 0)), "path": None})
        mask = np.arange(side * side, dtype=np.uint8).reshape(side, side) % 3
        rows["mask"].append({"bytes": make.png(mask), "path": None})
    (tmp_path / "masks").mkdir()
    features = Features({"image": Image(), "mask": Image()})
    Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "masks/train.parquet"))
    assert "1 of 2 masks looked at have another size" in facts(tmp_path / "masks")[1]
    assert "row 1, 16 x 16 for an image of 32 x 32" in facts(tmp_path / "masks")[1]
