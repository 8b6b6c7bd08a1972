"""The fine-tuning script and its recipes as a user starts them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rs_models.evaluation.results import read_all
from rs_models.settings import parse
from rs_models.tasks.finetuning import FinetuneConfig, finetune
from rs_models.tasks.finetuning.config import check
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "training" / "configs").glob("finetune_*.yaml"))
SMALL = {
    "segmentation": "head_settings={decoder_channels: 8, low_level_channels: 4}",
    "detection": "head_settings={pyramid_channels: 8, head_dim: 16}",
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(recipe):
    check(parse(FinetuneConfig, ["--config", str(recipe)]))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation", "detection"])
def test_a_recipe_runs(tmp_path, task):
    arguments = [
        *("--config", str(ROOT / "training" / "configs" / f"finetune_{task}.yaml")),
        *("data.name=synthetic:num=60,size=32", "data.validation_split=validation"),
        *("model=baseline:random-resnet_nano", "max_steps=2", "evaluations=1", "seeds=[0]"),
        f"labels={'2/class' if task == 'classification' else 8}",
        f"output_dir={tmp_path}/run",
        *([SMALL[task]] if task in SMALL else []),
    ]
    result = finetune(parse(FinetuneConfig, arguments))
    assert result is not None and result.settings["runs"][0]["validation_images"] == 60


@pytest.mark.slow
def test_two_processes_count_every_test_image_once(tmp_path):
    arguments = [
        *("task=segmentation", "data.name=synthetic:num=45,size=32", "labels=10", "seeds=[0]"),
        *("model=baseline:random-resnet_nano", "max_steps=2", "evaluations=1", "batch_size=4"),
        *(SMALL["segmentation"], f"output_dir={tmp_path}/run"),
    ]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    done = subprocess.run(
        [*launch, str(ROOT / "training" / "finetune.py"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = read_all(tmp_path / "run" / "results")
    assert result.settings["test_images"] == 45
    import json

    rows = json.loads((tmp_path / "run" / "seed-0" / "test.json").read_text())["rows"]
    assert len(rows) == 45
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
