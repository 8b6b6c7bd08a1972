"""Every method trained by the loop: it resumes to the bit and leaves what users load."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining

import rs_models  # noqa: F401  (registers the methods)
from rs_models.errors import UserError
from rs_models.methods import METHODS
from rs_models.settings import parse
from rs_models.trainer import RunConfig, checkpoints, loop, pretrain
from tests.methods.test_methods import SMALL, VARIANTS
from tests.trainer.helpers import DATA, stopped_at, tiny

NAMES = [*(name for name in METHODS if name != "tov"), *VARIANTS]  # test_loop.py has TOV
TERMS = {
    "rsisc-relative-position": {"solved"},
    "false": {"recalibrated", "truly_false_negatives"},
    "glcnet": {"global_loss", "local_loss"},
}


def settings(name: str) -> dict:
    method = {"name": name.partition("-")[0], **SMALL.get(name, {}), **VARIANTS.get(name, {})}
    optimizer = {"lr": 0.02, "warmup_epochs": 0.5}
    if method["name"] == "last":
        optimizer = {"name": "adamw", "lr": 1e-3, "schedule": "dino", "final_weight_decay": 0.4}
    return {
        "method": method,
        "backbone": "swin_nano" if method["name"] == "last" else "resnet_nano",
        "optimizer": optimizer,
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumes_to_the_bit_and_leaves_what_users_load(name, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert pretrain(tiny(whole, **settings(name))) == whole / "export"
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert TERMS.get(name, set()) <= lines[0].keys()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(4))
        assert pretrain(tiny(cut, **settings(name))) is None
    assert checkpoints.complete(cut / "checkpoints")[-1].name == "step-4"
    pretrain(tiny(cut, resume=True, **settings(name)))
    one, two = (load_file(f / "pretraining" / "model.safetensors") for f in (whole, cut))
    assert one.keys() == two.keys()
    different = [key for key in one if not torch.equal(one[key], two[key])]
    assert not different

    method = AutoModelForPreTraining.from_pretrained(whole / "pretraining")
    native = AutoModel.from_pretrained(whole / "export")
    for key, tensor in native.state_dict().items():
        torch.testing.assert_close(tensor, method.exported.state_dict()[key], msg=key)
    said = native.config.rs_models
    assert said["method"] == name.partition("-")[0]
    assert said["output_stride"] == 32  # of a GLCNet too, which was trained at 16
    assert (whole / "segmentation").is_dir() == (name in ("glcnet", "glcnet-local"))


def test_a_bare_false_in_yaml_is_the_method(tmp_path):
    pretrain(tiny(tmp_path, method={"name": False}, max_steps=1))
    assert AutoModel.from_pretrained(tmp_path / "export").config.rs_models["method"] == "false"


def test_scenes_come_from_another_place_where_the_data_tells(tmp_path, monkeypatch):
    seen = []
    from rs_models.signals import views

    def record(images, places, transfer, generator):
        seen.append(None if places is None else places.tolist())
        return images

    monkeypatch.setattr(views, "_transfer", record)
    changes = settings("sticl")
    pretrain(tiny(tmp_path / "any", max_steps=1, **changes))
    changes["data"] = {"name": DATA, "place": "label"}
    pretrain(tiny(tmp_path / "place", max_steps=1, **changes))
    assert seen[0] is None
    assert len(seen[1]) == 8
    with pytest.raises(UserError, match=r"data\.place='city' is not a column"):
        pretrain(tiny(tmp_path / "no", **{**changes, "data": {"name": DATA, "place": "city"}}))


def test_a_run_leaves_the_settings_that_repeat_it_beside_its_weights(tmp_path):
    changes = {**settings("last"), "max_steps": 2}
    pretrain(tiny(tmp_path / "one", **changes))
    recipe = (tmp_path / "one" / "run.yaml").read_text()
    for part in ("export", "pretraining"):
        assert (tmp_path / "one" / part / "run.yaml").read_text() == recipe
    assert str(tmp_path) not in recipe
    again = parse(
        RunConfig,
        ["--config", str(tmp_path / "one" / "run.yaml"), f"output_dir={tmp_path / 'two'}"],
    )
    pretrain(again)
    one, two = (load_file(tmp_path / f / "export/model.safetensors") for f in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_whole_numbers_are_taken_where_fractions_are_meant(tmp_path):
    method = {"name": "last", **SMALL["last"], "momentum": 1, "global_scale": [0.5, 1]}
    pretrain(tiny(tmp_path, **{**settings("last"), "method": method, "max_steps": 1}))
    config = AutoModelForPreTraining.from_pretrained(tmp_path / "pretraining").config
    assert (config.momentum, list(config.global_scale)) == (1.0, [0.5, 1.0])


def test_a_place_without_transfer_is_refused(tmp_path):
    with pytest.raises(UserError, match="for scene transfer, which this run does not do"):
        pretrain(tiny(tmp_path, data={"place": "label"}))


def test_a_queue_that_no_batch_divides_is_told_before_any_training(tmp_path):
    changes = settings("sticl")
    changes["method"] = {**changes["method"], "queue_size": 20}
    with pytest.raises(UserError, match="queue_size=20 must be a multiple of the 8 keys"):
        pretrain(tiny(tmp_path, **changes))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_puzzle_is_exported_for_the_size_of_its_cells(tmp_path):
    pretrain(tiny(tmp_path, **settings("rsisc-relative-position"), max_steps=1))
    said = AutoModel.from_pretrained(tmp_path / "export").config.rs_models
    assert said["train_size"] == 14  # of 16 pixels a cell, 2 x 2 of 32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sticl", "last"])
def test_compiled_students_and_teachers_give_the_same_first_loss(name, tmp_path):
    changes = settings(name)
    if name == "last":
        # A Swin drops layers at random, and compiled code draws other random numbers.
        changes["backbone"] = "vit_nano"
    losses = []
    for compile_ in (False, True):
        output = tmp_path / str(compile_)
        pretrain(tiny(output, **changes, compile=compile_, max_steps=1))
        losses.append(json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_settings_of_another_method_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"Unknown setting method.queue_size; glcnet has: .*style"):
        pretrain(tiny(tmp_path, method={"name": "glcnet", "queue_size": 8}))
