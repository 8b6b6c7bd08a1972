"""The wheel alone does what the README does without a clone.

`RS_MODELS_WHEEL` names the wheel, as `.ci/run` builds it; without it these are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.predict.helpers import pixels, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("RS_MODELS_WHEEL" not in os.environ, reason="RS_MODELS_WHEEL is not set"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel's files, beside no clone."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(os.environ["RS_MODELS_WHEEL"]) as file:
        file.extractall(folder)
    return folder


@pytest.fixture
def run(wheel, tmp_path):
    """Runs a command of the wheel in an empty folder."""

    def command(*words: str) -> str:
        call = "import sys; from rs_models.cli import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", call, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    return command


def test_it_is_the_wheel_that_runs(wheel):
    code = "import rs_models; print(rs_models.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=wheel, env=environment, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).parent == wheel / "rs_models"


def test_what_the_code_imports_is_declared(wheel):
    metadata = next(wheel.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    for name in ("affine", "rasterio", "pyproj", "shapely"):
        assert f"\nRequires-Dist: {name}>=" in metadata
    for extra in ("demo", "notebooks", "onnx", "geo"):
        assert f"\nProvides-Extra: {extra}\n" in metadata


def test_from_images_to_a_map(run, tmp_path):
    from rs_models.data import load

    images = tmp_path / "images"
    for number, row in enumerate(load("rs/ucmerced", "train").shuffle(seed=0).select(range(48))):
        place = images / ("ab"[number % 2])
        place.mkdir(parents=True, exist_ok=True)
        row["image"].save(place / f"{number}.jpg")
    write(tmp_path / "scene.tif", pixels(90, 120))
    run("list")
    small = ("--backbone", "resnet_nano", "--image_size", "32", "--batch_size", "16")
    model = "outputs/mine/export"
    told = run(
        *("pretrain", "--config", "quickstart", "--data.name", "images", "--epochs", "2"),
        *("--output_dir", "outputs/mine", "--evaluation.every", "0", *small),
    )
    assert f'from_pretrained("{model}")' in told
    run("embed", "images", "--model", model, "--output", "outputs/table")
    run("suggest", "outputs/table", "-n", "8", "--output", "labels.csv", "--sheet", "next.png")
    head, *rows = (tmp_path / "labels.csv").read_text().splitlines()
    filled = [f"{row}{'ab'[number % 2]}" for number, row in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("\n".join([head, *filled]) + "\n")
    run("classify", "outputs/table", "--labels", "labels.csv", "--output", "answers.csv")
    run(
        *("finetune", "--model", model, "--data.name", "images", "--data.test_split", "train"),
        *("--labels", "8", "--max_steps", "2", "--batch_size", "4", "--output_dir", "tuned"),
    )
    run("predict", "scene.tif", "--model", "tuned/model", "--output", "map.tif", "--polygons")
    run("onnx", model, "--output", "model.onnx")
    assert (tmp_path / "map.geojson").is_file() and (tmp_path / "model.onnx").is_file()
