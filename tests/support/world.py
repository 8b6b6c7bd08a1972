"""Tiny inputs of every command: a model, scenes with labels, tiles, a table of embeddings."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from rs_models.data.windows import WindowSettings, make_windows
from rs_models.evaluation.embed import embed
from rs_models.export import export
from rs_models.labelling import Index
from rs_models.tasks.classification import over
from tests.data.convert import tiny
from tests.predict import helpers
from tests.support.models import nano, provenance


def build_world(root: Path) -> Path:
    """Fills a folder; what lies in it is named by the code."""
    backbone = nano("resnet_nano")
    export(backbone, root / "model", provenance=provenance(backbone, train_size=32), timm=False)
    over(backbone, {0: "field", 1: "water"}).save_pretrained(root / "classifier")
    shutil.copy(root / "model" / "preprocessor_config.json", root / "classifier")
    (root / "scenes").mkdir()
    for number in range(2):
        image = helpers.pixels(128, 128, seed=number)
        place = helpers.from_origin(500_000 + 64 * number, 5_000_000, 0.5, 0.5)
        helpers.write(root / "scenes" / f"s{number}.tif", image, transform=place)
    boxes = [(500_000 + x, 4_999_936, 500_032 + x, 5_000_000) for x in (0, 32)]
    (root / "land.geojson").write_text(json.dumps(_land(boxes)))
    tiny.make("rsscn7", root / "rsscn7", count=2)
    with zipfile.ZipFile(root / "rsscn7.zip", "w") as archive:
        for path in sorted((root / "rsscn7").rglob("*.jpg")):
            archive.write(path, path.relative_to(root / "rsscn7"))
    settings = WindowSettings(field="kind", size=16, block=1)
    make_windows(root / "scenes", root / "land.geojson", root / "tiles", settings)
    embed(str(root / "rsscn7"), str(root / "model"), root / "table")
    (root / "study.yaml").write_text(json.dumps(_study()))
    names = tiles_of(root)
    rows = [f"{name},{'field' if n % 2 else 'water'}" for n, name in enumerate(names[:8])]
    (root / "labels.csv").write_text("\n".join(["tile,label", *rows]) + "\n")
    return root


def tiles_of(root: Path) -> list[str]:
    """Names of the table's tiles, in order."""
    return sorted(set(Index.open(root / "table").names))


def _study() -> dict[str, object]:
    """A study of two cells and one seed."""
    run = {"backbone": "resnet_nano", "image_size": 32, "data": {"name": "$few"}, "batch_size": 8}
    run |= {"max_steps": 2, "epochs": 0, "log_every": 1, "stop_on_collapse": False}
    probe = {"data": {"name": "$d"}, "protocols": ["knn5"]}
    measured = {"evaluate": ["near", "shape"]}
    return {
        "name": "tiny",
        "seeds": [0],
        "data": {"d": "synthetic:num=48,size=32", "few": {"from": "$d", "imbalance": 4}},
        "base": run,
        "evaluations": {"near": {"probe": probe}, "shape": {"geometry": {"data": "$d"}}},
        "cells": {
            "random": {"model": "baseline:random-resnet_nano", **measured},
            "one": {"set": {"method": {"name": "rsisc"}}, **measured},
        },
        "claims": [
            {
                "paper": "rsisc",
                "says": "Learning beats chance.",
                "better": "one",
                "worse": "random",
                "measures": ["synthetic:num=48,size=32/knn5"],
            }
        ],
    }


def study_in_this_process() -> None:
    """Lets a study's jobs run one after another where they are watched, and not in workers."""
    from rs_models.study import runner
    from rs_models.study.measure import run_job

    def run_all(jobs, places, report):
        for job in jobs:
            report(job, run_job(job), 0.0)
        return True

    runner.run_all = run_all


def _land(boxes: list[tuple[int, int, int, int]]) -> dict[str, object]:
    features = []
    for number, (west, south, east, north) in enumerate(boxes):
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        shape = {"type": "Polygon", "coordinates": [ring]}
        kind = {"kind": ("field", "water")[number % 2]}
        features.append({"type": "Feature", "properties": kind, "geometry": shape})
    crs = {"type": "name", "properties": {"name": helpers.UTM}}
    return {"type": "FeatureCollection", "crs": crs, "features": features}
