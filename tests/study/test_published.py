"""A study goes on from what it has published, without the folder of its runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rs_models.errors import UserError
from rs_models.evaluation.results import read_all, write
from rs_models.files import write_json
from rs_models.settings import build
from rs_models.study import runner
from rs_models.study.claims import SEEDS
from rs_models.study.config import StudyConfig
from rs_models.study.published import Published
from tests.evaluation.test_results import result

DATA = "synthetic:num=96,size=32"


def settings(folder, **changes):
    cells = {
        name: {"set": {"max_steps": steps}, "evaluate": ["few"]}
        for name, steps in (("one", 3), ("two", 4))
    }
    values = {
        "name": "tiny",
        "output_dir": str(folder / "runs"),
        "results_dir": str(folder / "collected"),
        "seeds": [0, 1],
        "data": {"d": DATA, "tail": {"from": "$d", "imbalance": 4}},
        "base": {"backbone": "resnet_nano", "epochs": 0, "data": {"name": "$tail"}},
        "evaluations": {"few": {"probe": {"data": {"name": "$d"}, "protocols": ["knn20"]}}},
        "cells": cells,
        "claims": [],
    }
    return build(StudyConfig, {**values, **changes})


@pytest.fixture
def trained(monkeypatch):
    """Jobs that were run, each of which got its seed and cell as its accuracy."""
    ran = []

    def run(jobs, places, report):
        for job in jobs:
            ran.append((job.cell, job.seed))
            folder = Path(job.folder)
            (folder / "export").mkdir(parents=True)
            record = {"job": {}, "seconds": 60.0}
            write_json(folder / "cell.json", record)
            (folder / "metrics.jsonl").write_text('{"step": 4, "epoch": 1.0}\n')
            (folder / "knn.jsonl").write_text('{"step": 4, "knn20": 40.0}\n')
            for name, evaluation in job.evaluations.items():
                for protocol in evaluation.probe["protocols"]:
                    write(value(job, protocol), folder / "results" / name)
                (folder / "results" / name / ".done").write_text(evaluation.fingerprint)
            report(job, "done", 1.0)
        return True

    monkeypatch.setattr(runner, "run_all", run)
    return ran


def value(job, protocol):
    points = 10.0 * job.seed + len(job.cell) + job.settings["max_steps"]
    keys = {"model": job.cell, "data": DATA, "protocol": protocol}
    return replace(result(**keys), values=[points], mean=points, std=0.0, interval=[points, points])


def seen(config):
    return {
        one.key: (one.settings[SEEDS], one.values)
        for one in read_all(Path(config.results_dir) / "results")
    }


def test_a_clone_without_the_runs_does_what_is_missing_and_keeps_the_rest(
    tmp_path, trained, capsys
):
    """A clone that ran one more cell lost the results of all others."""
    first = settings(tmp_path, only=["one"])
    assert runner.study(first) == 2
    assert trained == [("one", 0), ("one", 1)]
    before = seen(first)
    shutil.rmtree(tmp_path / "runs")  # another machine
    trained.clear()
    # Also where its folder of runs, and so of subsets, is called otherwise.
    there = {"output_dir": str(tmp_path / "elsewhere")}
    config = settings(tmp_path, **there)
    assert runner.study(config) == 0
    assert "2 of 4 runs are there; 2 to go" in capsys.readouterr().out
    assert trained == [("two", 0), ("two", 1)]
    now = seen(config)
    assert now["one", DATA, "knn20"] == before["one", DATA, "knn20"]
    assert now["two", DATA, "knn20"][0] == [0, 1]
    about = json.loads((tmp_path / "collected" / "study.json").read_text())
    assert about["minutes"] == 4.0  # of all four, once each
    assert about["epochs"].keys() == {"one", "two"}
    trained.clear()
    kept = {path: path.read_bytes() for path in (tmp_path / "collected").rglob("*.json")}
    assert runner.study(config) == 0 and not trained
    assert kept == {path: path.read_bytes() for path in (tmp_path / "collected").rglob("*.json")}


def test_more_seeds_and_measures_join_those_that_are_published(tmp_path, trained):
    runner.study(settings(tmp_path, only=["one"]))
    shutil.rmtree(tmp_path / "runs")
    trained.clear()
    more = settings(tmp_path, seeds=[0, 1, 2], only=["one"])
    runner.study(more)
    assert trained == [("one", 2)]
    seeds, values = seen(more)["one", DATA, "knn20"]
    assert seeds == [0, 1, 2] and values == [6.0, 16.0, 26.0]
    shutil.rmtree(tmp_path / "runs")
    trained.clear()
    probe = {"data": {"name": "$d"}, "protocols": ["linear-n1"]}
    evaluations = {**more.evaluations, "other": {"probe": probe}}
    cells = {"one": {"set": {"max_steps": 3}, "evaluate": ["few", "other"]}}
    wider = settings(tmp_path, seeds=[0, 1, 2], evaluations=evaluations, cells=cells)
    runner.study(wider)
    assert len(trained) == 3  # a new measure needs the weights
    shutil.rmtree(tmp_path / "runs")
    # What a cell's training told stays, also where one of its measures is still to come.
    more = {**evaluations, "last": {"probe": {**probe, "protocols": ["linear-n2"]}}}
    cells["one"]["evaluate"] = ["few", "other", "last"]
    runner.study(
        settings(tmp_path, seeds=[0, 1, 2], evaluations=more, cells=cells, collect_only=True)
    )
    about = json.loads((tmp_path / "collected" / "study.json").read_text())
    assert about["epochs"]["one"] == [[1.0, 40.0]]
    found = seen(wider)
    assert found["one", DATA, "knn20"][1] == values
    assert found["one", DATA, "linear-n1"][0] == [0, 1, 2]


def test_fewer_seeds_throw_none_away(tmp_path, trained):
    """`seeds=[0]` took the other seeds' values out of every published result."""
    config = settings(tmp_path)
    runner.study(config)
    before = seen(config)
    for more in ({}, {"collect_only": True}):
        with pytest.raises(UserError, match=r"results of the seeds 1, which the setting seeds"):
            runner.study(settings(tmp_path, seeds=[0], **more))
    assert seen(config) == before


def test_results_of_other_settings_or_data_are_neither_mixed_nor_thrown_away(tmp_path, trained):
    config = settings(tmp_path)
    runner.study(config)
    shutil.rmtree(tmp_path / "runs")
    trained.clear()
    before = seen(config)
    changed = settings(tmp_path, data={"d": "synthetic:num=97,size=32", "tail": DATA})
    with pytest.raises(UserError, match=r"holds results of other settings or data of one, two: "):
        runner.study(changed)
    assert not trained and seen(config) == before
    # Removed, they are measured anew.
    for path in (tmp_path / "collected" / "results").glob("one__*"):
        path.unlink()
    cells = {**config.cells, "one": {"set": {"max_steps": 5}, "evaluate": ["few"]}}
    assert runner.study(settings(tmp_path, cells=cells)) == 0
    assert trained == [("one", 0), ("one", 1)]
    assert seen(config)["one", DATA, "knn20"][1] == [8.0, 18.0]


def test_what_says_nothing_of_its_runs_is_measured_again(tmp_path, trained):
    """Results of an earlier version, another study's, and a damaged record."""
    config = settings(tmp_path)
    runner.study(config)
    path = tmp_path / "collected" / "study.json"
    about = json.loads(path.read_text())
    for record in ({**about, "runs": {}}, {**about, "name": "other"}):
        path.write_text(json.dumps(record))
        published = Published(config)
        assert published.minutes == 0
        assert not any(published.holds(job) for job in _jobs(config))
    path.write_text("{")
    assert Published(config).about == {}


def _jobs(config):
    from rs_models.study.config import jobs_of
    from rs_models.study.data import prepare

    return jobs_of(config, prepare(config.data, Path(config.output_dir) / "data"))


def changed_protocols(config, *protocols):
    probe = {"data": {"name": "$d"}, "protocols": list(protocols)}
    return {**config.evaluations, "few": {"probe": probe}}


def test_a_changed_evaluation_drops_no_result_that_is_not_measured_anew(tmp_path, trained):
    """A clone that added a protocol to an evaluation lost what was published by the others."""
    first = settings(tmp_path)
    runner.study(first)
    before = seen(first)
    wider = changed_protocols(first, "knn20", "linear-n1")
    # The weights are here: measured anew, if all of them are asked for.
    for partly in ({"only": ["one"]}, {"collect_only": True}):
        with pytest.raises(UserError, match=r"few of (one|two).* a name of its own"):
            runner.study(settings(tmp_path, evaluations=wider, **partly))
    shutil.rmtree(tmp_path / "runs")  # another machine
    for partly in ({"collect_only": True}, {}):
        with pytest.raises(UserError, match="few of one, few of two, which this would drop"):
            runner.study(settings(tmp_path, evaluations=wider, **partly))
    assert seen(first) == before
    cells = {
        name: {**cell, "evaluate": ["few", "more"]} for name, cell in dict(first.cells).items()
    }
    named = {**first.evaluations, "more": wider["few"]}
    assert runner.study(settings(tmp_path, evaluations=named, cells=cells, collect_only=True)) == 4
    assert seen(first) == before


def test_weights_that_are_here_are_measured_anew_by_a_changed_evaluation(tmp_path, trained):
    first = settings(tmp_path)
    runner.study(first)
    for export in (tmp_path / "runs").rglob("export"):
        export.rmdir()  # made again by the run that stands in for training
    wider = settings(tmp_path, evaluations=changed_protocols(first, "knn20", "linear-n1"))
    with pytest.raises(UserError):
        runner.study(wider)
    for cell in ("one", "two"):
        for seed in (0, 1):
            (tmp_path / "runs" / "runs" / cell / f"seed-{seed}" / "export").mkdir()
    published = Published(wider)
    jobs = runner.jobs_of(wider, runner.prepare(wider.data, tmp_path / "runs" / "data"))
    published.check(jobs, "collected")  # nothing would be lost


def test_a_finished_model_stays_what_it_is_when_something_is_tuned_over_it(tmp_path):
    cells = {"given": {"model": "rs/some-model", "evaluate": ["few"]}}
    tuning = {"finetune": {"task": "classification", "data": {"name": "$d"}, "labels": 2}}
    evaluations = {**settings(tmp_path).evaluations, "tuned": tuning}
    plain = settings(tmp_path, cells=cells, evaluations=evaluations)
    cells = {"given": {**cells["given"], "evaluate": ["few", "tuned"]}}
    tuned = settings(tmp_path, cells=cells, evaluations=evaluations)
    data = {"d": DATA, "tail": DATA}
    before, after = (
        [Published(config)._identity(job) for job in runner.jobs_of(config, data)]
        for config in (plain, tuned)
    )
    assert len(set(before)) == 1 and before == after
