"""A whole study on a few synthetic images: run, broken, resumed, collected, written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError

from rs_models.errors import UserError
from rs_models.evaluation.results import read_all
from rs_models.evaluation.results import write as write_result
from rs_models.files import claim
from rs_models.settings import build, run_script
from rs_models.study.claims import SEEDS
from rs_models.study.collect import write
from rs_models.study.config import Evaluation, Job, StudyConfig
from rs_models.study.measure import is_done, run_job, seconds_of
from rs_models.study.report import report_text
from rs_models.study.runner import study
from rs_models.study.workers import devices, outcome_of, run_all
from tests.conftest import ROOT
from tests.evaluation.test_results import result

DATA = "synthetic:num=96,size=32"
RUN = {
    "backbone": "resnet_nano",
    "image_size": 32,
    "data": {"name": "$d"},
    "max_steps": 3,
    "epochs": 0,
    "batch_size": 16,
    "log_every": 1,
    "stop_on_collapse": False,
}


def settings(folder, **changes):
    values = {
        "name": "tiny",
        "output_dir": str(folder / "runs"),
        "results_dir": str(folder / "collected"),
        "report": str(folder / "report.md"),
        "seeds": [0, 1],
        "data": {"d": DATA, "tail": {"from": "$d", "imbalance": 4}},
        "base": RUN,
        "evaluations": {
            "few": {
                "probe": {
                    "data": {"name": "$d"},
                    "protocols": ["knn20", "linear-n1", "linear-n2"],
                }
            },
            "shape": {"geometry": {"data": "$d", "images": 40}},
        },
        "cells": {
            "random": {"model": "baseline:random-resnet_nano", "evaluate": ["few", "shape"]},
            "one": {"set": {"method": {"name": "rsisc"}}, "evaluate": ["few", "shape"]},
            "twin": {"like": "one", "evaluate": ["few"]},
            "tail": {"like": "one", "set": {"data": {"name": "$tail"}}, "evaluate": ["few"]},
            "broken": {"like": "one", "set": {"data": {"name": "/nowhere"}}, "evaluate": ["few"]},
        },
        "claims": [
            {
                "paper": "rsisc",
                "says": "Learning beats chance.",
                "better": "one",
                "worse": "random",
                "measures": [f"{DATA}/knn20", f"{DATA}/linear-n1"],
            },
            {
                "paper": "tov",
                "says": "What is broken is best.",
                "better": "broken",
                "worse": "one",
                "measures": [f"{DATA}/knn20"],
            },
        ],
    }
    return build(StudyConfig, {**values, **changes})


def test_only_results_of_the_studys_own_cells_are_removed(tmp_path):
    """A folder of results may be shared: with another study, or by mistake with the models'."""
    config = settings(tmp_path)
    target = Path(config.results_dir)
    models = ("one", "gone", "rs/tov-resnet18")
    files = [write_result(result(model=model), target / "results") for model in models]
    write(config, [], [], {}, "rs-models study")
    assert [file.exists() for file in files] == [False, True, True]  # nothing says whose "gone" is
    about = json.loads((target / "study.json").read_text())
    (target / "study.json").write_text(json.dumps({**about, "cells": {"gone": "a cell of then"}}))
    write(config, [], [], {}, "rs-models study")
    assert [file.exists() for file in files] == [False, False, True]


@pytest.mark.slow
def test_a_study_runs_collects_and_writes_and_does_nothing_twice(tmp_path, capsys):
    config = settings(tmp_path)
    assert study(config) == 2  # the broken cell, twice
    said = capsys.readouterr().out
    assert "broken, seed 0: failed: " in said and "/nowhere" in said
    results = read_all(tmp_path / "collected" / "results")
    by = {result.key: result for result in results}
    one = by["one", DATA, "knn20"]
    assert one.settings[SEEDS] == [0, 1] and len(one.values) == 2
    # The collected values are those of the runs.
    for seed, value in enumerate(one.values):
        own = read_all(tmp_path / "runs" / "runs" / "one" / f"seed-{seed}" / "results" / "few")
        assert next(r for r in own if r.protocol == "knn20").mean == value
    # Twins are one run under two names.
    assert by["twin", DATA, "knn20"].values == one.values
    assert not (tmp_path / "runs" / "runs" / "twin").exists()
    assert 1 <= by["one", DATA, "effective-rank"].mean <= 128
    assert 0 <= by["one", DATA, "alignment"].mean <= 4
    claims = json.loads((tmp_path / "collected" / "claims.json").read_text())
    assert claims[1]["verdict"] == "not measured"
    assert claims[0]["differences"][0]["values"] == [
        round(a - b, 4) for a, b in zip(one.values, by["random", DATA, "knn20"].values, strict=True)
    ]
    text = (tmp_path / "report.md").read_text()
    assert "broken/0" in text and f"{one.mean:.1f}" in text
    assert (tmp_path / "figures" / "report_few_labels.png").stat().st_size > 1000

    runs = tmp_path / "runs" / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("model.safetensors")}
    kept = {path: path.read_bytes() for path in (tmp_path / "collected").rglob("*.json")}
    assert len(before) >= 4
    assert study(config) == 2
    assert "2 to go" in capsys.readouterr().out  # the broken ones alone are tried again
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("model.safetensors")}
    assert kept == {path: path.read_bytes() for path in (tmp_path / "collected").rglob("*.json")}


def test_a_cells_pretraining_and_its_record_share_a_folder_and_an_older_record_counts(tmp_path):
    trained = {**RUN, "data": {"name": DATA}, "max_steps": 1, "method": {"name": "rsisc"}}
    one = Job("one", 0, str(tmp_path / "one"), trained, None, {})
    assert run_job(one) == "done" and is_done(one)
    record = json.loads((tmp_path / "one" / "cell.json").read_text())
    assert record["job"]["settings"] == trained and record["seconds"] > 0
    # As earlier versions left it: under the name that pretraining's own record has today.
    (tmp_path / "one" / "cell.json").unlink()
    old = {**record["job"], "seconds": 7.5}
    (tmp_path / "one" / "job.json").write_text(json.dumps(old))
    assert seconds_of(tmp_path / "one") == 7.5
    assert run_job(one) == "done"
    assert not list(tmp_path.rglob("*lock*")) and not list(tmp_path.rglob("*partial*"))
    with pytest.raises(UserError, match="holds another job"):
        run_job(replace(one, settings={**trained, "max_steps": 2}))


def test_a_folder_belongs_to_one_study(tmp_path):
    idle = settings(tmp_path, collect_only=True, report=None)
    (tmp_path / "runs" / "runs").mkdir(parents=True)  # of an earlier version, without a record
    (tmp_path / "runs" / ".lock").touch()
    assert study(idle) == 10
    assert not (tmp_path / "runs" / ".lock").exists()
    with pytest.raises(UserError, match="holds another job"):
        study(replace(idle, name="other"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UserError, match="holds other files"):
        study(replace(idle, output_dir=str(tmp_path / "photos")))
    with (
        claim(tmp_path / "runs", {"command": "study", "name": "tiny"}),
        pytest.raises(UserError, match="is being worked on"),
    ):
        study(idle)


def job(folder, name, settings=None):
    return Job(name, 0, str(folder / name), settings, "baseline:image-statistics", {})


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_job_alone(tmp_path):
    long = {**RUN, "data": {"name": DATA}, "max_steps": 100_000, "method": {"name": "rsisc"}}
    jobs = [
        Job("long", 0, str(tmp_path / "long"), long, None, {}),
        job(tmp_path, "after"),
    ]
    outcomes = {}

    def kill():
        log = tmp_path / "long" / "log.txt"
        while not (log.is_file() and "images/s" in log.read_text(errors="ignore")):
            time.sleep(0.2)
        for pid in _children():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    run_all(jobs, devices(1), lambda done, outcome, _: outcomes.update({done.cell: outcome}))
    killer.join()
    assert outcomes == {"long": "the process died (exit code -9)", "after": "done"}


_STUDY = """
import sys
from rs_models.study.config import Job
from rs_models.study.workers import devices, outcome_of, run_all
from tests.study.test_study import DATA, RUN
if __name__ == "__main__":
    long = {**RUN, "data": {"name": DATA}, "max_steps": 100_000, "method": {"name": "rsisc"}}
    run_all([Job("long", 0, sys.argv[1], long, None, {})], devices(1), print)
"""


@pytest.mark.slow
def test_a_worker_stops_and_saves_when_its_study_is_killed(tmp_path):
    """It went on, and the study that was started again was told that the folder is worked on."""
    (tmp_path / "study.py").write_text(_STUDY)
    folder = tmp_path / "long"
    process = subprocess.Popen(
        [sys.executable, tmp_path / "study.py", folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    log = folder / "log.txt"
    while not (log.is_file() and "images/s" in log.read_text(errors="ignore")):
        assert process.poll() is None
        time.sleep(0.2)
    assert (folder / ".lock").exists()
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while (folder / ".lock").exists():
        assert time.monotonic() < until
        time.sleep(0.2)
    assert list((folder / "checkpoints").glob("step-*"))


def test_a_disk_that_is_full_fails_a_job_in_a_sentence_and_the_same_study_goes_on(
    tmp_path, monkeypatch
):
    def full(*args, **more):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    one = {"set": {"method": {"name": "rsisc"}}, "evaluate": []}
    config = settings(tmp_path, cells={"one": one}, claims=[], seeds=[0], report=None)
    monkeypatch.setattr("rs_models.study.runner.run_all", _here)
    with monkeypatch.context() as patched:
        patched.setattr("rs_models.export.export", full)
        assert study(config) == 1
    told = json.loads((tmp_path / "runs" / "failed.json").read_text())
    assert told == {
        "one/0": "There is no room left: free some, or choose another disk; run it again."
    }
    with monkeypatch.context() as patched:
        patched.setattr("rs_models.study.collect.write_json", _no_room)
        assert run_script(lambda _: study(config), []) == 2
    assert json.loads((tmp_path / "collected" / "study.json").read_text())["failed"] == told
    assert study(config) == 0
    assert json.loads((tmp_path / "runs" / "failed.json").read_text()) == {}
    assert json.loads((tmp_path / "collected" / "study.json").read_text())["trained"] == ["one"]


def _no_room(path, content):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _here(jobs, places, report):
    """What workers do, in this process."""
    for job in jobs:
        report(job, outcome_of(job), 0.0)
    return True


@pytest.mark.slow
def test_a_stop_in_a_measurement_is_no_failure(tmp_path):
    tuned = {"data": {"name": DATA}, "labels": 10, "max_steps": 100_000, "workers": 0}
    long = Job(
        "long",
        0,
        str(tmp_path / "long"),
        None,
        "baseline:random-resnet_nano",
        {"tuned": Evaluation(finetune=tuned)},
    )
    outcomes = {}

    def stop():
        log = tmp_path / "long" / "log.txt"
        while not (log.is_file() and " steps, " in log.read_text(errors="ignore")):
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    went_through = run_all(
        [long, job(tmp_path, "after")],
        devices(1),
        lambda done, outcome, _: outcomes.update({done.cell: outcome}),
    )
    stopper.join()
    assert not went_through and outcomes == {"long": "stopped"}


def _children():
    own = str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == own:
            yield int(path.parent.name)


@pytest.mark.parametrize(("study", "page"), [("small", "evidence"), ("claims", "claims")])
def test_the_published_report_is_that_of_the_published_results(study, page):
    collected = ROOT / "model_cards" / "studies" / study
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    pictures = [f"figures/{p.name}" for p in (ROOT / "docs" / "figures").glob(f"{page}_*.png")]
    order = {
        name: place for place, name in enumerate(("claims", "few_labels", "amount", "geometry"))
    }
    pictures.sort(key=lambda p: order[Path(p).stem.removeprefix(f"{page}_")])
    assert text == report_text(collected, pictures)
