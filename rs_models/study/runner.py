"""A study from settings to report: run what is missing, collect, compare, write."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..files import claim, write_json
from . import collect
from .claims import claims_of
from .config import Job, StudyConfig, jobs_of
from .data import prepare
from .measure import is_done
from .measures import check_measures
from .published import Published
from .workers import devices, run_all

FAILED = "failed.json"


def study(config: StudyConfig, *, command: str = "rs_models.study.study") -> int:
    """Runs every cell with every seed, as far as it is not done, and writes what came of it.

    Args:
        config: The study.
        command: Command that does it again, for the results and the report.

    Returns:
        How many jobs failed or are left; 0 when the study is whole.

    Raises:
        UserError: Settings that cannot be used, found before anything runs, or a folder that holds
            something else or that a running process works in.
    """
    output = Path(config.output_dir)
    claims = claims_of(config)
    with claim(output, {"command": "study", "name": config.name}, adopts=_earlier):
        jobs = jobs_of(config, prepare(config.data, output / "data"))
        check_measures(claims, jobs)
        published = Published(config)
        published.check(jobs, config.results_dir)

        def done(job: Job) -> bool:
            return published.holds(job) or is_done(job)

        if not config.collect_only:
            _remember(output, jobs, _run(config, jobs, done), done)
        failed = json.loads((output / FAILED).read_text()) if (output / FAILED).is_file() else {}
        collect.write(config, jobs, claims, failed, command)
        left = sum(not done(job) for job in jobs)
        print(f"{len(jobs) - left} of {len(jobs)} runs are there; results in {config.results_dir}")
        return left


def _earlier(folder: Path) -> bool:
    """Whether a folder without a record holds a study, begun by an earlier version."""
    return any((folder / name).exists() for name in ("runs", "data", FAILED))


def _run(config: StudyConfig, jobs: list[Job], done: Callable[[Job], bool]) -> dict[str, str]:
    """Does what is missing; `<cell>/<seed>` -> what went wrong."""
    merged: dict[str, Job] = {}
    for job in jobs:
        if done(job) or (config.only and job.cell not in config.only):
            continue
        # One run under two names is measured by the evaluations of both.
        same = merged.get(job.fingerprint)
        evaluations = {**(same.evaluations if same else {}), **job.evaluations}
        merged[job.fingerprint] = replace(same or job, evaluations=evaluations)
    missing = list(merged.values())
    failed: dict[str, str] = {}
    count, guard = 0, threading.Lock()

    def report(job: Job, outcome: str, seconds: float) -> None:
        nonlocal count
        with guard:
            count += 1
            if outcome != "done":
                failed[f"{job.cell}/{job.seed}"] = outcome
            shown = outcome if outcome in ("done", "stopped") else f"failed: {outcome}"
            print(
                f"[{count}/{len(missing)}] {job.cell}, seed {job.seed}: {shown}, {seconds:.0f} s",
                flush=True,
            )

    places = devices(config.workers)
    print(
        f"{sum(map(done, jobs))} of {len(jobs)} runs are there; {len(missing)} to go, "
        f"{len(places)} at a time",
        flush=True,
    )
    if missing and not run_all(missing, places, report):
        print("stopped; the same command goes on from here", flush=True)
    return failed


def _remember(
    output: Path, jobs: list[Job], failed: dict[str, str], done: Callable[[Job], bool]
) -> None:
    """Keeps why jobs failed, until they are done."""
    path = output / FAILED
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    there = {f"{job.cell}/{job.seed}" for job in jobs if done(job)}
    known = {key: why for key, why in {**known, **failed}.items() if key not in there}
    write_json(path, known)
