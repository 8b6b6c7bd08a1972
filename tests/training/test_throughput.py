"""The throughput benchmark runs from end to end, at sizes that take seconds."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rs_models.errors import UserError
from tests.conftest import ROOT

SCRIPT = Path(__file__).parents[2] / "training" / "benchmarks" / "throughput.py"
SMALL = (
    "--data synthetic:num=24,size=32 --image-size 32 --batch-size 8 --precision no --rounds 1 "
    "--steps 1 --workers 1 --view-data synthetic:num=6,size=48 --view-images 6 "
    "--view-source-size 48 --view-size 32"
).split()


@pytest.fixture(scope="module")
def throughput():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:  # scripts import their neighbours by name
        patch.syspath_prepend(str(SCRIPT.parent))
        yield _loaded()


def _loaded():
    spec = importlib.util.spec_from_file_location("throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str, target: Path) -> dict:
    """The figures of one run of the script."""
    subprocess.run(
        [sys.executable, str(SCRIPT), "--json", str(target), *SMALL, *arguments],
        check=True,
        timeout=300,
        capture_output=True,
    )
    return json.loads(target.read_text())


@pytest.mark.slow
def test_loop_bare_encoder_and_memory(tmp_path):
    figures = run("--skip", "views", target=tmp_path / "figures.json")
    speed = figures["loop_images_per_second"]
    assert figures["loop_over_bare"] == pytest.approx(
        speed["loop"]["median"] / speed["bare"]["median"]
    )
    peak = figures["peak_bytes"]
    assert peak["cache"] == 24 * 32 * 32 * 3
    assert peak["bare"] > 100 * 2**20  # a process with torch and a ResNet-18 in it
    assert figures["loop_peak_over_bare_peak"] == peak["loop"] / peak["bare"]
    assert figures["settings"]["batch_size"] == 8
    assert figures["machine"]["versions"]["torch"]


@pytest.mark.slow
def test_lightly_beside_ours(tmp_path):
    pytest.importorskip("lightly", reason="lightly is a benchmark-only extra and not installed")
    figures = run("--skip", "memory", target=tmp_path / "figures.json")
    loop, views = figures["loop_images_per_second"], figures["views_images_per_second"]
    assert set(loop) == {"loop", "bare", "lightly_fp32", "lightly_same_format"}
    assert figures["loop_over_lightly_bf16"] is None  # ours ran in float32
    assert figures["loop_over_lightly_fp32"] == pytest.approx(
        loop["loop"]["median"] / loop["lightly_fp32"]["median"]
    )
    assert figures["views_over_lightly"] == pytest.approx(
        views["ours"]["median"] / views["lightly"]["median"]
    )
    assert views["ours_first_epoch"]["median"] < views["ours"]["median"]


def test_rounds_time_each_side_alone(throughput, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])

    class Feed:
        position = 7

        def steps(self, start, stop):
            yield from range(start, stop)

    calls = []

    def other(steps):
        calls.append(steps)
        clock[0] += 5.0 * steps

    rounds = throughput.Rounds(Feed(), {"other": other}, rounds=2, steps=3)
    seen = []
    for step in rounds.steps(0, 20):
        seen.append(step)
        clock[0] += 1.0  # what the trainer does with a batch before it asks for the next
    assert seen == list(range(throughput.WARM_STEPS + 2 * 3))
    assert calls == [throughput.WARM_STEPS, 3, 3]
    assert rounds.seconds == {"loop": [3.0, 3.0], "other": [15.0, 15.0]}
    assert rounds.position == 7


def test_ratio_is_the_median_of_rounds(throughput):
    speed = {"loop": [10.0, 30.0, 8.0], "bare": [10.0, 10.0, 10.0]}
    assert throughput.ratio(speed, "loop", "bare") == 1.0
    assert throughput.ratio(speed, "loop", "lightly_fp32") is None


def test_the_page_of_speed_tells_the_measured_figures():
    folder = ROOT / "training" / "benchmarks" / "results"
    measured = json.loads((folder / "cpu-2-cores-float32.json").read_text())
    said = (ROOT / "docs" / "speed.md").read_text().replace("\n", " ")
    assert f"at {measured['loop_over_bare']:.2f} times the bare encoder" in said
    assert f"at {measured['loop_over_lightly_fp32']:.2f} times lightly" in said
    assert f"are {measured['views_over_lightly']:.1f} times as fast" in said
    assert f"{measured['views_over_lightly_first_epoch']:.1f} times with our first epoch" in said
    tiles = json.loads((folder / "cpu-2-amx-cores-bf16.json").read_text())
    assert f"at {tiles['loop_over_lightly_bf16']:.1f} times lightly in bf16" in said
    assert f"at {tiles['loop_over_lightly_fp32']:.1f} times lightly in float32" in said
    assert f"at {tiles['loop_over_bare']:.1f} times the bare encoder" in said
    maps = json.loads((folder / "small-maps-2-amx-cores.json").read_text())
    for precision, name in (("bf16", "bf16 at 32, 64 and 96 pixels"), ("no", "float32")):
        gains = [maps[f"{precision}, {size} pixels"]["ours_over_bare"] for size in (32, 64, 96)]
        first, second, third = (f"{gain:.1f}" for gain in gains)
        assert f"{first}, {second} and {third} times as fast in {name}" in said


def test_small_maps_are_timed_against_the_library(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    small_maps = importlib.import_module("small_maps")
    target = tmp_path / "figures.json"
    small = "--sizes 32 --precisions no --batch-size 2 --rounds 1".split()
    assert small_maps.main(["--json", str(target), *small]) == 0
    told = json.loads(target.read_text())["no, 32 pixels"]
    speed = {name: side["rounds"][0] for name, side in told["images_per_second"].items()}
    assert told["ours_over_bare"] == pytest.approx(speed["ours"] / speed["bare"], rel=0.01)
    with pytest.raises(UserError, match="no convolution"):
        small_maps.main(["--json", str(target), *small, "--backbone", "vit_mini_patch8"])
