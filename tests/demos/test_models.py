"""Models of a page: those of its list, and others from the Hub alone, up to a size."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rs_models.demos import models
from rs_models.errors import UserError
from tests.conftest import ROOT
from tests.support.models import nano, provenance

PROGRAM = """
import json, os, sys
from pathlib import Path
from huggingface_hub import HfApi
from rs_models.demos import keeping, models
api, folder = HfApi(), sys.argv[1]
for name, private in (("owner/plain", False), ("owner/hidden", True), ("owner/large", False)):
    api.create_repo(name, private=private)
    api.upload_folder(repo_id=name, folder_path=folder)
os.chdir(keeping.workspace().parent)
told = {}
def ask(key, name):
    try:
        encoder = models.encoder(name)
        told[key] = [encoder.name, encoder.revision, type(encoder.model).__name__]
    except Exception as error:
        told[key] = f"{type(error).__name__}: {error}"
ask("plain", "owner/plain")
told["commit"] = api.model_info("owner/plain").sha
ask("hidden", "owner/hidden")
ask("missing", "owner/missing")
Path("owner/missing-but-a-folder").mkdir(parents=True)
ask("folder", "owner/missing-but-a-folder")
models.MAX_MODEL_BYTES = 1000
ask("large", "owner/large")
told["left"] = [str(path) for path in keeping.workspace().rglob("*")]
cache = Path(os.environ["HF_HOME"]) / "hub"
told["cached"] = [str(path) for path in cache.rglob("*.safetensors")]
print(json.dumps(told))
"""


def test_typed_models_come_from_the_hub_without_a_token_and_leave_nothing(hub, tmp_path):
    model = nano("resnet_mini", image_size=64)
    model.config.rs_models = provenance(model)
    model.save_pretrained(tmp_path / "model")
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "model")],
        env=hub.env(tmp_path / "home") | {"TMPDIR": str(work), "RS_MODELS_DEMO_MODELS": "x"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["plain"] == ["owner/plain", told["commit"], "ResNetModel"]
    # What the operator's token may read is not shown; a folder of that name changes nothing.
    said = {told[key].replace(name, "NAME") for key, name in _unseen()}
    assert len(said) == 1 and "that everybody may read" in said.pop()
    assert told["large"].startswith("UserError: owner/large has") and "the most" in told["large"]
    assert told["left"] == [] and told["cached"] == []
    assert list(work.iterdir()) == [work / "owner"]


def _unseen():
    yield "hidden", "owner/hidden"
    yield "missing", "owner/missing"
    yield "folder", "owner/missing-but-a-folder"


@pytest.mark.parametrize(
    "name", ["/etc", "/nothing", "../tmp", "a/../b", "./tests", "~/x", "a/b/c", "-/x", "a/.b"]
)
def test_what_is_no_id_gets_one_answer_whether_it_is_a_folder_or_not(name, monkeypatch):
    monkeypatch.setenv(models.VARIABLE, "listed")
    with pytest.raises(UserError, match=r"No model at '.*': choose one of the list, or type a Hub"):
        models.encoder(name)
