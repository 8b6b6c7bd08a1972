"""A Hub that fails: every fault is a sentence with the right exit code, and never a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from tests.data import make

PROGRAM = """
import sys
from rs_models.data import load
from rs_models.settings import run_script

def main(argv):
    print("rows", len(load("rs/set", "train")))

sys.exit(run_script(main, []))
"""
FAULTS = {
    "401": ({"kind": "status", "status": 401}, 2),
    "403 of files": ({"kind": "status", "status": 403, "path": "/resolve/"}, 2),
    "404": ({"kind": "status", "status": 404}, 2),
    "429": ({"kind": "status", "status": 429, "retry_after": 1}, 1),
    "500": ({"kind": "status", "status": 500}, 1),
    "503 of files": ({"kind": "status", "status": 503, "path": "/resolve/"}, 1),
    "short body": ({"kind": "truncate", "path": "/resolve/"}, 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    (root / "data").mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    images = [{"bytes": make.png(make.pixels(i)), "path": None} for i in range(4)]
    rows = Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    rows.to_parquet(str(root / "data" / "train-00000-of-00001.parquet"))
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_a_sentence(hub, folder, tmp_path, fault):
    environment = {**hub.env(tmp_path / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    upload = (
        "from huggingface_hub import HfApi; api = HfApi();"
        "api.create_repo('rs/set', repo_type='dataset', exist_ok=True);"
        f"api.upload_folder(repo_id='rs/set', repo_type='dataset', folder_path={str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", upload], env=environment, check=True, timeout=60)
    settings, code = FAULTS[fault]
    settings = dict(settings)
    kind, path = settings.pop("kind"), settings.pop("path", "set")
    hub.fail(kind, "*", path, times=1000, **settings)
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.returncode == code, done.stderr[-800:]
    assert "error: " in done.stderr and "rows" not in done.stdout
    hub.heal()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "rows 4" in done.stdout, done.stderr[-800:]
