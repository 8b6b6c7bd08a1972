"""Settings: presets below what the user says, contradictions refused."""

from __future__ import annotations

import pytest

from rs_models.errors import UserError
from rs_models.settings import build, parse
from rs_models.tasks.finetuning.config import (
    PROTOCOLS,
    FinetuneConfig,
    check,
    parse_labels,
    preset,
    protocol_name,
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("20/class", ("class", 20)),
        ("1%", ("share", 0.01)),
        ("0.5%", ("share", 0.005)),
        (10, ("images", 10)),
        ("all", ("all", 1)),
    ],
)
def test_labels_are_read(labels, expected):
    assert parse_labels(labels) == pytest.approx(expected)


@pytest.mark.parametrize("labels", ["0/class", "-1", "0%", "101%", "many", "1.5", ""])
def test_labels_that_mean_nothing_are_refused(labels):
    with pytest.raises(UserError, match=r"write 20/class, 1%"):
        parse_labels(labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "segmentation", "labels": "20/class"}, "one class an image"),
        ({"crop_scale": [0.5, 1.5]}, "crop_scale"),
        ({"epochs": 0}, "epochs=0"),
        ({"patience": 0}, "patience=0"),
        ({"holdout": 1.0}, "holdout=1"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"seeds": [1, 1]}, "seeds="),
        ({"task": "detection", "labels": 3, "class_weights": "balanced"}, "class_weights"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        check(FinetuneConfig(**settings))


def test_every_preset_is_a_valid_setting_of_its_task():
    assert set(PROTOCOLS) == {"tov", "glcnet", "false", "sticl", "rsisc", "last"}
    for name, by_task in PROTOCOLS.items():
        for task in by_task:
            config = build(FinetuneConfig, {"task": task, **preset(name, task), "protocol": name})
            check(config)
            assert protocol_name(config).startswith(f"{name}-")
    # YAML takes the bare word for a truth value.
    assert parse(FinetuneConfig, ["protocol=false", "task=segmentation"]).protocol == "false"
    with pytest.raises(UserError, match="is for segmentation, not for detection"):
        preset("glcnet", "detection")


def test_images_without_labels_bring_their_own_rates_below_a_papers():
    assert preset(None, "classification") == {}
    ours = preset(None, "classification", self_training=True)
    assert ours["holdout"] == 0 and ours["freeze_norm"] and ours["learning_rate"] < 1e-3
    papers = preset("sticl", "classification", self_training=True)
    assert papers["learning_rate"] == 0.01 and papers["freeze_norm"]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"labels": "20/class"}, "finetune-n20"),
        ({"labels": "all"}, "finetune-all"),
        ({"labels": "1%", "tune": "frozen"}, "frozen-1%"),
        ({"task": "segmentation", "labels": 10}, "segmentation-10"),
        ({"task": "detection", "labels": "all", "tune": "frozen"}, "detection-frozen-all"),
        ({"task": "segmentation", "labels": "1%", "protocol": "glcnet"}, "glcnet-1%"),
    ],
)
def test_protocols_have_names(settings, name):
    assert protocol_name(FinetuneConfig(**settings)) == name
