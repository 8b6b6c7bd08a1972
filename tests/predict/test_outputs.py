"""Outputs: never an input, always a file or a sentence, anew when what they are of changed."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from rs_models.errors import UserError
from rs_models.predict import predict
from tests.predict.helpers import PixelModel, pixels, predictor, read, write

SMALL = {"tile": 32, "overlap": 8, "batch_size": 3, "progress": False}


@pytest.mark.parametrize("how", ["path", "dotted", "symlink", "hard link", "upper folder's link"])
def test_the_output_is_never_the_scene(tmp_path, how):
    (tmp_path / "in").mkdir()
    scene = write(tmp_path / "in" / "scene.tif", pixels(40, 40))
    content = scene.read_bytes()
    output = tmp_path / "link.tif"
    if how == "symlink":
        output.symlink_to(scene)
    elif how == "hard link":
        os.link(scene, output)
    elif how == "upper folder's link":
        (tmp_path / "other").symlink_to(tmp_path / "in")
        output = tmp_path / "other" / "scene.tif"
    else:
        output = scene if how == "path" else tmp_path / "in" / ".." / "in" / "scene.tif"
    with pytest.raises(UserError, match=r"which the scene .* is read from"):
        predict(scene, predictor(), output, **SMALL)
    assert scene.read_bytes() == content


def test_the_output_is_no_source_of_a_vrt_in_a_vrt(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(40, 40))
    rasterio.shutil.copy(scene, tmp_path / "inner.vrt", driver="VRT")
    rasterio.shutil.copy(tmp_path / "inner.vrt", tmp_path / "outer.vrt", driver="VRT")
    with pytest.raises(UserError, match=r"scene\.tif is .*scene\.tif, which the scene"):
        predict(tmp_path / "outer.vrt", predictor(), scene, **SMALL)
    predict(tmp_path / "outer.vrt", predictor(), tmp_path / "map.tif", **SMALL)


def test_a_vrt_whose_source_changed_starts_anew(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(200, 100))
    rasterio.shutil.copy(scene, tmp_path / "scene.vrt", driver="VRT")
    model = PixelModel()

    def stopped():
        model.fail_after = 9
        with pytest.raises(KeyboardInterrupt):
            predict(tmp_path / "scene.vrt", predictor(model), tmp_path / "map.tif", **SMALL)
        model.fail_after = None

    stopped()
    done = predict(tmp_path / "scene.vrt", predictor(model), tmp_path / "map.tif", **SMALL)
    assert done.computed < done.tiles
    stopped()
    write(scene, pixels(200, 100, seed=1))
    os.utime(scene, ns=(1, 1))
    done = predict(tmp_path / "scene.vrt", predictor(model), tmp_path / "map.tif", **SMALL)
    assert done.computed == done.tiles
    predict(scene, predictor(), tmp_path / "whole.tif", **SMALL)
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), read(tmp_path / "whole.tif"))


def test_a_second_run_is_told_who_works_on_the_output(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(200, 100))
    begun, go_on = threading.Event(), threading.Event()

    class Waiting(PixelModel):
        def forward(self, x):
            begun.set()
            go_on.wait(60)
            return super().forward(x)

    output = tmp_path / "map.tif"
    first = threading.Thread(
        target=predict, args=(scene, predictor(Waiting()), output), kwargs=SMALL
    )
    first.start()
    try:
        assert begun.wait(60)
        with pytest.raises(UserError, match=f"worked on by process {os.getpid()}"):
            predict(scene, predictor(), output, **SMALL)
    finally:
        go_on.set()
        first.join()
    assert output.exists()


def test_names_of_any_length_give_a_map_or_a_sentence(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(40, 40))
    predict(scene, predictor(), tmp_path / ("x" * 211 + ".tif"), **SMALL)
    assert (tmp_path / ("x" * 211 + ".tif")).exists()
    for name in ("x" * 212 + ".tif", "x" * 300 + ".tif", "/".join(["y" * 200] * 21) + "/m.tif"):
        with pytest.raises(UserError, match=r"cannot be written .*too long"):
            predict(scene, predictor(), tmp_path / name, **SMALL)


def test_places_that_cannot_be_written_are_told(tmp_path):
    scene = write(tmp_path / "scene.tif", pixels(40, 40))
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.tif").mkdir()
    for name, message in (("file/m.tif", "cannot be written"), ("folder.tif", "is a folder")):
        with pytest.raises(UserError, match=message):
            predict(scene, predictor(), tmp_path / name, **SMALL)
    with pytest.raises(UserError, match="cannot be written"):
        predict(scene, predictor(), "/proc/nothere/m.tif", **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 1_000_000}, "tile is 1000000 pixels: it must be from 1 to 8192"),
        ({"tile": -5}, "tile is -5"),
        ({"min_area": float("nan")}, "min_area is nan"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"device": "nope"}, "device 'nope' cannot be used"),
        ({"device": "cuda:77"}, "device 'cuda:77' cannot be used"),
    ],
)
def test_numbers_and_devices_that_cannot_be_are_told(tmp_path, settings, message):
    scene = write(tmp_path / "scene.tif", pixels(40, 40))
    with pytest.raises(UserError, match=message):
        predict(scene, predictor(), tmp_path / "m.tif", **{**SMALL, **settings})


def test_a_map_that_would_fill_the_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    """As of a file of a few kilobytes whose header says 400,000 pixels a side."""
    layout = {"height": 400_000, "width": 400_000, "count": 3, "dtype": "uint8", "tiled": True}
    blocks = {"blockxsize": 8192, "blockysize": 8192, "sparse_ok": True, "bigtiff": "yes"}
    path = tmp_path / "huge.tif"
    with rasterio.open(path, "w", driver="GTiff", photometric="RGB", **layout, **blocks):
        pass
    usage = os.statvfs(tmp_path)
    free = min(usage.f_bavail * usage.f_frsize, 100 * 10**9)
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(UserError, match=r"needs 160\.0 GB for 400,000 x 400,000 pixels"):
        predict(path, predictor(), tmp_path / "map.tif", tile=512, progress=False)
