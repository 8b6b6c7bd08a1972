"""Embeddings of many images: right, resumable, the same by any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from rs_models.commands.embed import main
from rs_models.data import build_cache, load
from rs_models.errors import UserError
from rs_models.evaluation import embed as module
from rs_models.evaluation.embed import embed
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.export import export
from rs_models.settings import run_script
from tests.conftest import ROOT
from tests.support.models import nano, provenance

DATA = "synthetic:num=20,size=48"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tov-resnet-nano"
    backbone = nano("resnet_nano")
    export(backbone, folder, provenance=provenance(backbone, train_size=32), timm=False)
    return str(folder)


@pytest.fixture
def batches(monkeypatch):
    """How many images each call of the network gets."""
    counts = []
    real = module._features

    def counted(images, *arguments):
        counts.append(len(images))
        return real(images, *arguments)

    monkeypatch.setattr(module, "_features", counted)
    return counts


def read(folder, split="train"):
    return load_dataset(str(folder), split=split).with_format("numpy")


def test_embeddings_are_the_evaluations_features(model, tmp_path):
    done = embed(DATA, model, tmp_path / "out", batch_size=7, shard_rows=8)
    assert (done.rows, done.skipped, done.shards, done.computed) == (20, 0, 3, 3)
    rows = load(DATA)
    expected = extract(load_encoder(model), build_cache(rows))
    found = read(tmp_path / "out")
    assert found["row"][:].tolist() == list(range(20))
    np.testing.assert_allclose(np.stack(found["embedding"][:]), expected, rtol=1e-4, atol=1e-5)
    assert found["label"][:].tolist() == rows["label"][:]
    assert found.features["label"].names == rows.features["label"].names
    manifest = json.loads((tmp_path / "out" / module.MANIFEST).read_text())
    assert manifest["rows"] == 20
    assert manifest["job"]["model"] == "tov-resnet-nano"


def test_a_stopped_job_computes_only_the_rest(model, tmp_path, batches, monkeypatch):
    write = module._write_shard

    def stop_at_second(path, *arguments):
        if "00001" in path.name:
            raise KeyboardInterrupt
        write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_shard", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            embed(DATA, model, tmp_path / "out", shard_rows=8)
    assert sum(batches) == 8
    batches.clear()
    done = embed(DATA, model, tmp_path / "out", shard_rows=8)
    assert sum(batches) == 12
    assert (done.computed, done.rows) == (2, 20)
    assert embed(DATA, model, tmp_path / "out", shard_rows=8).computed == 0
    embed(DATA, model, tmp_path / "whole", shard_rows=8)
    assert read(tmp_path / "out")[:]["embedding"].tolist() == (
        read(tmp_path / "whole")[:]["embedding"].tolist()
    )
    assert not list((tmp_path / "out" / "data").glob(".*"))


def test_another_job_is_kept_out_of_the_folder(model, tmp_path):
    embed(DATA, model, tmp_path / "out")
    for changes in ({"size": 40}, {"dtype": "float16"}, {"split": "test"}):
        with pytest.raises(UserError, match=f"holds other embeddings .*{next(iter(changes))}"):
            embed(DATA, model, tmp_path / "out", **changes)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        embed(DATA, model, tmp_path / "full")


def test_memory_holds_a_batch_and_not_the_data(model, tmp_path, batches):
    embed(DATA, model, tmp_path / "out", batch_size=3, shard_rows=10)
    assert max(batches) == 3
    table = __import__("pyarrow.parquet").parquet.ParquetFile(
        next((tmp_path / "out" / "data").glob("*00000*"))
    )
    assert table.num_row_groups == 4  # written as they come


def test_images_of_any_size_and_files_that_are_none(model, tmp_path, capsys):
    folder = tmp_path / "tiles" / "field"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, size in enumerate([(40, 40), (50, 30), (40, 40)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    done = embed(str(tmp_path / "tiles"), model, tmp_path / "out")
    assert (done.rows, done.skipped) == (3, 1)
    assert "left out" in capsys.readouterr().err
    assert len(read(tmp_path / "out")) == 3
    with pytest.raises(UserError, match=r"row .* cannot be read"):
        embed(str(tmp_path / "tiles"), model, tmp_path / "strict", strict=True)


def test_half_precision_and_chosen_columns(model, tmp_path):
    embed(DATA, model, tmp_path / "out", dtype="float16", columns=[])
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert found.column_names == ["row", "embedding"]
    assert found.features["embedding"].feature.dtype == "float16"
    with pytest.raises(UserError, match="no column 'city'"):
        embed(DATA, model, tmp_path / "other", columns=["city"])


def test_what_does_not_fit_is_told(model, tmp_path):
    backbone = nano("resnet_nano", bands="rgbn")
    four = export(backbone, tmp_path / "four", provenance=provenance(backbone, "rgbn"), timm=False)
    folder = tmp_path / "tiles"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "one.png")
    with pytest.raises(UserError, match="nir"):
        embed(str(folder), str(four), tmp_path / "out")
    with pytest.raises(UserError, match="learns from training images"):
        embed(DATA, "baseline:random-convolutions", tmp_path / "out")


def test_the_command(model, tmp_path, capsys):
    arguments = [DATA, "--model", model, "--output", str(tmp_path / "out")]
    assert run_script(main, [*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 20
    assert run_script(main, [*arguments, "--size", "0"]) == 2
    assert run_script(main, ["no/where/at/all", *arguments[1:]]) == 2


@pytest.mark.slow
def test_two_processes_write_what_one_writes(model, tmp_path):
    torchrun = os.path.join(os.path.dirname(sys.executable), "torchrun")
    arguments = [DATA, "--model", model, "--shard-rows", "4", "--output"]
    done = subprocess.run(
        [
            *(
                torchrun,
                "--standalone",
                "--nproc_per_node",
                "2",
                "-m",
                "rs_models.evaluation.embed",
            ),
            *(*arguments, str(tmp_path / "two")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert "20 embeddings in 5 shards" in done.stdout
    embed(DATA, model, tmp_path / "one", shard_rows=4)
    one, two = read(tmp_path / "one")[:], read(tmp_path / "two")[:]
    assert one["row"].tolist() == two["row"].tolist()
    np.testing.assert_allclose(one["embedding"], two["embedding"], rtol=1e-5, atol=1e-6)
