"""Runs end to end: learn, stop, resume to the bit, refuse, die with an explanation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining

from rs_models.errors import UserError
from rs_models.trainer import TrainingStopped, checkpoints, loop, pretrain
from tests.conftest import ROOT
from tests.trainer.helpers import DATA, stopped_at, tiny


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run."""
    output = tmp_path_factory.mktemp("run") / "out"
    export = pretrain(tiny(output))
    assert export == output / "export"
    return output


def test_a_run_leaves_method_export_log_and_checkpoints(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    keys = {"loss", "lr", "images_per_second", "feature_std", "mean_cosine", "effective_rank"}
    assert keys <= lines[0].keys()
    assert lines[-1]["lr"] < max(line["lr"] for line in lines)
    assert [p.name for p in checkpoints.complete(finished / "checkpoints")] == ["step-3", "step-6"]
    method = AutoModelForPreTraining.from_pretrained(finished / "pretraining")
    native = AutoModel.from_pretrained(finished / "export")
    for key, tensor in native.state_dict().items():
        torch.testing.assert_close(tensor, method.backbone.state_dict()[key], msg=key)


def test_provenance_travels_with_the_weights(finished):
    said = json.loads((finished / "export" / "config.json").read_text())["rs_models"]
    assert said["method"] == "tov"
    assert said["data"] == f"{DATA}:train"
    assert said["epochs"] == 2
    assert said["bands"] == ["red", "green", "blue"]
    assert said["train_size"] == 32


def test_the_same_seed_gives_the_same_weights(finished, tmp_path):
    pretrain(tiny(tmp_path / "again"))
    assert same(weights(finished / "pretraining"), weights(tmp_path / "again" / "pretraining"))


def test_a_stopped_run_resumes_to_the_bit(finished, tmp_path, monkeypatch):
    output = tmp_path / "out"

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(4))
        assert pretrain(tiny(output)) is None
    assert not (output / "pretraining").exists()
    assert checkpoints.complete(output / "checkpoints")[-1].name == "step-4"
    pretrain(tiny(output, resume=True))
    assert same(weights(finished / "pretraining"), weights(output / "pretraining"))
    steps = [json.loads(x)["step"] for x in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_half_written_checkpoint_is_not_used(finished, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "step-9.partial").mkdir(parents=True)
    (folder / "step-9.partial" / "model.safetensors").write_bytes(b"half")
    (folder / "step-8").mkdir()  # renamed by hand, without its state
    assert checkpoints.complete(folder) == []


def test_only_the_last_checkpoints_are_kept(tmp_path):
    pretrain(tiny(tmp_path, checkpoint_every=0.34, keep_last=2))
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-5", "step-6"]


def test_accumulation_takes_the_same_number_of_steps(tmp_path):
    pretrain(tiny(tmp_path, gradient_accumulation=2, clip_norm=1.0, epochs=1))
    assert checkpoints.complete(tmp_path / "checkpoints")[-1].name == "step-3"


def test_stages_hand_their_weights_on_and_resume_skips_what_is_done(tmp_path, monkeypatch, capsys):
    stages = [{"image_size": 16}, {"optimizer": {"lr": 0.0}, "epochs": 1}]
    config = tiny(tmp_path, epochs=1, stages=stages)
    pretrain(config)
    first = weights(tmp_path / "stages" / "1" / "pretraining")
    last = weights(tmp_path / "pretraining")
    # The second stage had a rate of zero, so only BatchNorm's statistics may differ.
    learned = [k for k in first if "running" not in k and "num_batches" not in k]
    assert all(torch.equal(first[k], last[k]) for k in learned)
    said = json.loads((tmp_path / "export" / "config.json").read_text())["rs_models"]
    # One data set in two stages is one entry, and the epochs are those of both.
    assert (said["train_size"], said["data"], said["epochs"]) == (32, f"{DATA}:train", 2)
    config.resume = True
    monkeypatch.setattr(loop, "train", None)  # would fail if anything trained again
    pretrain(config)
    assert "stage 1 of 2 is done" in capsys.readouterr().out


def test_a_folder_with_a_run_is_not_overwritten(finished):
    with pytest.raises(UserError, match="already holds a run"):
        pretrain(tiny(finished))


def test_resuming_with_other_settings_is_refused(finished, tmp_path):
    import shutil

    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"other settings \(batch_size, steps\)"):
        pretrain(tiny(tmp_path, resume=True, batch_size=4))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(TrainingStopped, match=r"the loss is .* lower optimizer.lr"):
        pretrain(tiny(tmp_path, optimizer={"lr": 1e30, "warmup_epochs": 0.0}))
    for kept in checkpoints.complete(tmp_path / "checkpoints"):
        assert all(torch.isfinite(t).all() for t in weights(kept).values() if t.is_floating_point())


def test_collapsed_features_stop_the_run(tmp_path, monkeypatch):
    from rs_models.methods import tov

    def collapsed(z, *, views, temperature):
        return z.square().mean() * 0

    monkeypatch.setattr(tov, "multi_crop_nt_xent", collapsed)
    real = tov.TovForPreTraining.features

    def constant(self, x):
        return 0 * real(self, x) + 1

    monkeypatch.setattr(tov.TovForPreTraining, "features", constant)
    with pytest.raises(TrainingStopped, match="collapsed"):
        pretrain(tiny(tmp_path))


def test_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, capsys):
    assert pretrain(tiny(tmp_path / "out", dry_run=True)) is None
    shown = capsys.readouterr().out
    for word in ("parameters", "memory", "steps: 6 of 8", "hours"):
        assert word in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": {"name": "nope"}}, "method.name='nope' is not a method; known: .*tov"),
        ({"method": {"name": "tov", "temprature": 1.0}}, "Unknown setting method.temprature"),
        ({"method": {"name": "tov", "temperature": -1.0}}, "must be above 0"),
        ({"method": {"name": "tov", "projector_dim": "x"}}, "projector_dim"),
        ({"backbone": "resnet1"}, "resnet1"),
        ({"data": {"name": "no/such/folder/at/all"}}, "no/such/folder/at/all"),
        ({"data": {"split": "night"}}, "night"),
        ({"data": {"sampling": "class_balanced", "guidance": "zone"}}, "zone"),
        ({"bands": ["red", "purple"]}, "purple"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "1 values for 3 bands"),
        ({"image_mean": [0.5] * 3}, "together"),
        ({"batch_size": 512}, "more than the 24 images"),
        ({"method": {"name": "tov", "view_settings": {"blurr": 1}}}, "blurr"),
    ],
)
def test_bad_input_is_told_before_any_training(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        pretrain(tiny(tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_evaluation_during_training_keeps_the_best_export(tmp_path):
    pretrain(tiny(tmp_path, evaluation={"every": 1, "limit": 12}))
    lines = [json.loads(line) for line in (tmp_path / "knn.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(0 <= line["knn20"] <= 100 for line in lines)
    best = max(lines, key=lambda line: line["knn20"])
    said = json.loads((tmp_path / "export-best" / "config.json").read_text())["rs_models"]
    assert said["epochs"] == best["step"] / 3
    AutoModel.from_pretrained(tmp_path / "export-best")


def test_continued_pretraining_starts_from_an_export(finished, tmp_path):
    pretrain(
        tiny(
            tmp_path,
            init_from=str(finished / "export"),
            data={"split": "validation"},
            epochs=1,
            optimizer={"lr": 0.0},
            bands=["blue", "green", "red"],
        )
    )
    said = json.loads((tmp_path / "export" / "config.json").read_text())["rs_models"]
    assert said["data"] == [f"{DATA}:train", f"{DATA}:validation"]
    assert said["epochs"] == 3
    before = AutoModel.from_pretrained(finished / "export").state_dict()
    after = AutoModel.from_pretrained(tmp_path / "export").state_dict()
    stem = "embedder.embedder.convolution.weight"
    # The rate was zero: the stem's slices follow the bands by name, the rest is untouched.
    torch.testing.assert_close(after[stem], before[stem].flip(1))
    key = "encoder.stages.0.layers.0.layer.0.convolution.weight"
    torch.testing.assert_close(after[key], before[key])


def test_streamed_run_learns_and_resumes_to_the_bit(tmp_path, monkeypatch):
    changes = {"data": {"streaming": True, "image_size": 32}, "max_steps": 5}
    pretrain(tiny(tmp_path / "whole", **changes))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(3))
        assert pretrain(tiny(tmp_path / "cut", **changes)) is None
    pretrain(tiny(tmp_path / "cut", **changes, resume=True))
    assert same(
        weights(tmp_path / "whole" / "pretraining"), weights(tmp_path / "cut" / "pretraining")
    )


def test_a_run_stopped_in_its_second_stage_resumes_there(tmp_path, monkeypatch):
    stages = [{"image_size": 16, "epochs": 1}, {"epochs": 1, "optimizer": {"lr": 0.01}}]
    pretrain(tiny(tmp_path / "whole", stages=stages))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(5))
        assert pretrain(tiny(tmp_path / "cut", stages=stages)) is None
    assert not (tmp_path / "cut" / "pretraining").exists()
    kept = checkpoints.complete(tmp_path / "cut" / "stages" / "2" / "checkpoints")
    assert kept[-1].name == "step-2"
    pretrain(tiny(tmp_path / "cut", stages=stages, resume=True))
    assert same(
        weights(tmp_path / "whole" / "pretraining"), weights(tmp_path / "cut" / "pretraining")
    )


def test_four_bands_are_measured_trained_and_exported(tmp_path):
    pretrain(tiny(tmp_path, bands="rgbn", epochs=1))
    said = json.loads((tmp_path / "export" / "config.json").read_text())
    assert said["num_channels"] == 4
    assert said["rs_models"]["bands"] == ["red", "green", "blue", "nir"]
    # No statistics are assumed for other bands than RGB: they are the images' own.
    assert said["rs_models"]["image_mean"] != [0.5] * 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 TB"),
    ],
)
def test_no_memory_ends_with_the_settings_to_change(tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(loop, "optimizer_step", full)
    with pytest.raises(UserError, match="raise gradient_accumulation, lower batch_size"):
        pretrain(tiny(tmp_path))


@pytest.mark.parametrize("name", ["lars", "adamw"])
def test_other_optimizers_train(finished, tmp_path, name):
    changes = {"optimizer": {"name": name, "lr": 0.01}, "epochs": 1}
    pretrain(tiny(tmp_path, **changes))
    assert not same(weights(finished / "pretraining"), weights(tmp_path / "pretraining"))


def test_bfloat16_trains_float32_weights(finished, tmp_path):
    pretrain(tiny(tmp_path, precision="bf16", epochs=1))
    assert all(
        t.dtype == torch.float32
        for t in weights(tmp_path / "export").values()
        if t.is_floating_point()
    )
    whole = json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])
    short = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    # The first loss, before any step, in half the digits.
    assert short["loss"] == pytest.approx(whole["loss"], rel=0.02)
    assert short["loss"] != whole["loss"]


@pytest.mark.slow
def test_a_compiled_backbone_gives_the_same_first_loss(finished, tmp_path):
    pretrain(tiny(tmp_path, compile=True, epochs=1))
    whole = json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])
    compiled = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert compiled["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert weights(tmp_path / "export").keys() == weights(finished / "export").keys()


@pytest.mark.slow
def test_tensorboard_gets_what_the_json_lines_get(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain(tiny(tmp_path, trackers=["tensorboard"], epochs=1))
    read = EventAccumulator(str(tmp_path / "rs_models")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [e.value for e in read.Scalars("loss")] == pytest.approx([x["loss"] for x in lines])


def start(output, *launcher, epochs=400):
    script = [str(ROOT / "training" / "pretrain.py"), f"output_dir={output}"]
    script += [f"data.name={DATA}", "backbone=resnet_nano", "image_size=32", "batch_size=8"]
    script += [f"epochs={epochs}", "checkpoint_every=1000", "log_every=1"]
    return subprocess.Popen(
        [*launcher, *script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_steps(output, process, steps=3):
    log = output / "metrics.jsonl"
    for _ in range(600):
        if log.exists() and len(log.read_text().splitlines()) >= steps:
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    raise AssertionError("the run never logged")


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly(tmp_path):
    output = tmp_path / "out"
    process = start(output, sys.executable)
    wait_for_steps(output, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "continue with --resume" in said
    assert len(checkpoints.complete(output / "checkpoints")) == 1


@pytest.mark.slow
def test_a_run_notices_that_its_launcher_is_gone(tmp_path):
    output = tmp_path / "out"
    accelerate = os.path.join(os.path.dirname(sys.executable), "accelerate")
    process = start(output, accelerate, "launch", "--num_processes", "1", "--cpu")
    wait_for_steps(output, process)
    process.kill()  # the launcher alone, as a scheduler's hard stop would
    for _ in range(300):
        if checkpoints.complete(output / "checkpoints"):
            break
        time.sleep(0.2)
    assert len(checkpoints.complete(output / "checkpoints")) == 1
