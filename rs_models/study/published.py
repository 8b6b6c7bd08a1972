"""What a study has published: it counts as done on any machine, also where its weights are gone.

Beside each value stands which settings gave it, so that a clone goes on where another one stopped,
and values of other settings are neither mixed in nor thrown away.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..evaluation import results as files
from ..evaluation.results import Result
from ..files import complete
from .claims import SEEDS, by_seed
from .config import BASELINE, Evaluation, Job, StudyConfig, is_finished
from .measure import is_measured, is_trained
from .measures import measures_of

RECORD = "study.json"
_NAMED = 5  # cells that a message names


class Published:
    """A study's folder of results as it is before anything runs.

    Attributes:
        about: `study.json`; empty where there is none, or one of another study.
        results: By (cell, data, protocol).
        minutes: Training time of the runs that `about` tells of.
    """

    def __init__(self, config: StudyConfig) -> None:
        """Reads `config.results_dir`."""
        folder = Path(config.results_dir)
        self._subsets = str(Path(config.output_dir) / "data")
        about: Any = {}
        with suppress(OSError, ValueError):  # none yet, or a damaged one
            about = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        mine = isinstance(about, dict) and about.get("name") == config.name
        self.about: dict[str, Any] = about if mine else {}
        # An earlier version did not tell of which runs they are.
        self._runs: dict[str, Any] = self.about.get("runs") or {}
        self.minutes = float(self.about.get("minutes", 0)) if self._runs else 0.0
        self._seeds = list(config.seeds)
        self._only = [] if config.collect_only else config.only or list(config.cells)
        paths = complete(folder / "results", "*.json") if mine else []
        self.results = {one.key: one for one in map(files.read, paths)}

    def holds(self, job: Job) -> bool:
        """Whether all of a job's evaluations are there, made with its settings."""
        there = self._measured(job)
        return bool(there) and there.keys() == job.evaluations.keys()

    def of(self, job: Job) -> dict[tuple[str, str], Result]:
        """What is there of a job: (data, protocol) -> the result with its seed's values alone."""
        found = {}
        for evaluation in self._measured(job).values():
            for data, protocol in _keys(evaluation):
                whole = self.results[job.cell, data, protocol]
                found[data, protocol] = _of_seed(whole, _seed(job))
        return found

    def trained(self, job: Job) -> bool:
        """Whether a job's pretraining is counted in the published minutes."""
        return self._record(job).get("run") == self._identity(job)

    def records(self, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
        """What `study.json` tells of runs: cell -> seed -> which settings gave what is there."""
        runs: dict[str, dict[str, Any]] = {}
        for job in jobs:
            done = {*self._measured(job), *_measured_here(job)}
            if done:
                runs.setdefault(job.cell, {})[str(job.seed)] = {
                    "run": self._identity(job),
                    "evaluations": {
                        name: self._hash(_content(job.evaluations[name])) for name in sorted(done)
                    },
                }
        return runs

    def check(self, jobs: Sequence[Job], folder: str) -> None:
        """Refuses to replace results by runs of other settings, or to drop those of some seeds.

        Args:
            jobs: All of a study.
            folder: Name of the folder of results, for the message.

        Raises:
            UserError: Naming the cells.
        """
        measured = {cell for cell, _, _ in self.results}
        others = [
            job.cell
            for job in jobs
            if job.cell in measured
            and self._record(job).get("run", self._identity(job)) != self._identity(job)
        ]
        if others:
            raise UserError(
                f"The setting results_dir={folder} holds results of other settings or data of "
                f"{_several(others)}: name another folder, or remove theirs from "
                f"its results/ ({others[0]}__*.json) to measure them anew."
            )
        changed = [
            f"{name} of {job.cell}"
            for job in jobs
            if job.cell in measured and not self._will_measure(job)
            for name in self._differing(job)
        ]
        if changed:
            raise UserError(
                f"The setting results_dir={folder} holds results of other settings of "
                f"{_several(changed)}, which this would drop without measuring anew: leave an "
                "evaluation as it was and give the new one a name of its own."
            )

        ours = {job.cell for job in jobs}
        left = sorted(
            {
                seed
                for (cell, _, _), result in self.results.items()
                if cell in ours and cell in self._runs
                for seed in result.settings.get(SEEDS, ())
                if seed not in self._seeds
            }
        )
        if left:
            raise UserError(
                f"The setting results_dir={folder} holds results of the seeds "
                f"{', '.join(map(str, left))}, which the setting seeds leaves out: name them too "
                "(what is there is not run again), or another folder."
            )

    def _differing(self, job: Job) -> list[str]:
        """Evaluations of a job whose published results were made with other settings."""
        record = self._record(job).get("evaluations", {})
        here = _measured_here(job)
        return [
            name
            for name, evaluation in job.evaluations.items()
            if record.get(name, self._hash(_content(evaluation)))
            != self._hash(_content(evaluation))
            and name not in here
        ]

    def _will_measure(self, job: Job) -> bool:
        """Whether a job is to be run now, from weights that are here."""
        if job.cell not in self._only:
            return False
        if job.settings is not None:
            return is_trained(Path(job.folder))
        model = job.model or ""
        is_path = model.count("/") != 1 and not model.startswith(BASELINE)
        return not is_path or Path(model).exists()

    def _record(self, job: Job) -> dict[str, Any]:
        return self._runs.get(job.cell, {}).get(str(job.seed), {})

    def _measured(self, job: Job) -> dict[str, Evaluation]:
        """The evaluations of a job that are there, by name."""
        record = self._record(job)
        if record.get("run") != self._identity(job):
            return {}
        return {
            name: evaluation
            for name, evaluation in job.evaluations.items()
            if record["evaluations"].get(name) == self._hash(_content(evaluation))
            and all(self._has(job, *key) for key in _keys(evaluation))
        }

    def _has(self, job: Job, data: str, protocol: str) -> bool:
        result = self.results.get((job.cell, data, protocol))
        return result is not None and _seed(job) in result.settings.get(SEEDS, ())

    def _identity(self, job: Job) -> str:
        # A finished model is the same with every seed, also where something is tuned over it.
        seed = self._seeds[0] if is_finished(job.model) else job.seed
        return self._hash([job.settings, job.model, seed])

    def _hash(self, value: Any) -> str:
        # A subset lies in the folder of runs, which another machine may call otherwise.
        text = json.dumps(value, sort_keys=True).replace(json.dumps(self._subsets)[1:-1], "data")
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _several(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return ", ".join(different[:_NAMED]) + more


def _measured_here(job: Job) -> list[str]:
    """Evaluations whose results the job's own folder holds."""
    folder = Path(job.folder)
    if job.settings is not None and not is_trained(folder):
        return []
    return [
        name
        for name, evaluation in job.evaluations.items()
        if is_measured(folder / "results" / name, evaluation)
    ]


def _seed(job: Job) -> int:
    return job.seed if job.shared is None else job.shared


def _content(evaluation: Evaluation) -> dict[str, Any]:
    return dataclasses.asdict(evaluation)


def _keys(evaluation: Evaluation) -> Iterable[tuple[str, str]]:
    for measure in measures_of(evaluation):
        data, _, protocol = measure.rpartition("/")
        yield data, protocol


def _of_seed(result: Result, seed: int) -> Result:
    """A collected result with one seed's values, in the form that a run's own result has."""
    values = by_seed(result, result.values)
    interval = result.interval if len(values) == 1 else [values[seed]] * 2
    return dataclasses.replace(
        result,
        values=[values[seed]],
        mean=values[seed],
        std=0.0,
        interval=list(interval),
        settings={
            **result.settings["measured"],
            "pretrained_on": result.settings.get("pretrained_on"),
        },
        scores={name: [by_seed(result, of)[seed]] for name, of in result.scores.items()},
    )
