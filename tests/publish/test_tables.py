"""Tables across data sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rs_models.evaluation.results import read
from rs_models.publish.tables import headline, plain, readouts, starts
from tests.conftest import ROOT

STORED = ROOT / "model_cards" / "results"


def stored(model: str, mean: float, *, data: str = "aid96", protocol: str = "linear-n20"):
    """A stored result with other keys and another mean."""
    path = Path(STORED / "baseline-random-resnet18__aid96__linear-n20.json")
    return dataclasses.replace(
        read(path), model=model, data=data, protocol=protocol, values=[mean], mean=mean, std=0.0
    )


def test_the_headline_ranks_our_models_below_what_they_must_beat():
    results = [
        stored("rsisc-resnet-mini-aid", 52.0),
        stored("rsisc-resnet-mini-aid", 60.0, data="eurosat64"),
        stored("sticl-resnet18", 55.0),
        stored("sticl-resnet18", 70.0, data="eurosat64"),
        stored("baseline:random-convolutions", 41.0),
        stored("imagenet-supervised-efficientnet-lite0-128px", 69.2),
        stored("imagenet-supervised-efficientnet-lite0-128px", 89.5, data="ucmerced128"),
        stored("no-model-of-the-zoo", 99.0),
        stored("sticl-resnet18", 80.0, protocol="linear-n20@stages"),
    ]
    lines = [line.split(" | ") for line in headline(results).splitlines()]
    assert lines[0] == ["| model", "aid96", "eurosat64", "mean |"]
    names = [line[0].removeprefix("| ") for line in lines[2:]]
    assert set(names[:2]) == {
        "baseline:random-convolutions",
        "imagenet-supervised-efficientnet-lite0-128px",
    }
    assert names[2:] == ["sticl-resnet18", "rsisc-resnet-mini-aid"]
    assert lines[4][1:] == ["55.0", "70.0", "62.5 |"]
    # A model that lacks a data set has no mean, for it would compare unlike things.
    assert lines[2][2:] == ["-", "- |"]


def test_readouts_say_what_they_gain_over_the_last_stage():
    results = [
        stored("sticl-resnet18", 50.0),
        stored("sticl-resnet18", 55.5, protocol="linear-n20@stages"),
        stored("baseline:random-resnet18", 31.0, protocol="linear-n20@stages"),
    ]
    text = readouts(results)
    assert "| sticl-resnet18 | 55.5 (+5.5) | 55.5 |" in text
    assert "| baseline:random-resnet18 | 31.0 | 31.0 |" in text
    assert plain(results) == results[:1]
    assert readouts(results[:1]) == readouts(results[2:]) == ""  # baselines alone compare nothing
    more = [
        stored("sticl-resnet18", 40.0, protocol="knn20"),
        stored("sticl-resnet18", 46.0, protocol="knn20@stages"),
        stored("sticl-resnet18", 61.0, protocol="linear-n100@stages"),
    ]
    text = readouts([*more, *results])
    places = [text.index(f"`{p}@stages`:") for p in ("linear-n20", "knn20", "linear-n100")]
    assert places == sorted(places)
    assert "| sticl-resnet18 | 46.0 (+6.0) | 46.0 |" in text
    assert "| sticl-resnet18 | 61.0 | 61.0 |" in text


def test_starts_compare_a_model_with_random_weights_of_its_backbone():
    def row(model, mean, std, protocol="segmentation-10", data="dubai256"):
        result = stored(model, mean, data=data, protocol=protocol)
        return dataclasses.replace(result, values=[mean - std, mean + std], std=std)

    random, mini = "baseline:random-resnet18", "glcnet-resnet-mini-aid-with-decoder"
    results = [
        row("false-resnet18", 50.0, 1.5),
        row(random, 44.0, 5.9),
        row("false-resnet18", 60.0, 1.5, "segmentation-all"),
        row(random, 66.0, 2.0, "segmentation-all"),
        row("false-resnet18", 20.0, 3.0, "segmentation-1%"),
        row(random, 18.0, 1.0, "segmentation-1%"),
        row(mini, 40.0, 0.5),
        row("baseline:random-resnet_mini", 30.0, 2.0),
        row("false-resnet18", 30.0, 1.0, "detection-10", "palms256"),  # nothing to compare it with
        row("false-resnet18", 70.0, 0.0, "linear-n20"),
        row(random, 60.0, 0.0, "linear-n20"),
    ]
    lines = [line.strip("| ").split(" | ") for line in starts(results).splitlines()[2:]]
    assert [(line[2], line[3], line[-1]) for line in lines] == [
        ("1%", "false-resnet18", "+2.0"),
        ("10", "false-resnet18", "**+6.0**"),
        ("10", mini, "**+10.0**"),
        ("all", "false-resnet18", "**-6.0**"),
    ]
    assert lines[1][4:6] == ["44.0 ± 5.9", "50.0 ± 1.5"]
    assert starts(results[:1]) == ""
