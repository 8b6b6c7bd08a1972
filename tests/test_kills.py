"""A kill at any file operation of any command that writes: it goes on and ends the same.

`embed` and `finetune` have their own tables, beside their tests.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rs_models.backbones.timm_interop import timm_state_dict
from tests.conftest import ROOT
from tests.support.kills import Campaign, Command, campaigns, undated
from tests.support.models import nano
from tests.support.world import build_world, tiles_of

CARDS = ROOT / "model_cards"
PRETRAIN = [
    *("pretrain", "--method.name", "tov", "--backbone", "resnet_nano", "--image_size", "32"),
    *("--data.name", "synthetic:num=12,size=32", "--batch_size", "6", "--epochs", "2"),
    *("--log_every", "2", "--checkpoint_every", "0.5", "--output_dir", "{out}/run"),
    *("--evaluation.every", "1", "--evaluation.limit", "8", "--resume"),
]


EVERY = {"study": 11}  # what it trains and measures in has its own rows
# What no two runs share: how long it took, and the instant that a file of data was written.
_OWN = {
    "tiles/state.json": ("done", "seconds"),
    "cell.json": ("seconds",),
    "seed-0/checkpoints/step-2/trainer_state.json": ("stage_settings", "data"),
    "study.json": ("minutes",),
}
_COMMITS = re.compile(rb"\b[0-9a-f]{40}\b")


def steady(path: str, content: bytes) -> bytes:
    """A file's content without instants, and without how long things took.

    Nor the commit of this tree, which somebody may change while the slow test runs.
    """
    content = _COMMITS.sub(b"COMMIT", content)
    if path.endswith(("metrics.jsonl", "knn.jsonl")):
        lines = [json.loads(line) for line in content.splitlines()]
        for line in lines:
            line.pop("images_per_second", None)
        return json.dumps(lines).encode()
    for name, keys in _OWN.items():
        if path.endswith(name):
            whole = json.loads(content)
            *groups, key = keys
            group = whole
            for outer in groups:
                group = group[outer]
            group.pop(key, None)
            return undated(path, json.dumps(whole).encode())
    return undated(path, content)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the commands read."""
    root = build_world(tmp_path_factory.mktemp("world"))
    torch.save(timm_state_dict(nano("resnet_nano")), root / "authors.pth")
    (root / "pages").mkdir()
    (root / "pages" / "page.md").write_text(
        "# Ours\n\n<!-- models:begin -->\n<!-- models:end -->\n"
    )
    return root


def commands(world: Path) -> dict[str, Command]:
    """Each command that writes, on inputs that are as small as they can be."""
    model, scene, table = world / "model", world / "scenes" / "s0.tif", world / "table"
    like = tiles_of(world)[0]
    argv = {
        "pretrain": PRETRAIN,
        "collect": [
            *("collect", "--scenes", world / "scenes", "--guide", world / "land.geojson"),
            *("--field", "kind", "--n", "6", "--tile", "32", "--shard", "2"),
            *("--duplicates", "true", "--output", "{out}/tiles"),
        ],
        "embeddings": [
            *("predict", scene, "--model", model, "--tile", "64", "--overlap", "0"),
            *("--output", "{out}/map.tif"),
        ],
        "polygons": [
            *("predict", scene, "--model", world / "classifier", "--tile", "64", "--polygons"),
            *("--overlap", "0", "--output", "{out}/map.tif"),
        ],
        "convert-dataset": [
            *("convert-dataset", "rsscn7", world / "rsscn7.zip", "--output", "{out}/set"),
        ],
        "windows": [
            *("windows", world / "scenes", world / "land.geojson", "--classes", "kind"),
            *("--size", "32", "--block", "1", "--output", "{out}/set"),
        ],
        "resample": [
            *("resample", "--data", world / "tiles", "--model", model, "--n", "4"),
            *("--clusters", "2", "--output", "{out}/few"),
        ],
        "classify": [
            *("classify", table, "--labels", world / "labels.csv", "--output", "{out}/answers.csv"),
            *("--save", "{out}/classifier"),
        ],
        "suggest": [
            *("suggest", table, "-n", "3", "--output", "{out}/next.csv", "--sheet", "{out}/n.png"),
        ],
        "search": [
            *("search", table, "--like", like, "-k", "3", "--output", "{out}/hits.csv"),
            *("--sheet", "{out}/hits.png"),
        ],
        "evaluate": [
            *("evaluate", "--model", model, "--data.name", "synthetic:num=24,size=32"),
            *("--protocols", "[knn5]", "--output_dir", "{out}/results"),
        ],
        "head": [
            *("predict", scene, "--model", model, "--head", world / "land.geojson"),
            *("--classes", "kind", "--tile", "64", "--overlap", "0", "--polygons"),
            *("--output", "{out}/map.tif"),
        ],
        "convert-upstream": [
            *("convert-upstream", world / "authors.pth", "--method", "tov"),
            *("--output", "{out}/model"),
        ],
        "card": [
            *("card", CARDS / "models" / "rsisc-resnet18", "--results", CARDS / "results"),
            *("--output", "{out}/card"),
        ],
        "render": ["render", "{out}/page.md", "--results", CARDS / "results"],
        "export": ["export", model, "{out}/small", "--half"],
        "onnx": ["onnx", model, "--output", "{out}/model.onnx"],
    }
    argv["study"] = [
        *("study", "--config", world / "study.yaml", "--output_dir", "{out}/runs"),
        *("--results_dir", "{out}/collected", "--report", "{out}/report.md"),
    ]
    starts = {"render": world / "pages"}
    watched = {"study": "tests.support.world:study_in_this_process"}
    return {
        name: Command(
            argv=[str(part) for part in words],
            normalise=steady,
            start=starts.get(name),
            prepare=watched.get(name, ""),
            every=EVERY.get(name, 1),
        )
        for name, words in argv.items()
    }


def harmed(results: dict[str, Campaign]) -> list[str]:
    return [f"{name}: {fault}" for name, result in results.items() for fault in result.faults]


@pytest.mark.slow
def test_a_kill_here_and_there_loses_nothing(world, tmp_path):
    """A few of the slow test's kills, of the commands that compute least."""
    some = {"collect": 20, "windows": 12, "convert-dataset": 30, "classify": 10}
    some |= {"render": 1}
    table = {name: replace(commands(world)[name], every=every) for name, every in some.items()}
    results = campaigns(table, tmp_path)
    assert all(result.trials for result in results.values())
    assert not harmed(results), "\n\n".join(harmed(results))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_kill_at_any_file_operation_loses_nothing(world, tmp_path):
    results = campaigns(commands(world), tmp_path)
    assert not harmed(results), "\n\n".join(harmed(results))
    assert sum(len(result.trials) for result in results.values()) > 200
