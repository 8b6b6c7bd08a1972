"""A run's folder: held by one run, gone on with by the same one, taken over from older ones."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from rs_models import load_data
from rs_models.data import build_cache
from rs_models.errors import UserError
from rs_models.files import claim
from rs_models.settings import build
from rs_models.trainer import RunConfig, checkpoints, loop, pretrain
from rs_models.trainer.folder import changed, comparable, job_of
from tests.trainer.helpers import DATA, stopped_at, tiny

EVALUATED = {"log_every": 2, "evaluation": {"every": 0.34, "limit": 12}}


def weights(folder):
    return load_file(folder / "pretraining" / "model.safetensors")


def lines(path):
    """What a log says but for the speed."""
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing broke, of 6 steps."""
    output = tmp_path_factory.mktemp("whole") / "out"
    pretrain(tiny(output, **EVALUATED))
    return output


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """The same run, stopped after step 3, between two lines of its log."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(3))
        assert pretrain(tiny(tmp_path / "cut", **EVALUATED)) is None
    return tmp_path / "cut"


def test_logs_of_a_resumed_run_are_those_of_the_unbroken_one(whole, cut):
    # What a killed run wrote after its last checkpoint, and a line that the kill tore.
    with (cut / "knn.jsonl").open("a") as file:
        file.write('{"step": 4, "knn20": 99.0}\n{"step": 5, "kn')
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 99.0}\n')
    pretrain(tiny(cut, resume=True, **EVALUATED))
    for name in ("metrics.jsonl", "knn.jsonl"):
        assert lines(cut / name) == lines(whole / name), name
    assert len(lines(cut / "knn.jsonl")) == 6
    assert (cut / "run.yaml").read_text() == (whole / "run.yaml").read_text()
    assert sorted(p.name for p in cut.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_a_checkpoint_of_an_earlier_version_resumes_to_the_bit(whole, cut):
    """They kept a rate schedule, knew fewer settings, told images by times, claimed no folder."""
    (cut / "job.json").unlink()
    checkpoint = checkpoints.complete(cut / "checkpoints")[-1]
    state = checkpoints.read_state(checkpoint)
    del state["log"], state["stage_settings"]["sync_batchnorm"]
    state["stage_settings"]["data"] = build_cache(load_data(DATA), progress=False).fingerprint
    state["schedule"] = {"base_lrs": [1e9, 1e9], "last_epoch": 3, "_last_lr": [1e9, 1e9]}
    (checkpoint / checkpoints.STATE).write_text(json.dumps(state))
    optimizer = torch.load(checkpoint / "optimizer.bin")
    for group in optimizer["param_groups"]:
        group["lr"] = group["initial_lr"] = 1e9  # only the step's number may count
    torch.save(optimizer, checkpoint / "optimizer.bin")
    pretrain(tiny(cut, resume=True, **EVALUATED))
    one, two = weights(whole), weights(cut)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (cut / "job.json").is_file()  # from now on it is claimed


def test_a_run_goes_on_where_its_images_were_copied_and_not_on_others(tmp_path, monkeypatch):
    # Clusters copy data to a disk of the job's own, anew for each.
    def images(name, seed):
        load_data(f"synthetic:num=24,size=32,seed={seed}").to_parquet(tmp_path / f"{name}.parquet")
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.parquet").rename(tmp_path / name / "train.parquet")
        return {"name": str(tmp_path / name)}

    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(3))
        pretrain(tiny(tmp_path / "cut", data=images("first", 0)))
    with pytest.raises(UserError, match=r"other settings \(data\)"):
        pretrain(tiny(tmp_path / "cut", data=images("others", 1), resume=True))
    pretrain(tiny(tmp_path / "cut", data=images("copy", 0), resume=True))
    assert checkpoints.complete(tmp_path / "cut" / "checkpoints")[-1].name == "step-6"


def test_what_a_kill_left_is_removed_and_half_removed_checkpoints_do_not_count(whole, cut):
    folder = cut / "checkpoints"
    for leftover in (
        *("checkpoints/.step-9.partial", "checkpoints/step-9.partial", "checkpoints/step-8.old"),
        *("checkpoints/step-1", ".export.123.partial", ".pretraining.123.partial"),
    ):
        (cut / leftover).mkdir(parents=True)
        (cut / leftover / "model.safetensors").write_bytes(b"half")
    (folder / "step-3").rename(folder / ".step-3.previous")  # killed between two renames
    pretrain(tiny(cut, resume=True, **EVALUATED))
    assert sorted(p.name for p in folder.iterdir()) == ["step-3", "step-6"]
    assert sorted(p.name for p in cut.iterdir()) == sorted(p.name for p in whole.iterdir())
    one, two = weights(whole), weights(cut)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_removing_a_checkpoint_takes_what_makes_it_complete_first(tmp_path, monkeypatch):
    for step in (1, 2):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / checkpoints.STATE).write_text("{}")

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.tidy(tmp_path, keep_last=1)
    assert [p.name for p in checkpoints.complete(tmp_path)] == ["step-2"]
    assert (tmp_path / "step-1").is_dir()


def test_a_second_run_is_told_who_holds_the_folder(tmp_path, cut):
    config = tiny(cut, resume=True, **EVALUATED)
    before = (cut / "metrics.jsonl").read_bytes()
    with claim(cut, job_of([config])):
        with pytest.raises(UserError, match=r"is being worked on by process \d+ on "):
            pretrain(config)
    assert (cut / "metrics.jsonl").read_bytes() == before


def test_another_job_is_refused_with_the_settings_that_differ(cut):
    with pytest.raises(UserError, match=r"another job \(method\.temperature differ\)"):
        pretrain(tiny(cut, resume=True, method={"name": "tov", "temperature": 0.1}, **EVALUATED))


def test_a_folder_with_files_of_its_user_is_taken(tmp_path):
    (tmp_path / "log.txt").write_text("mine")
    pretrain(tiny(tmp_path, max_steps=1))
    assert (tmp_path / "log.txt").read_text() == "mine"
    assert json.loads((tmp_path / "job.json").read_text())["job"]["max_steps"] == 1


def test_data_that_cannot_be_used_leave_no_folder(tmp_path):
    with pytest.raises(UserError):
        pretrain(tiny(tmp_path / "out", data={"name": "no/such/folder"}))
    assert not (tmp_path / "out").exists()


def test_trackers_that_are_not_installed_are_told_before_training(tmp_path, monkeypatch):
    from accelerate import utils

    monkeypatch.setattr(utils, "is_wandb_available", lambda: False)
    with pytest.raises(UserError, match="'wandb', which is not installed: pip install wandb"):
        pretrain(tiny(tmp_path / "out", trackers=["wandb"]))
    assert not (tmp_path / "out").exists()


def test_a_job_is_what_differs_from_the_defaults():
    assert job_of([RunConfig()]) == {"command": "pretrain"}
    stages = build(RunConfig, {"stages": [{"epochs": 3.0}, {"data": {"limit": 9}}]}).expand()
    job = job_of(stages)
    assert job["stages[1].epochs"] == 3
    assert job["stages[2].sampling"] == ["natural", "label", None, 9]


def test_settings_that_an_older_checkpoint_did_not_know_were_at_their_default():
    config = build(RunConfig, {"clip_norm": 1.0})
    theirs = comparable(config)
    del theirs["clip_norm"], theirs["compile"]
    assert changed(config, theirs) == ["clip_norm"]
    assert changed(config, {**theirs, "clip_norm": 1.0, "of_a_later_version": True}) == [
        "of_a_later_version"
    ]
