"""`rs-models predict` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from rs_models import backbones
from rs_models.cli import main
from rs_models.tasks.segmenters import FcnConfig, FcnForSemanticSegmentation
from tests.conftest import ROOT
from tests.predict.helpers import RGB, pixels, read, write
from tests.predict.test_predict import broken


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = backbones.backbone_config("resnet_nano", image_size=64)
    config.rs_models = RGB.record()
    folder = tmp_path_factory.mktemp("model")
    FcnForSemanticSegmentation(FcnConfig(backbone_config=config, num_labels=3)).save_pretrained(
        folder
    )
    return folder


def test_one_scene_with_polygons(tmp_path, model, capsys):
    write(tmp_path / "scene.tif", pixels(90, 120))
    arguments = [f"{tmp_path}/scene.tif", "--model", str(model), "--tile", "64", "--polygons"]
    assert main(["predict", *arguments, "--output", f"{tmp_path}/out/map.tif"]) == 0
    said = capsys.readouterr().out
    assert "map.tif: classes of" in said and "polygons" in said
    found = read(tmp_path / "out" / "map.tif")[0]
    assert found.shape == (90, 120) and found.max() <= 2
    content = json.loads((tmp_path / "out" / "map.geojson").read_text())
    area = sum(f["properties"]["area_m2"] for f in content["features"])
    assert area == pytest.approx(90 * 120 * 0.25 / 0.9996**2, rel=1e-4)


def test_of_many_scenes_a_broken_one_is_told_and_the_rest_made(tmp_path, model, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "c"):
        write(tmp_path / "in" / f"{name}.tif", pixels(70, 70))
    broken(tmp_path / "in" / "b.tif", pixels(70, 70))
    arguments = [f"{tmp_path}/in", "--model", str(model), "--output", f"{tmp_path}/out", "--json"]
    assert main(["predict", *arguments, "--tile", "64"]) == 1
    said = capsys.readouterr()
    assert "b.tif cannot be read in rows" in said.err
    content = json.loads(said.out)
    assert [row["scene"].endswith(("a.tif", "c.tif")) for row in content["made"]] == [True, True]
    assert [name.endswith("b.tif") for name in content["failed"]] == [True]
    assert main(["predict", *arguments, "--tile", "64", "--skip-corrupt"]) == 0
    assert json.loads(capsys.readouterr().out)["made"][1]["corrupt_blocks"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{in}/missing.tif", "--output", "{in}/x.tif"], "is not there"),
        (["{in}", "--output", "{in}/x.tif"], "and there are 2 scenes"),
        (["{in}", "--output", "{in}"], "would be overwritten"),
        (["{in}/empty", "--output", "{in}/o"], "holds no scene"),
        (["{in}/a.tif", "--output", "{in}/x.tif", "--bands", "red,green"], "bands names 2"),
        (["{in}/a.tif", "--output", "{in}/x.tif", "--kind", "boxes"], "not boxes"),
    ],
)
def test_bad_input_ends_in_a_sentence(tmp_path, model, capsys, arguments, message):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tif", pixels(40, 40))
    (tmp_path / "empty").mkdir()
    filled = [argument.replace("{in}", str(tmp_path)) for argument in arguments]
    assert main(["predict", *filled, "--model", str(model)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.slow
def test_two_processes_share_the_scenes(tmp_path, model):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate("abc"):
        write(tmp_path / "in" / f"{name}.tif", pixels(70, 70, seed=seed))
    arguments = [str(tmp_path / "in"), "--model", str(model), "--tile", "64", "--json"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    done = subprocess.run(
        [*launch, "-m", "rs_models.cli", "predict", *arguments, "--output", str(tmp_path / "two")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout[done.stdout.index("{") :])["made"]) == 3
    assert main(["predict", *arguments, "--output", str(tmp_path / "one")]) == 0
    for name in "abc":
        np.testing.assert_array_equal(
            read(tmp_path / "two" / f"{name}.tif"), read(tmp_path / "one" / f"{name}.tif")
        )
