"""What a study's settings expand to, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import re

import pytest

from rs_models.errors import UserError
from rs_models.settings import build, read_yaml
from rs_models.study.claims import claims_of, sides_of
from rs_models.study.config import StudyConfig, cells_of, floors_of, jobs_of
from rs_models.study.measures import check_measures
from tests.conftest import ROOT

PROBE = {"probe": {"data": {"name": "$d"}, "protocols": ["knn20"]}}
GOOD = {
    "data": {"d": "synthetic:num=64,size=32"},
    "seeds": [0, 1],
    "base": {"backbone": "resnet_nano", "image_size": 32, "data": {"name": "$d"}, "max_steps": 2},
    "evaluations": {"small": PROBE},
    "cells": {
        "a": {"set": {"method": {"name": "rsisc", "temperature": 0.2}}, "evaluate": ["small"]},
        "b": {"like": "a", "set": {"method": {"temperature": 0.5}}, "evaluate": ["small"]},
        "same-as-a": {"like": "b", "set": {"method": {"temperature": 0.2}}},
        "random": {"model": "baseline:random-resnet_nano", "evaluate": ["small"]},
    },
}
DATA = {"d": "synthetic:num=64,size=32"}


def config(**changes):
    return build(StudyConfig, {**GOOD, **changes})


def test_cells_inherit_and_equal_ones_are_one_run():
    jobs = jobs_of(config(), DATA)
    assert [(job.cell, job.seed) for job in jobs[:4]] == [
        *(("a", 0), ("b", 0), ("same-as-a", 0), ("random", 0))
    ]
    by = {(job.cell, job.seed): job for job in jobs}
    assert by["b", 0].settings["method"] == {"name": "rsisc", "temperature": 0.5}
    assert by["b", 1].settings["seed"] == 1
    assert by["a", 0].settings["data"]["name"] == DATA["d"]
    assert by["same-as-a", 0].folder == by["a", 0].folder != by["b", 0].folder
    assert by["a", 0].folder != by["a", 1].folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cells": {"a": {"like": "z"}}}, "cells.a.like=z is no cell"),
        ({"cells": {"a": {"like": "b"}, "b": {"like": "a"}}}, "in a circle"),
        ({"cells": {"a": {"evaluate": ["z"]}}}, "cells.a.evaluate names 'z'"),
        ({"cells": {"a": {"set": {"epoch": 1}}}}, "Unknown setting cells.a.set.epoch"),
        ({"cells": {"a": {"model": "x", "set": {"epochs": 1}}}}, "give a model to measure, or"),
        ({"cells": {"A b": {}}}, "small letters"),
        (
            {"evaluations": {"e": {}}, "cells": {"a": {}}},
            "give one of probe, finetune and geometry",
        ),
        (
            {"evaluations": {"e": {"probe": {"protocol": []}}}, "cells": {"a": {}}},
            "evaluations.e.probe.protocol",
        ),
        *(
            ({"evaluations": {"e": {"geometry": value}}, "cells": {"a": {}}}, "e.geometry.")
            for value in ({}, {"data": ""}, {"data": {}}, {"data": []}, {"data": "x", "images": 0})
        ),
        ({"base": {"data": {"name": "$z"}}}, "$z is none of the study's data"),
        ({"seeds": [1, 1]}, "seeds=[1, 1] should hold different values"),
        ({"only": ["z"]}, "only names 'z'"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(changes, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        jobs_of(config(**changes), DATA)


def test_a_claim_needs_its_cells():
    claim = {"paper": "rsisc", "says": "x", "better": "a", "worse": "z", "measures": ["d/knn20"]}
    with pytest.raises(UserError, match="'z' is no cell"):
        claims_of(config(claims=[claim]))
    claim = claim | {"paper": "mine", "worse": "a"}
    with pytest.raises(UserError, match="'mine' is none of rsisc"):
        claims_of(config(claims=[claim]))


def test_the_small_study_is_sound():
    small = build(StudyConfig, read_yaml(ROOT / "training" / "configs" / "study_small.yaml"))
    data = {name: str(value) for name, value in small.data.items()}
    jobs = jobs_of(small, data)
    cells = cells_of(small)
    assert len(small.seeds) >= 3 and len(jobs) == len(cells) * len(small.seeds)
    claims = claims_of(small)
    assert {claim.paper for claim in claims} == {"rsisc", "tov", "false", "glcnet", "sticl", "last"}
    # Equal budgets: both sides of a claim see as many images in their steps (drop-last batches).
    seen = {
        job.cell: _images_seen(job.settings)
        for job in jobs
        if job.settings is not None and job.seed == small.seeds[0]
    }
    for claim in claims:
        assert seen[claim.better] == pytest.approx(seen[claim.worse], rel=0.02), claim.says


def _images_seen(settings):
    total = 0
    for stage in settings.get("stages") or [{}]:
        whole = {**settings, **stage, "data": {**settings["data"], **stage.get("data", {})}}
        images = whole["data"].get("limit") or (1944 if "from" in whole["data"]["name"] else 6000)
        batch = whole["batch_size"]
        total += round(whole["epochs"] * (images // batch)) * batch
    return total


def test_what_would_fail_at_the_end_is_told_at_the_start(tmp_path):
    probe = {"e": {"probe": {"protocols": ["knn5", "nope"]}}}
    for changes, words in (
        ({"cells": {7: {}}}, "write the name in quotes"),
        ({"cells": {"a": 3}}, "cells.a should be a group"),
        ({"curves": ["z"]}, "curves names 'z'"),
        ({"amounts": {"z": 3}}, "amounts names 'z'"),
        ({"seeds": [-1]}, r"seeds\[0\]=-1"),
        ({"level": 1.0}, "level=1.0"),
        ({"evaluations": {**GOOD["evaluations"], **probe}}, "Unknown protocol 'nope'"),
        ({"report": str(tmp_path)}, "is a folder"),
        ({"report": "/proc/x/report.md"}, "cannot be written"),
    ):
        with pytest.raises(UserError, match=words):
            jobs_of(config(**changes), DATA)


def test_a_finished_model_is_measured_once_and_what_a_seed_changes_with_each():
    few = {"finetune": {"task": "classification", "data": {"name": "$d"}, "labels": 4}}
    cells = {
        "given": {"model": "rs/sticl-resnet18", "evaluate": ["small"]},
        "tuned": {"model": "rs/sticl-resnet18", "evaluate": ["small", "few"]},
        "random": {"model": "baseline:random-resnet_nano", "evaluate": ["small"]},
    }
    evaluations = {**GOOD["evaluations"], "few": few}
    jobs = jobs_of(config(cells=cells, evaluations=evaluations, seeds=[3, 5, 7]), DATA)
    folders = {name: {job.folder for job in jobs if job.cell == name} for name in cells}
    assert {name: len(found) for name, found in folders.items()} == {
        **{"given": 1, "tuned": 3, "random": 3}
    }
    given = [job for job in jobs if job.cell == "given"]
    assert [job.seed for job in given] == [3, 5, 7]
    assert len({job.fingerprint for job in given}) == 1
    assert (
        given[0].fingerprint == dataclasses.replace(given[0], shared=None).fingerprint
    )  # as before


def test_the_floor_of_a_cell_is_the_random_weights_of_its_backbone():
    cells = {
        "a": {"set": {"backbone": "swin_nano"}},
        "b": {},
        "random": {"model": "baseline:random-resnet_nano"},
        "given": {"model": "rs/sticl-resnet18"},
    }
    assert floors_of(config(cells=cells)) == {"b": "random"}
    cells["a"]["random"] = "b"
    with pytest.raises(UserError, match="random=b is a cell that is trained"):
        floors_of(config(cells=cells))


def test_a_claim_that_nothing_will_decide_is_refused_before_training():
    said = {"paper": "tov", "says": "so", "better": "a", "worse": "b"}
    fine = config(claims=[{**said, "measures": ["synthetic:num=64,size=32/knn20"]}])
    check_measures(claims_of(fine), jobs_of(fine, DATA))
    wrong = config(claims=[{**said, "measures": ["synthetic:num=64,size=32/linear-n20"]}])
    with pytest.raises(UserError, match=r"claims\[0\].measures=.*linear-n20.*cell 'a'.*knn20"):
        check_measures(claims_of(wrong), jobs_of(wrong, DATA))
    unmeasured = config(
        claims=[{**said, "worse": "same-as-a", "measures": fine.claims[0]["measures"]}]
    )
    with pytest.raises(UserError, match=r"same-as-a.*gives nothing"):
        check_measures(claims_of(unmeasured), jobs_of(unmeasured, DATA))


@pytest.mark.parametrize(
    "name", ["study_small", pytest.param("study_claims", marks=pytest.mark.slow)]
)
def test_our_studies_measure_what_they_claim_against_random_weights(name):
    study = build(StudyConfig, read_yaml(ROOT / "training" / "configs" / f"{name}.yaml"))
    sets = {key: value for key, value in study.data.items() if isinstance(value, str)}
    folders = [ROOT / value for value in sets.values() if not value.startswith("synthetic")]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        pytest.skip(f"{missing[0].name} is not here")
    data = {
        key: str((ROOT / value).resolve()) if (ROOT / value).is_dir() else value
        for key, value in {**dict.fromkeys(study.data, "synthetic"), **sets}.items()
    }
    claims, jobs, floors = claims_of(study), jobs_of(study, data), floors_of(study)
    check_measures(claims, jobs)
    for claim in claims:
        for cell, side in zip(
            (claim.better, claim.worse), sides_of(claim.measures[0]), strict=True
        ):
            if name == "study_small" and cell not in floors:
                continue  # it has no random Swin, so that its claims about one count as not tested
            if cell in floors.values():
                continue  # a network from scratch is its own
            random = dataclasses.replace(claim, better=floors[cell], worse=floors[cell])
            check_measures([dataclasses.replace(random, measures=[side])], jobs)


def test_a_decoder_is_for_masks_and_changes_the_fingerprint():
    few = {"finetune": {"task": "segmentation", "data": {"name": "$d"}, "labels": 4}}
    own = {**few, "decoder": True}
    cells = {"a": {"set": {"method": {"name": "rsisc"}}, "evaluate": ["few", "own"]}}
    (job, _) = jobs_of(config(evaluations={"few": few, "own": own}, cells=cells), DATA)
    assert job.evaluations["few"].fingerprint != job.evaluations["own"].fingerprint
    with pytest.raises(UserError, match="decoder is for finetune"):
        jobs_of(config(evaluations={"small": {**PROBE, "decoder": True}}), DATA)
