"""What a study keeps of its runs beside the headline: other scores, and FALSE's dose."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rs_models.evaluation.results import write
from rs_models.study.collect import _doses, collect
from rs_models.study.config import Evaluation, Job, StudyConfig
from rs_models.study.published import Published
from rs_models.study.report import _dose_lines, _sentences, _side_by_side, _value
from tests.evaluation.test_results import result
from tests.study.test_claims import result as of_seeds

CLAIM = {
    "paper": "false",
    "says": "Suspicion helps.",
    "better": "row",
    "worse": "none",
    "measures": ["aid96/linear-n20"],
    "differences": [{"mean": 1.5, "low": 1.0, "high": 2.0, "seeds": [0, 1]}],
    "verdict": "cannot be told",
}


@pytest.fixture
def jobs(tmp_path):
    """Two cells and two seeds, measured, with logs of the steps."""
    jobs = []
    for cell, base in (("row", 3.0), ("none", 0.0)):
        for seed in (0, 1):
            folder = tmp_path / cell / f"seed-{seed}"
            few = Evaluation(probe={})
            jobs.append(Job(cell, seed, str(folder), {}, None, {"few": few}))
            scores = {"kappa": [0.1 * seed, 0.1 * seed + 0.2], "iou": [[0.1, 0.2], [0.3, 0.4]]}
            measured = result(model=cell, data="aid96", protocol="linear-n20")
            write(replace(measured, scores=scores), folder / "results" / "few")
            steps = [
                {"step": step, "recalibrated": base * step, "truly_false_negatives": base}
                for step in (1, 2, 3)
            ]
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
            (folder / "export").mkdir()
    return jobs


def nothing():
    return Published(StudyConfig(results_dir="/nowhere"))


def test_one_kappa_a_pretraining_seed(jobs):
    both = collect(jobs, "rs-models study", nothing())
    assert [one.scores for one in both] == [{"kappa": [0.1, 0.2]}] * 2
    found = {one.key: one for one in both}
    (line,) = _sentences([CLAIM], found, {"row": "FALSE", "none": "SimCLR"})
    assert "(+1.5 [+1.0, +2.0]), kappa 0.150 against 0.150" in line
    # Seeds that one side alone has are in no mean.
    second = {**CLAIM, "differences": [{**CLAIM["differences"][0], "seeds": [1]}]}
    (line,) = _sentences([second], found, {"row": "FALSE", "none": "SimCLR"})
    assert "kappa 0.200 against 0.200" in line


def test_a_finished_model_has_no_spread_over_seeds(jobs):
    given = [replace(job, shared=0) for job in jobs if job.cell == "row"]
    (one,) = collect(given, "rs-models study", nothing())
    assert one.settings["pretraining_seeds"] == [0] and len(one.values) == 1
    assert one.interval[0] < one.mean < one.interval[1]  # over its test images
    assert _value(one, "linear-n20") == f"{one.mean:.1f}"


def test_the_report_tells_how_many_pairs_were_recalibrated_and_how_rightly(jobs):
    doses = _doses(jobs)
    assert doses == {"row": {"pairs": 6.0, "true": 0.5}, "none": {"pairs": 0.0}}
    about = {"doses": doses, "cells": {"row": "FALSE by rows", "none": "SimCLR"}}
    (line, _) = _dose_lines([CLAIM], about)
    assert "FALSE by rows: 6.0, 50% of them of one class; SimCLR: 0.0." in line
    rare = {**about, "doses": {"row": {"pairs": 0.006}, "none": {"pairs": 1024.0}}}
    assert "FALSE by rows: 0.006; SimCLR: 1024.0." in _dose_lines([CLAIM], rare)[0]
    assert _dose_lines([{**CLAIM, "better": "x", "worse": "y"}], about) == []
    assert _dose_lines([CLAIM], {"cells": {}}) == []  # of a study before doses were kept


def test_kinds_of_learning_stand_side_by_side():
    """Cells of a kind together, with what was measured of features, whatever else there is."""
    measured = [
        of_seeds("early", [29.0, 31.0], [0, 1], "linear-n20"),
        of_seeds("early", [-9.0], [0], "silhouette"),
        of_seeds("other", [99.0], [0], "linear-n20"),
        of_seeds("middle", [88.0], [0], "knn20"),
        of_seeds("late", [40.0], [0], "linear-n20"),
        replace(of_seeds("early", [77.0], [0], "linear-n20"), data="rsscn7"),
    ]
    found = {one.key: one for one in measured}
    families = {"early": "contrastive", "middle": "generative", "late": "contrastive"}
    about = {"cells": {cell: f"cell {cell}" for cell in families}, "families": families}
    lines = _side_by_side(about, found)
    rows = [line for line in "\n".join(lines).splitlines() if line.startswith("| ")]
    assert rows == [
        "| kind | cell | linear-n20 | silhouette |",
        "| contrastive | cell early | 30.0 | -9.0 |",
        "| contrastive | cell late | 40.0 |  |",
    ]
    assert _side_by_side({"cells": {}}, found) == []  # of a study before kinds were named
