"""Results: schema, files, intervals, tables."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from rs_models.errors import UserError
from rs_models.evaluation.results import Result, bootstrap_interval, read, read_all, table, write

KEYS = {
    "model": "rs/tov-resnet18",
    "model_revision": "abc",
    "data": "timm/eurosat-rgb",
    "data_revision": "def",
    "protocol": "linear-n5",
    "settings": {"pretrained_on": "aid"},
}


def result(correct=None, **changes) -> Result:
    correct = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool) if correct is None else correct
    return Result.measured(correct, command="python probe.py", **{**KEYS, **changes})


def test_a_result_survives_its_file(tmp_path):
    made = result()
    assert (made.values, made.mean, made.std) == ([75.0, 50.0], 62.5, 12.5)
    path = write(made, tmp_path)
    assert path.name == "rs--tov-resnet18__timm--eurosat-rgb__linear-n5.json"
    assert read(path) == made
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_share_and_a_number_of_labels_keep_files_of_their_own(tmp_path):
    names = ("segmentation-1", "segmentation-1%")
    made = [result(protocol=name) for name in names]
    assert len({write(one, tmp_path) for one in made}) == 2
    assert [one.protocol for one in read_all(tmp_path)] == list(names)


def test_one_file_for_a_model_data_and_protocol(tmp_path):
    write(result(), tmp_path)
    newer = result(np.ones((1, 4), bool))
    write(newer, tmp_path)
    write(result(protocol="knn20"), tmp_path)
    assert len(read_all(tmp_path)) == 2
    assert newer in read_all(tmp_path)
    write(newer, tmp_path / "copy")
    with pytest.raises(UserError, match="both hold rs/tov-resnet18"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mean", 99.0, "'mean' is 99.0 but the values give 62.5"),
        ("std", None, "'std' is None"),
        ("values", [], "'values'"),
        ("values", [1.0, float("nan")], "'values'"),
        ("interval", [2.0, 1.0], "'interval'"),
        ("date", "yesterday", "'date'"),
        ("date", "2026-01-01", "its zone"),
        ("model", " ", "'model'"),
        ("versions", {}, "'versions'"),
        ("accuracy", 5, "unknown ['accuracy']"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_key(tmp_path, key, value, words):
    content = dataclasses.asdict(result()) | {key: value}
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_all(tmp_path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_a_missing_key_and_broken_json_are_refused(tmp_path):
    content = dataclasses.asdict(result())
    del content["command"]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"bad\.json: a result must have .* missing \['command'\]"):
        read(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"bad\.json is not a result"):
        read(path)


def test_the_interval_is_repeatable_and_covers_the_mean():
    scores = 100 * (np.random.default_rng(0).random(1000) < 0.7)
    low, high = bootstrap_interval(scores)
    assert [low, high] == bootstrap_interval(scores)
    # The binomial's 1.96 standard errors.
    half = 196 * np.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(scores.mean() - half, abs=0.5)
    assert high == pytest.approx(scores.mean() + half, abs=0.5)


def test_the_table_has_a_row_a_model_and_a_column_a_protocol():
    one = np.array([[1, 1, 1, 0]], bool)
    text = table(
        [
            result(),
            result(one, protocol="knn20"),
            result(one, model="baseline:zero", protocol="knn20", settings={"pretrained_on": None}),
            result(one, data="aid", settings={"pretrained_on": ["general", "aid"]}),
        ]
    )
    aid, eurosat = text.split("\n\n**")
    assert "| rs/tov-resnet18 | general, aid | 75.0 [" in aid
    lines = eurosat.splitlines()
    assert lines[2] == "| model | pretrained on | knn20 | linear-n5 |"
    assert lines[4].startswith("| baseline:zero | - | 75.0 [")
    assert lines[4].endswith("] |  |")
    assert lines[5].endswith("| 62.5 ± 12.5 |")
