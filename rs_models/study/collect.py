"""From the runs' own results to one result a cell and measure, one value a pretraining seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation import results as files
from ..evaluation.results import Result
from ..files import complete, write_json
from .claims import FINISHED, SEEDS, Claim, t_interval
from .config import Job, StudyConfig, cells_of, floors_of
from .measure import is_trained, seconds_of
from .published import RECORD, Published
from .verdicts import compare

_PAIRS = 10  # of which a share is told


def write(
    config: StudyConfig,
    jobs: list[Job],
    claims: list[Claim],
    failed: dict[str, str],
    command: str,
) -> None:
    """Collects, compares, draws and writes the report.

    Args:
        config: The study.
        jobs: All of them.
        claims: All of them.
        failed: `<cell>/<seed>` -> why.
        command: Command that does the study again.
    """
    from .report import write_report

    target = Path(config.results_dir)
    published = Published(config)
    paths = complete(target / "results", "*.json")
    there = {old.key: (old, path) for path in paths for old in [files.read(path)]}
    kept = set()
    for result in collect(jobs, command, published):
        old, path = there.get(result.key, (None, None))
        # What says the same but for its date and versions stays as it is.
        if old and path and _undated(old) == _undated(result):
            kept.add(path)
        else:
            kept.add(files.write(result, target / "results"))
    ours = {*cells_of(config), *(published.about.get("cells") or ())}
    for result, path in there.values():
        if path not in kept and result.model in ours:  # of what the study measures no more
            path.unlink()
    by_key = {result.key: result for result in files.read_all(target / "results")} if kept else {}
    compared = compare(claims, by_key, floors_of(config), config.level)
    cells = cells_of(config)
    here = {job.folder: job for job in jobs if not published.trained(job)}  # twins share one
    minutes = sum(seconds_of(Path(folder)) for folder in here) / 60
    # Curves and doses of cells whose runs are not all here are as they were published.
    gone = {job.cell for job in jobs if published.trained(job) and not is_trained(Path(job.folder))}
    about = {
        "name": config.name,
        "command": command,
        "title": config.title,
        "note": config.note,
        "seeds": config.seeds,
        "level": config.level,
        "cells": {name: cell.what for name, cell in cells.items()},
        "families": {name: cell.family for name, cell in cells.items() if cell.family},
        "floors": floors_of(config),
        "budgets": _budgets(config),
        "trained": [name for name, cell in cells.items() if cell.model is None],
        "curves": config.curves,
        "amounts": config.amounts,
        "base": config.base,
        "minutes": round(published.minutes + minutes, 1),
        "failed": failed,
        "epochs": _with(published.about.get("epochs", {}), gone, _curves(jobs)),
        "doses": _with(published.about.get("doses", {}), gone, _doses(jobs)),
        "runs": published.records(jobs),
    }
    write_json(target / "claims.json", compared)
    write_json(target / RECORD, about)
    if config.report is not None:
        write_report(target, config.report)


def _budgets(config: StudyConfig) -> dict[str, list[str]]:
    """Cell -> how its pretraining differs from the base in backbone or epochs, in words."""
    found = {}
    for name, cell in cells_of(config).items():
        words = []
        if (backbone := cell.set.get("backbone")) not in (None, config.base.get("backbone")):
            words.append(str(backbone))
        if "stages" not in cell.set:
            if (epochs := cell.set.get("epochs")) not in (None, config.base.get("epochs")):
                words.append(f"{epochs:g} epochs")
        if words and cell.model is None:
            found[name] = words
    return found


def _with(before: dict[str, Any], cells: set[str], now: dict[str, Any]) -> dict[str, Any]:
    """What was measured now, but for some cells what was known before."""
    return {**now, **{cell: value for cell, value in before.items() if cell in cells}}


def collect(jobs: list[Job], command: str, published: Published) -> list[Result]:
    """One result a (cell, data, protocol); `values` are the seeds' means.

    What a run's own folder does not hold is taken from what is published.
    """
    parts: dict[tuple[str, str, str], dict[int, Result]] = {}
    taken: dict[tuple[str, str, str], list[int]] = {}  # seeds of published results
    for job in jobs:
        if job.shared not in (None, job.seed):
            continue  # a finished model's one run
        for name in job.evaluations:
            for path in complete(Path(job.folder) / "results" / name, "*.json"):
                result = files.read(path)
                parts.setdefault((job.cell, result.data, result.protocol), {})[job.seed] = result
        for key, result in published.of(job).items():
            by_seed = parts.setdefault((job.cell, *key), {})
            if job.seed not in by_seed:
                by_seed[job.seed] = result
                taken.setdefault((job.cell, *key), []).append(job.seed)
    collected = []
    finished = {job.cell for job in jobs if job.shared is not None}
    for (cell, data, protocol), by_seed in sorted(parts.items()):
        seeds = sorted(by_seed)
        whole = published.results.get((cell, data, protocol))
        if whole and sorted(taken.get(whole.key, ())) == sorted(whole.settings[SEEDS]) == seeds:
            collected.append(whole)
            continue
        first = by_seed[seeds[0]]
        values = [by_seed[seed].mean for seed in seeds]
        (low, high), interval = t_interval(values), "Student's 95%, over pretraining seeds"
        if not np.isfinite(low):
            (low, high), interval = first.interval, "that of the one run"
        weights = " ".join(by_seed[seed].model_revision for seed in seeds)
        collected.append(
            Result.now(
                model=cell,
                model_revision=f"sha256:{hashlib.sha256(weights.encode()).hexdigest()[:16]}",
                data=data,
                data_revision=first.data_revision,
                protocol=protocol,
                metric=first.metric,
                settings={
                    "pretrained_on": first.settings.get("pretrained_on"),
                    SEEDS: seeds,
                    "interval": interval,
                    "measured": _plain(first.settings),
                    **({FINISHED: True} if cell in finished else {}),
                },
                values=values,
                interval=[round(low, 4), round(high, 4)],
                scores=_scores([by_seed[seed] for seed in seeds]),
                command=command,
            )
        )
    return collected


def _scores(results: list[Result]) -> dict[str, list[Any]]:
    """Scores that are one number a run, such as kappa: the mean of each pretraining seed."""
    plain = {}
    for name in results[0].scores:
        runs = [result.scores.get(name, []) for result in results]
        if all(run and all(isinstance(value, int | float) for value in run) for run in runs):
            plain[name] = [round(float(np.mean(run)), 4) for run in runs]
    return plain


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without what differs from draw to draw, and without where a run lay."""
    dropped = ("draws", "pretrained_on", "model", "output_dir", "results_dir", "labels_used")
    return {
        key: value
        for key, value in settings.items()
        if key not in dropped and not (isinstance(value, str) and "/" in value)
    }


def _undated(result: Result) -> dict[str, Any]:
    return {**dataclasses.asdict(result), "date": None, "versions": None}


def _doses(jobs: list[Job]) -> dict[str, dict[str, float]]:
    """Of cells that recalibrate pairs (FALSE): how many a step, and the share that is truly false.

    Means over the steps that were logged and over seeds. The share needs labels, and pairs enough
    to be one.
    """
    by_cell: dict[str, list[tuple[float, float | None]]] = {}
    for job in jobs:
        path = Path(job.folder) / "metrics.jsonl"
        if not is_trained(Path(job.folder)) or not path.is_file():
            continue
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if "recalibrated" in line:
                steps = by_cell.setdefault(job.cell, [])
                steps.append((line["recalibrated"], line.get("truly_false_negatives")))
    doses = {}
    for cell, steps in by_cell.items():
        pairs = sum(number for number, _ in steps)
        doses[cell] = {"pairs": round(pairs / len(steps), 3)}
        rightly = [right for _, right in steps if right is not None]
        if pairs >= _PAIRS and len(rightly) == len(steps):
            doses[cell]["true"] = round(sum(rightly) / pairs, 4)
    return doses


def _curves(jobs: list[Job]) -> dict[str, list[list[float]]]:
    """Cell -> [[epoch, k-NN accuracy on validation, averaged over the seeds], ...]."""
    found: dict[str, dict[float, list[float]]] = {}
    for job in jobs:
        path = Path(job.folder) / "knn.jsonl"
        if not is_trained(Path(job.folder)) or not path.is_file():
            continue
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        log = (Path(job.folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        last = json.loads(log[-1])
        for line in lines:
            epoch = round(last["epoch"] * line["step"] / last["step"], 2)
            found.setdefault(job.cell, {}).setdefault(epoch, []).append(line["knn20"])
    return {
        cell: [[epoch, round(float(np.mean(values)), 3)] for epoch, values in sorted(by.items())]
        for cell, by in found.items()
    }
