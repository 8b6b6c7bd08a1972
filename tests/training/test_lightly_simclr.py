"""The comparison with lightly: what it chooses, that it goes on, and that it runs."""

from __future__ import annotations

import json
import sys

import pytest

from rs_models.errors import UserError
from rs_models.export import export
from tests.conftest import ROOT
from tests.support.models import nano, provenance

DATA = "synthetic:num=60,size=32"
OTHER = "synthetic:num=240,size=32"
SMALL = (
    f"--data {DATA} --backbone resnet_nano --size 32 --epochs 1 --batch 16 --rates 0.06 --workers 0"
)


@pytest.fixture
def module(monkeypatch):
    """The script, with its neighbours beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "training" / "benchmarks"))
    for name in ("lightly_simclr", "lightly_side"):
        sys.modules.pop(name, None)
    import lightly_simclr

    return lightly_simclr


@pytest.mark.parametrize(
    ("peak", "tried", "best"),
    [
        (0.06, [0.03, 0.06, 0.12], 0.06),
        (0.004, [0.001875, 0.00375, 0.0075, 0.015, 0.03, 0.06, 0.12], 0.00375),
        (0.3, [0.03, 0.06, 0.12, 0.24, 0.48], 0.24),
        (0.0, [0.001875, 0.00375, 0.0075, 0.015, 0.03, 0.06, 0.12], 0.001875),
    ],
)
def test_the_grid_of_rates_grows_past_its_best(module, peak, tried, best):
    chosen, accuracies = module.best_rate(module.RATES, lambda rate: -abs(rate - peak))
    assert list(accuracies) == pytest.approx(tried)
    assert chosen == pytest.approx(best)


class Fake:
    """A side whose training is a network with random weights."""

    def __init__(self):
        self.trained, self.stop_before = [], None

    def __call__(self, options, cell, folder):
        if len(self.trained) == self.stop_before:
            raise KeyboardInterrupt
        self.trained.append(cell.name)
        network = nano("resnet_nano", seed=hash(cell.name) % 1000)
        export(
            network, folder / "export", provenance=provenance(network, train_size=32), timm=False
        )


def test_a_stopped_comparison_goes_on_cell_by_cell(module, tmp_path, monkeypatch, capsys):
    side = Fake()
    monkeypatch.setattr(module, "train_simclr", side)
    monkeypatch.setattr(module, "our_simclr", side)
    monkeypatch.setattr(module, "HIGHEST", 0.06)  # one rate
    monkeypatch.setattr(module, "LOWEST", 0.05)
    monkeypatch.setattr(module, "PACKAGES", ("torchvision",))
    monkeypatch.setattr(module, "PROTOCOLS", ("knn20",))
    output = tmp_path / "out.json"
    arguments = [
        *SMALL.split(),
        "--work",
        str(tmp_path / "w"),
        "--output",
        str(output),
        "--seeds",
        "2",
    ]
    side.stop_before = 3
    with pytest.raises(KeyboardInterrupt):
        module.main(arguments)
    assert not output.exists()
    side.stop_before = None
    assert module.main(arguments) == 0
    assert len(side.trained) == len(set(side.trained))  # none twice
    told = json.loads(output.read_text())
    assert told["settings"]["temperature"] == 0.2 and told["versions"]["torchvision"]
    for name in ("lightly", "rs_models"):
        assert set(told[name]["validation by precision"]) == {"no", "bf16"}
        assert f"{told[name]['rate']:g}" in told[name]["validation by rate"]
        assert all(len(values) == 2 for values in told[name]["accuracy"].values())
    low, high = told["ours minus lightly's"][f"{DATA}/knn20"]["interval"]
    assert low <= told["ours minus lightly's"][f"{DATA}/knn20"]["mean"] <= high

    count = len(side.trained)
    assert module.main([*arguments, "--seeds", "3"]) == 0  # more seeds are more cells
    assert len(side.trained) == count + 2
    with pytest.raises(UserError, match="another job"):
        module.main([*arguments, "--temperature", "0.5"])


def test_a_stop_of_our_side_ends_the_comparison(module, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train_simclr", Fake())
    monkeypatch.setattr(module, "pretrain", lambda config: None)  # stopped on request
    monkeypatch.setattr(module, "HIGHEST", 0.06)
    monkeypatch.setattr(module, "LOWEST", 0.05)
    monkeypatch.setattr(module, "PROTOCOLS", ("knn20",))
    output, work = tmp_path / "out.json", tmp_path / "w"
    places = ["--work", str(work), "--output", str(output), "--seeds", "1"]
    with pytest.raises(KeyboardInterrupt):
        module.main([*SMALL.split(), *places, "--precisions", "no"])
    assert not output.exists() and not list(work.glob("rs_models-*/trained.json"))
    assert list(work.glob("lightly-*/trained.json"))  # what was done stays


def test_the_page_of_results_tells_the_measured_figures():
    told = json.loads((ROOT / "training/benchmarks/results/lightly_simclr.json").read_text())
    page = (ROOT / "docs" / "results.md").read_text()
    asked = [f"aid96/{protocol}" for protocol in ("knn20", "linear-n5", "linear-n20", "linear-n50")]
    for side, name in (("lightly", "lightly 1.6"), ("rs_models", "rs_models")):
        measured = [told[side]["accuracy"][key] for key in (*asked, "rsscn7/linear-n20")]
        row = " | ".join(f"{sum(values) / len(values):.1f}" for values in measured)
        assert f"| {name} | {row} |" in page
        rates = told[side]["validation by rate"]
        assert f"{rates['0.03']}, {rates['0.06']} and {rates['0.12']}" in page.replace("\n", " ")
        assert (
            max(told[side]["validation by rate"].values())
            == (told[side]["validation by rate"][f"{told[side]['rate']:g}"])
        )


@pytest.mark.slow
def test_both_sides_train_and_are_compared(module, tmp_path, monkeypatch):
    pytest.importorskip("lightly", reason="lightly is a benchmark-only extra and not installed")
    monkeypatch.setattr(module, "HIGHEST", 0.06)
    monkeypatch.setattr(module, "LOWEST", 0.05)
    output = tmp_path / "out.json"
    arguments = [*SMALL.split(), "--other", OTHER, "--precisions", "no", "--seeds", "1"]
    assert module.main([*arguments, "--work", str(tmp_path / "w"), "--output", str(output)]) == 0
    told = json.loads(output.read_text())
    for name in ("lightly", "rs_models"):
        assert told[name]["rate"] == 0.06
        assert {f"{DATA}/knn20", f"{OTHER}/linear-n20"} <= set(told[name]["accuracy"])
    assert told["versions"]["lightly"].startswith("1.6")
    assert told["ours minus lightly's"][f"{DATA}/knn20"]["interval"] is None
