"""Whole runs and commands on a device: resumed, out of memory, predict, embed, fine-tuning."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from datasets import load_dataset
from safetensors.torch import load_file

from rs_models.cli import main
from rs_models.data import build_cache, load
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.export import export
from rs_models.methods import METHODS
from rs_models.trainer import loop, pretrain
from tests.data.make import tiles
from tests.gpu.devices import headroom, on_devices, used
from tests.predict.helpers import pixels, write
from tests.support.models import nano, provenance
from tests.trainer.helpers import stopped_at, tiny
from tests.trainer.test_methods import settings

# Enough for a run of a nano backbone on small images, and not for one tensor of views or images of
# SIDE x SIDE pixels: 16 of 3 bands in float32 are 4.8 GB, and one alone of HUGE, the largest that
# an image may be, is 3.2 GB.
ROOM = 2 * 2**30
SIDE = 5000
HUGE = 16_384


@on_devices(slow_on_cpu=True)
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_resumes_to_the_bit(device, tmp_path, monkeypatch, name):
    changes = {"deterministic": True, "precision": "bf16", "image_size": 64, **settings(name)}
    with used(device):
        pretrain(tiny(tmp_path / "whole", **changes))
        with monkeypatch.context() as patch:
            patch.setattr(loop, "StopRequest", stopped_at(4))
            assert pretrain(tiny(tmp_path / "cut", **changes)) is None
        pretrain(tiny(tmp_path / "cut", resume=True, **changes))
    assert not torch.are_deterministic_algorithms_enabled()  # other runs are as fast as before
    one, two = (
        load_file(tmp_path / folder / "pretraining" / "model.safetensors")
        for folder in ("whole", "cut")
    )
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    logs = [
        [json.loads(line)["loss"] for line in (tmp_path / folder / "metrics.jsonl").open()]
        for folder in ("whole", "cut")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 6


@on_devices()
def test_thirteen_bands_of_sixteen_bits_are_trained_on(device, tmp_path):
    """The stored integers travel to the device as they are, where few functions know uint16."""
    values = np.random.default_rng(0).integers(0, 10_000, (8, 32, 32, 13), dtype=np.uint16)
    tiles(tmp_path / "tiles", values)
    data = {"name": str(tmp_path / "tiles")}
    with used(device):
        export = pretrain(tiny(tmp_path / "run", bands="sentinel2", data=data, max_steps=2))
    said = json.loads((export / "config.json").read_text())
    assert (said["num_channels"], said["rs_models"]["value_range"]) == (13, [0, 10_000])


@on_devices()
def test_training_without_memory_ends_in_one_sentence(device, tmp_path, capsys):
    arguments = [
        *("pretrain", "backbone=resnet_nano", "data.name=synthetic:num=8,size=32", "batch_size=8"),
        *(f"image_size={SIDE}", "max_steps=1", f"output_dir={tmp_path}/run"),
    ]
    with headroom(device, ROOM):
        assert main(arguments) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert told == [
        f"error: No memory was left with batch_size=8, image_size={SIDE}, precision=no: raise "
        "gradient_accumulation, lower batch_size or image_size, or set precision=bf16."
    ]


@pytest.fixture
def model(tmp_path):
    """Folder of a small backbone as it is published."""
    backbone = nano("resnet_nano")
    folder = tmp_path / "model"
    export(backbone, folder, provenance=provenance(backbone, train_size=32), timm=False)
    return str(folder)


@on_devices()
def test_a_command_without_memory_ends_in_one_sentence(device, tmp_path, model, capsys):
    arguments = ["embed", "synthetic:num=2,size=32", "--model", model, "--size", str(HUGE)]
    with headroom(device, ROOM):
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(told) == 1
    assert told[0].startswith("error: No memory was left: work on fewer or smaller images")


@on_devices()
def test_embeddings_equal_the_cpus(device, tmp_path, model):
    data = "synthetic:num=12,size=32"
    with used(device):
        assert main(["embed", data, "--model", model, "--output", str(tmp_path / "out")]) == 0
    table = load_dataset(str(tmp_path / "out"), split="train").with_format("numpy")
    got = np.stack(table["embedding"][:])
    wanted = extract(load_encoder(model), build_cache(load(data)), device="cpu", progress=False)
    # Convolutions on a GPU take TensorFloat-32, with 10 bits: a thousandth a layer, of which there
    # are ten. On the CPU nothing differs but the batch.
    tolerance = 1e-2 if device.type == "cuda" else 1e-4
    assert np.linalg.norm(got - wanted) < tolerance * np.linalg.norm(wanted)


@on_devices()
def test_a_map_equals_the_cpus(device, tmp_path, model):
    scene = write(tmp_path / "scene.tif", pixels(300, 260))
    arguments = ["predict", str(scene), "--model", model, "--tile", "128", "--kind", "embeddings"]
    place = [] if device.type == "cuda" else ["--device", "cpu"]  # a GPU is the default
    with used(device):
        assert main([*arguments, *place, "--output", str(tmp_path / "mine.tif")]) == 0
    assert main([*arguments, "--device", "cpu", "--output", str(tmp_path / "cpu.tif")]) == 0
    maps = []
    for name in ("mine.tif", "cpu.tif"):
        with rasterio.open(tmp_path / name) as file:
            maps.append(file.read())
    got, wanted = maps
    assert got.shape == wanted.shape and np.isfinite(got).all()
    assert np.linalg.norm(got - wanted) < 1e-2 * np.linalg.norm(wanted)


@on_devices(slow_on_cpu=True)
@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation", "detection"])
def test_a_task_is_fine_tuned_and_its_model_predicts(device, tmp_path, model, task):
    small = {
        "segmentation": ["head_settings={decoder_channels: 8, low_level_channels: 4}"],
        "detection": ["head_settings={pyramid_channels: 8, head_dim: 16}"],
    }
    arguments = [
        *("finetune", f"task={task}", f"model={model}", "data.name=synthetic:num=60,size=32"),
        *("data.validation_split=validation", "max_steps=4", "evaluations=2", "batch_size=4"),
        *("seeds=[0]", f"labels={'2/class' if task == 'classification' else 10}"),
        *(*small.get(task, []), f"output_dir={tmp_path}/run"),
    ]
    precision = ["precision=bf16"] if device.type == "cuda" else []
    with used(device):
        assert main([*arguments, *precision]) == 0
    result = json.loads(next((tmp_path / "run" / "results").rglob("*.json")).read_text())
    assert all(0 <= value <= 100 for value in result["values"])
    if task == "multilabel":
        return
    scene = write(tmp_path / "scene.tif", pixels(96, 96))
    output = tmp_path / ("boxes.geojson" if task == "detection" else "map.tif")
    fine_tuned = str(tmp_path / "run" / "model")
    arguments = ["predict", str(scene), "--model", fine_tuned, "--device", device.type]
    with used(device):
        assert main([*arguments, "--tile", "32", "--output", str(output)]) == 0
    assert output.is_file()
