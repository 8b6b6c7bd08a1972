"""The how-to's figures are those of the files that were measured."""

from __future__ import annotations

import re

import pytest

from rs_models.evaluation.results import read_all
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "howto" / "label.md"
FINETUNE = ROOT / "docs" / "howto" / "finetune.md"
KEPT = {
    (result.data, result.protocol): result
    for result in read_all(ROOT / "model_cards" / "labelling")
}
DATA = ("ucmerced128", "eurosat64", "aid96")


def cells(start, page=PAGE):
    """Cells of a page's line that begins so."""
    lines = [line for line in page.read_text().splitlines() if line.startswith(start)]
    assert len(lines) == 1, f"{start} stands {len(lines)} times in {page}"
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def shown(result):
    return f"{result.mean:.1f} ± {result.std:.1f}"


@pytest.mark.parametrize("data", DATA)
def test_suggested_and_random_labels(data):
    for guide in ("random", "suggested"):
        told = cells(f"| {data} | {guide} |")[2:]
        for count, cell in zip((1, 2, 5, 10), told, strict=True):
            assert cell == shown(KEPT[data, f"{guide}-n{count}"])
    # What labels are worth where they are few, and no loss later: the claim of the page.
    for count, least in ((1, 3), (2, 3), (5, 3), (10, 1.9)):
        gain = KEPT[data, f"suggested-n{count}"].mean - KEPT[data, f"random-n{count}"].mean
        assert gain > least
    assert len(KEPT[data, "suggested-n1"].values) == 5


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("count", [1, 5, 20])
def test_propagation(data, count):
    plain, helped = (KEPT[data, f"{name}-n{count}"] for name in ("labelled", "propagated"))
    low, high = helped.interval
    told = cells(f"| {data} | {count} |")[2:]
    assert told == [shown(plain), shown(helped), f"{low:.1f} to {high:.1f}"]
    # What is claimed: two points at five labels a class, more at one, and no loss at twenty.
    assert helped.mean - plain.mean > {1: 6, 5: 2, 20: 0}[count]
    assert plain.settings["seeds"] == [0, 1, 2, 3, 4]
    # Draw by draw it is the same labels.
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", plain.data_revision)
    assert plain.data_revision == helped.data_revision


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("count", [1, 5, 20])
def test_a_table_of_all_stages(data, count):
    plain, spread = (KEPT[data, f"{name}-n{count}"] for name in ("labelled", "propagated"))
    whole, both = (KEPT[data, f"{name}-n{count}@stages"] for name in ("labelled", "propagated"))
    assert cells(f"| {count} | {data} |")[2:] == [shown(plain), shown(whole), shown(both)]
    # What is claimed: four to seven points at five labels a class, beside as much of a help.
    if count == 5:
        assert 4 <= both.mean - spread.mean < 7.5
    assert whole.mean > plain.mean and both.mean > spread.mean
    assert plain.data_revision == whole.data_revision == both.data_revision


SELF_TRAINED = sorted(key for key in KEPT if key[1].startswith("finetune-self-n"))


def test_self_training_was_measured_on_each_set():
    asked = {(data, f"finetune-self-n{count}") for data in DATA for count in (1, 5, 20)}
    assert set(SELF_TRAINED) == asked


@pytest.mark.parametrize("data, protocol", SELF_TRAINED)
def test_self_training(data, protocol):
    count = int(protocol.rpartition("-n")[2])
    frozen, spread = KEPT[data, f"linear-n{count}"], KEPT[data, f"propagated-n{count}"]
    trained = KEPT[data, protocol]
    told = cells(f"| {data} | {count} |", FINETUNE)[2:]
    first = [f"{result.values[0]:.1f}" for result in (frozen, spread, trained)]
    low, high = trained.interval
    assert told == [*first, f"{low:.1f} to {high:.1f}"]
    if count == 5:
        assert f"{first[2]} % for {first[0]} % on" in " ".join(PAGE.read_text().split())
    # The same labels, one draw, and never less than the frozen backbone.
    assert trained.settings["runs"][0]["draw"] == frozen.settings["draws"][0]
    assert trained.settings["seeds"] == [0] and trained.values[0] >= frozen.values[0]
