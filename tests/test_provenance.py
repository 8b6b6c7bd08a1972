"""The record of where weights come from."""

from __future__ import annotations

import json

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from rs_models.errors import UserError
from rs_models.provenance import PROVENANCE_KEYS, Provenance, validate_provenance
from tests.conftest import ROOT

GOOD = {
    "method": "tov",
    "bands": "rgb",
    "value_range": (0, 255),
    "image_mean": (0.4, 0.5, 0.6),
    "image_std": (0.2, 0.3, 0.25),
    "train_size": 32,
    "output_stride": 32,
    "data": ["general", "aid"],
    "data_revision": [None, "abc"],
    "epochs": 1.5,
    "version": "0",
    "commit": None,
}


def test_a_record_comes_back_in_plain_json_with_canonical_bands():
    record = validate_provenance(GOOD)
    assert tuple(record) == PROVENANCE_KEYS
    assert record["bands"] == ["red", "green", "blue"] and record["value_range"] == [0, 255]
    assert json.loads(json.dumps(record)) == record == validate_provenance(record)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": 1}, "unknown ['colour']"),
        ({"epochs": True}, "'epochs' is True: it must be a number"),
        ({"epochs": float("inf")}, "'epochs'"),
        ({"train_size": 32.0}, "'train_size' is 32.0: it must be a number of pixels"),
        ({"image_mean": [0.5]}, "'image_mean' is [0.5]: it must be 3 numbers"),
        ({"image_std": [0.1, 0.0, 0.2]}, "numbers above 0"),
        ({"value_range": [255, 0]}, "two growing numbers"),
        ({"data": ["aid", None]}, "'data'"),
        ({"data": None}, "'data'"),
        ({"data_revision": []}, "'data_revision'"),
        ({"bands": ["red", "purple"]}, "purple"),
        ({"bands": 3}, "'bands'"),
        ({"commit": ""}, "'commit'"),
    ],
)
def test_a_wrong_value_is_told_by_its_key(changes, words):
    with pytest.raises(UserError) as error:
        validate_provenance({**GOOD, **changes})
    assert words in str(error.value)


def test_a_record_in_memory_stays_right():
    record = Provenance(**{**validate_provenance(GOOD)})
    with pytest.raises(StrictDataclassFieldValidationError, match="train_size"):
        record.train_size = 0


def test_records_of_the_models_here_are_read():
    paths = sorted((ROOT / "hub" / "rs").glob("*/config.json"))
    assert paths
    for path in paths:
        record = json.loads(path.read_text())["rs_models"]
        assert validate_provenance(record) == record
