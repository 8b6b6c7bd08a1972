"""Embeddings of many images: right, resumable, the same by any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from rs_models.commands.embed import main
from rs_models.data import build_cache, load
from rs_models.errors import UserError
from rs_models.evaluation import embed as module
from rs_models.evaluation import shards
from rs_models.evaluation.embed import embed
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.readout import at_all_stages
from rs_models.export import export
from rs_models.labelling import Index
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
    real = shards.features

    def counted(images, *arguments):
        counts.append(len(images))
        return real(images, *arguments)

    monkeypatch.setattr(shards, "features", counted)
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


def test_the_means_of_all_stages_at_two_sizes(model, tmp_path):
    embed(DATA, model, tmp_path / "out", stages=True)
    whole, cache = at_all_stages(load_encoder(model)), build_cache(load(DATA))
    expected = np.concatenate([extract(whole, cache, size=side) for side in (32, 48)], axis=1)
    found = np.stack(read(tmp_path / "out")["embedding"][:])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"holds another job .*readout"):
        embed(DATA, model, tmp_path / "out")
    flat = load_encoder(model)
    flat.model, flat.forward = torch.nn.Flatten(), torch.nn.Flatten()
    with pytest.raises(UserError, match="stages of tov-resnet-nano are not known"):
        embed(DATA, flat, tmp_path / "flat", stages=True)


def test_a_stopped_job_computes_only_the_rest(model, tmp_path, batches, monkeypatch):
    write = shards.Writer.write

    def stop_at_second(self, path, *arguments):
        if "00001" in path.name:
            raise KeyboardInterrupt
        write(self, path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards.Writer, "write", stop_at_second)
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
        with pytest.raises(UserError, match=f"holds another job .*{next(iter(changes))}"):
            embed(DATA, model, tmp_path / "out", **changes)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
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


def tiles(folder, names, *, crs="EPSG:32634", seed=0):
    """Georeferenced tiles of 32 pixels and 10 m, side by side."""
    rasterio = pytest.importorskip("rasterio")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i, name in enumerate(names):
        place = rasterio.transform.from_origin(500_000 + 320 * i, 5_500_000, 10, 10)
        kind = {"driver": "GTiff", "width": 32, "height": 32, "count": 3, "dtype": "uint8"}
        with rasterio.open(folder / name, "w", **kind, crs=crs, transform=place) as raster:
            raster.write(rng.integers(0, 256, (3, 32, 32), dtype=np.uint8))
            raster.descriptions = ("red", "green", "blue")


def test_a_table_says_where_tiles_lie(model, tmp_path):
    import pyarrow.parquet as pq

    shapely = pytest.importorskip("shapely")
    tiles(tmp_path / "tiles", ["a.tif", "b.tif"])
    embed(str(tmp_path / "tiles"), model, tmp_path / "out")
    table = pq.read_table(next((tmp_path / "out" / "data").iterdir()))
    assert table.column_names == ["row", "embedding", "file", "x", "y", "crs", "geometry"]
    first, second = table.to_pylist()
    assert (first["file"], second["file"]) == ("a.tif", "b.tif")
    assert (second["x"], second["y"], second["crs"]) == (500_480, 5_499_840, "EPSG:32634")
    outline = shapely.from_wkb(second["geometry"])
    # Metre 500,000 of the zone is its central meridian, 21 degrees east.
    assert outline.bounds[0] == pytest.approx(21.00443, abs=1e-3)
    assert outline.centroid.y == pytest.approx(49.652, abs=1e-3)
    metadata = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items()}
    assert metadata["geo"]["columns"]["geometry"]["encoding"] == "WKB"
    bands = [band["name"] for band in metadata["stac"]["mlm:input"][0]["bands"]]
    assert bands == ["red", "green", "blue"]
    assert metadata["stac"]["mlm:name"] == "tov-resnet-nano"
    assert load_dataset(str(tmp_path / "out"), split="train")[0]["file"] == "a.tif"


@pytest.mark.parametrize("name", ["../around/tiles", "link", "./../around/tiles/"])
def test_files_are_named_below_the_folder_however_it_is_named(model, tmp_path, monkeypatch, name):
    tiles(tmp_path / "around" / "tiles", ["a.tif", "b.tif"])
    (tmp_path / "around" / "link").symlink_to(tmp_path / "around" / "tiles")
    monkeypatch.chdir(tmp_path / "around")
    embed(name, model, tmp_path / "out")
    assert list(read(tmp_path / "out")["file"]) == ["a.tif", "b.tif"]
    tiles(tmp_path / "around" / "tiles", ["c.tif"], seed=1)
    assert embed(name, model, tmp_path / "out").computed == 1


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_damaged_tile_that_comes_first_is_left_out_too(model, tmp_path, capsys, content):
    tiles(tmp_path / "tiles", ["b.tif", "c.tif"])
    (tmp_path / "tiles" / "a.tif").write_bytes(content)
    done = embed(str(tmp_path / "tiles"), model, tmp_path / "out")
    table = read(tmp_path / "out")
    assert done.skipped == 1 and list(table["file"]) == ["b.tif", "c.tif"]
    assert table["crs"][0] == "EPSG:32634"
    for name in ("b.tif", "c.tif"):
        (tmp_path / "tiles" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tif cannot be read as a raster"):
        embed(str(tmp_path / "tiles"), model, tmp_path / "out2")


def test_a_scene_is_cut_into_tiles(model, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(1, 256, (3, 70, 96), dtype=np.uint8)
    kind = {"driver": "GTiff", "width": 96, "height": 70, "count": 3, "dtype": "uint8"}
    place = rasterio.transform.from_origin(20.0, 50.0, 0.001, 0.001)
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", **kind, crs="EPSG:4326", transform=place) as raster:
        raster.write(pixels)
    assert embed(str(path), model, tmp_path / "out").rows == 9
    found = read(tmp_path / "out")
    corners = list(zip(found["top"][:].tolist(), found["left"][:].tolist(), strict=True))
    assert corners == [(top, left) for top in (0, 32, 38) for left in (0, 32, 64)]
    assert found["x"][:].tolist()[0] == pytest.approx(20.016)
    import torch

    with torch.inference_mode():
        expected = load_encoder(model)(torch.from_numpy(pixels[None, :, 38:, 64:])).numpy()
    np.testing.assert_allclose(found["embedding"][:][-1], expected[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="less than a tile of 80"):
        embed(str(path), model, tmp_path / "large", size=80)


def test_files_that_are_added_are_embedded_alone(model, tmp_path, batches):
    tiles(tmp_path / "tiles", ["b.tif", "d.tif", "e.tif"])
    embed(str(tmp_path / "tiles"), model, tmp_path / "out", shard_rows=2)
    before = {row["file"]: row["embedding"] for row in read(tmp_path / "out")}
    tiles(tmp_path / "tiles", ["a.tif", "c.tif"], seed=1)
    batches.clear()
    done = embed(str(tmp_path / "tiles"), model, tmp_path / "out", shard_rows=2)
    assert sum(batches) == 2 and (done.rows, done.shards, done.computed) == (5, 3, 1)
    table = read(tmp_path / "out")
    assert [row["file"] for row in table] == ["b.tif", "d.tif", "e.tif", "a.tif", "c.tif"]
    assert table["row"][:].tolist() == [0, 1, 2, 3, 4]
    for row in table:
        if row["file"] in before:
            assert row["embedding"].tolist() == before[row["file"]].tolist()
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3
    # A table that lost a file, or has one too many or another in its place, is not taken for whole.
    whole = {path: path.read_bytes() for path in (tmp_path / "out" / "data").iterdir()}
    first, second, _ = sorted(whole)
    for change, says in (
        (first.unlink, "lacks data/train-00000"),
        (lambda: first.write_bytes(whole[second][:-1]), "damaged"),
        (
            lambda: second.with_name("x.parquet").write_bytes(whole[second]),
            "x.parquet, which embed",
        ),
    ):
        change()
        with pytest.raises(UserError, match=says):
            Index.open(tmp_path / "out")
        for path in (tmp_path / "out" / "data").iterdir():
            path.unlink()
        for path, content in whole.items():
            path.write_bytes(content)
    assert len(Index.open(tmp_path / "out")) == 5
    batches.clear()
    assert embed(str(tmp_path / "tiles"), model, tmp_path / "out", shard_rows=2).computed == 0
    tiles(tmp_path / "tiles", ["d.tif"], seed=5)
    os.utime(tmp_path / "tiles" / "d.tif", (1, 1))
    with pytest.raises(UserError, match=r"d\.tif was changed"):
        embed(str(tmp_path / "tiles"), model, tmp_path / "out", shard_rows=2)
    (tmp_path / "tiles" / "d.tif").unlink()
    with pytest.raises(UserError, match=r"d\.tif is gone"):
        embed(str(tmp_path / "tiles"), model, tmp_path / "out", shard_rows=2)


def test_folders_of_the_earlier_version_go_on(model, tmp_path, batches):
    tiles(tmp_path / "tiles", ["a.tif", "b.tif", "c.tif"])
    source, out = str(tmp_path / "tiles"), tmp_path / "out"
    # What it wrote before anything else, and what a kill at its start left.
    rows = load(source)
    encoder = load_encoder(model)
    job = {
        **{"model": encoder.name, "model_revision": encoder.revision, "data": "tiles"},
        **{"split": "train", "data_revision": rows._fingerprint, "size": 32, "rows": 3},
        **{"bands": ["red", "green", "blue"], "dtype": "float32", "shard_rows": 2},
    }
    (out / "data").mkdir(parents=True)
    (out / "data" / ".train-00000-of-00002.parquet.123").write_bytes(b"PAR1")
    (out / module.MANIFEST).write_text(json.dumps({"job": job}))
    assert embed(source, model, out, shard_rows=2).rows == 3
    assert read(out).column_names == ["row", "embedding"]
    batches.clear()
    assert embed(source, model, out, shard_rows=2).computed == 0 and not batches
    (tmp_path / "early" / "data").mkdir(parents=True)
    (tmp_path / "early" / ".embeddings.json.77").write_text("{")
    assert embed(source, model, tmp_path / "early", shard_rows=2).rows == 3


def test_int8_vectors_are_the_vectors_by_their_scale(model, tmp_path):
    embed(DATA, model, tmp_path / "whole")
    embed(DATA, model, tmp_path / "small", dtype="int8")
    whole = np.stack(read(tmp_path / "whole")["embedding"][:])
    found = read(tmp_path / "small")
    assert found.features["embedding"].feature.dtype == "int8"
    scale = found["scale"][:][:, None]
    error = np.abs(np.stack(found["embedding"][:]) * scale - whole)
    assert (error <= scale * 0.5001).all()


def test_the_card_is_one_that_push_takes_and_a_persons_own_is_kept(model, tmp_path):
    from rs_models.publish.staging import check_folder

    embed(DATA, model, tmp_path / "out")
    metadata = check_folder(tmp_path / "out", "dataset")
    assert "embeddings" in metadata["tags"]
    card = tmp_path / "out" / "README.md"
    assert "20 vectors" in card.read_text()
    card.write_text("---\ntitle: mine\n---\n")
    embed(DATA, model, tmp_path / "out")
    assert "mine" in card.read_text()


@pytest.mark.slow
def test_a_kill_at_any_file_operation_loses_nothing_and_leaves_nothing(model, tmp_path):
    from tests.support.kills import campaign

    tiles(tmp_path / "tiles", ["a.tif", "b.tif", "c.tif"])
    argv = ["embed", str(tmp_path / "tiles"), "--model", model, "--output", "{out}/table"]
    kills = campaign([*argv, "--shard-rows", "2"], tmp_path / "new")
    assert len(kills.trials) > 20
    assert not kills.faults, kills.faults
    embed(str(tmp_path / "tiles"), model, tmp_path / "start" / "table", shard_rows=2)
    tiles(tmp_path / "tiles", ["d.tif"], seed=3)
    kills = campaign([*argv, "--shard-rows", "2"], tmp_path / "grown", start=tmp_path / "start")
    assert not kills.faults, kills.faults


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
                "rs_models.cli",
                "embed",
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
