"""Data sets on a machine without a network: a local hub folder, and a cache that was copied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from rs_models.data import load
from rs_models.data.sources import resolve_revision
from rs_models.errors import UserError
from rs_models.zoo import local_repository

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A data set as it lies on the Hub: two splits in Parquet."""
    from PIL import Image as Pillow

    folder = tmp_path_factory.mktemp("repository")
    features = Features({"image": Image(), "label": ClassLabel(names=["field", "forest"])})
    for split, count in (("train", 4), ("test", 2)):
        rows = {
            "image": [Pillow.new("RGB", (8, 8), (i, 0, 0)) for i in range(count)],
            "label": [i % 2 for i in range(count)],
        }
        (folder / "data").mkdir(exist_ok=True)
        Dataset.from_dict(rows, features=features).to_parquet(
            folder / "data" / f"{split}-00000-of-00001.parquet"
        )
    return folder


@pytest.mark.parametrize("place", ["rs/mini", "datasets/rs/mini"])
def test_an_id_is_found_in_the_local_hub_folder(repository, tmp_path, monkeypatch, place):
    shutil.copytree(repository, tmp_path / place)
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(tmp_path))
    rows = load("rs/mini", "test")
    assert len(rows) == 2
    assert rows.features["label"].names == ["field", "forest"]
    assert resolve_revision("rs/mini") is None
    assert local_repository("rs/mini", datasets=True) == tmp_path / place


def test_the_folder_of_data_sets_comes_before_a_model_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(tmp_path))
    assert local_repository("rs/mini") is None
    for place in ("rs/mini", "datasets/rs/mini"):
        (tmp_path / place).mkdir(parents=True)
    assert local_repository("rs/mini") == tmp_path / "rs/mini"
    assert local_repository("rs/mini", datasets=True) == tmp_path / "datasets/rs/mini"
    assert local_repository("mini") is None
    monkeypatch.delenv("RS_MODELS_HUB_DIR")
    assert local_repository("rs/mini") is None


def test_a_known_set_is_found_there_by_its_short_name(repository, tmp_path, monkeypatch):
    shutil.copytree(repository, tmp_path / "datasets" / "timm" / "eurosat-rgb")
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(tmp_path))
    assert len(load("eurosat-rgb", "train")) == 4


def test_a_copied_cache_opens_by_id_although_datasets_never_saw_it(repository, tmp_path):
    """`load_dataset` alone fails here: it wants a cache of its own."""
    cached = tmp_path / "hub" / "datasets--rs--mini"
    shutil.copytree(repository, cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    code = (
        "import json, rs_models.data as data; from rs_models.data.sources import resolve_revision;"
        "rows = data.load('rs/mini', 'test'); stream = data.load('rs/mini', streaming=True);"
        "print(json.dumps([len(rows), len(list(stream)), resolve_revision('rs/mini')]))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, 4, COMMIT]


def test_an_id_that_is_nowhere_is_told_in_a_sentence():
    with pytest.raises(UserError, match="rs/nowhere is not in the local cache, and HF_HUB_OFFLINE"):
        load("rs/nowhere")
