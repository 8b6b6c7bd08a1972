"""The pretraining script as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.trainer.helpers import DATA

SCRIPT = str(ROOT / "training" / "pretrain.py")
TINY = [f"data.name={DATA}", "backbone=resnet_nano", "image_size=32", "batch_size=8", "epochs=1"]


def run(*command, **environment):
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.slow
def test_the_quickstart_trains_evaluates_and_tells_how_to_load(tmp_path):
    config = str(ROOT / "training" / "configs" / "quickstart.yaml")
    accelerate = os.path.join(os.path.dirname(sys.executable), "accelerate")
    done = run(
        *(accelerate, "launch", "--cpu", "--num_processes", "1", SCRIPT, "--config", config),
        *TINY,
        f"output_dir={tmp_path}/run",
    )
    assert done.returncode == 0, done.stderr
    for name in ("this run", "random initialisation", "image statistics"):
        assert name in done.stdout
    code = done.stdout[done.stdout.index("  from transformers") :]
    code = code.partition("Next:")[0]
    loads = "import sys\n" + "\n".join(line.strip() for line in code.splitlines())
    loads += "\nassert 'rs_models' not in sys.modules\nprint(type(model).__name__)"
    loaded = run(sys.executable, "-c", loads)
    assert loaded.stdout.strip() == "ResNetModel", loaded.stderr
    results = list((tmp_path / "run" / "results").rglob("*.json"))
    assert len(results) == 3
    assert all(json.loads(file.read_text())["protocol"] == "knn20" for file in results)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    torchrun = os.path.join(os.path.dirname(sys.executable), "torchrun")
    done = run(
        *(torchrun, "--standalone", "--nproc_per_node", "2", SCRIPT, *TINY),
        f"output_dir={tmp_path}/run",
        ACCELERATE_USE_CPU="true",
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 3
    state = tmp_path / "run" / "checkpoints" / "step-3" / "trainer_state.json"
    assert len(json.loads(state.read_text())["positions"]) == 2
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["epoch=3"], "Unknown setting epoch (did you mean epochs?)"),
        (["batch_size=many"], "batch_size should be int"),
        (["data.name=/no/such/folder"], "/no/such/folder"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(tmp_path, arguments, words):
    done = run(sys.executable, SCRIPT, f"output_dir={tmp_path}/run", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
