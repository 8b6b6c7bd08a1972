"""Settings of a study, and what they expand to: one job a cell and seed."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..errors import UserError
from ..files import check_writable
from ..settings import Chance, Count, Length, Seed, build, check_ranges, merge

BASELINE = "baseline:"  # its random weights take the seed
_KINDS = ("probe", "finetune", "geometry")


@dataclass
class Evaluation:
    """One way to measure what a run made; exactly one of the three is set.

    Attributes:
        probe: Settings of `training/probe.py` (data, protocols, source, class_map, ...).
        finetune: Settings of `training/finetune.py`.
        geometry: `{data: ..., images: 1000}`: alignment, uniformity and effective rank of the
            features of test images.
        decoder: Whether a fine-tuning for masks starts from the run's own decoder, where its method
            has one, and not from the backbone alone.
    """

    probe: dict[str, Any] | None = None
    finetune: dict[str, Any] | None = None
    geometry: dict[str, Any] | None = None
    decoder: bool = False

    @property
    def fingerprint(self) -> str:
        """Hash of the settings; equal ones measure the same."""
        settings = [
            self.probe,
            self.finetune,
            self.geometry,
            *(["decoder"] if self.decoder else []),
        ]
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Cell:
    """One point of the grid.

    Attributes:
        what: It is, in a few words, for the report.
        like: Another cell whose settings it starts from.
        set: Settings of `training/pretrain.py` over the study's base.
        model: Measure this model instead of pretraining one: `baseline:...`, a folder or Hub id.
            A baseline's random weights take the seed; a finished model is measured once, and stands
            beside every seed, but where something is tuned.
        evaluate: Names of evaluations.
        family: Kind of learning, e.g. "contrastive": the report sets cells that have one side by
            side, kind by kind.
        random: Cell of random weights of the same backbone, which a claim's sides must pass; null
            finds the baseline of the backbone that the cell pretrains.
    """

    what: str = ""
    like: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    evaluate: list[str] = field(default_factory=list)
    family: str = ""
    random: str | None = None


@dataclass
class _Geometry:
    """Settings of an evaluation by geometry.

    Attributes:
        data: Data set whose images are looked at.
        split: Split of it.
        images: Images at most.
    """

    data: str = ""
    split: str = "test"
    images: Count = 1000


@dataclass
class StudyConfig:
    """A study.

    Attributes:
        name: Name of the study.
        output_dir: Folder of the runs; what is there is not done again.
        results_dir: Folder that gets `results/`, `claims.json` and `study.json`.
        report: Markdown file to write; its pictures go to `figures/` beside it. Null writes none.
        title: Heading of the report.
        note: What a reader should know of the whole, for the report.
        seeds: Pretraining seeds; each cell runs once with each.
        level: Chance that any claim with nothing behind it counts as decided, over all claims.
            Halve it where seeds were added after a look at results, for that is asking twice, and
            all claims are judged anew.
        data: Name -> folder, Hub id or `synthetic:...`; or `{from: NAME, imbalance: 20, seed: 0}`,
            a long-tailed subset of a training split. `$NAME` stands for it below.
        base: Settings of every pretraining run.
        evaluations: Name -> how to measure.
        cells: Name -> cell. One called `random` is what the report compares all others with.
        claims: What is asked.
        curves: Cells that the few-label picture shows; empty shows those that have few-label rows.
        amounts: Cells of the picture of accuracy against pretraining images, name -> images.
        workers: Cells at a time; null is one a GPU, or one where there is none.
        only: Cells to run now; empty means all.
        collect_only: Run nothing; collect, draw and write what is there.
    """

    name: str = "study"
    output_dir: str = "outputs/study"
    results_dir: str = "outputs/study/collected"
    report: str | None = None
    title: str = "Does each paper's idea help?"
    note: str = ""
    seeds: Annotated[list[Seed], Length(different=True)] = field(default_factory=lambda: [0, 1, 2])
    level: Chance = 0.05
    data: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, Any] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)
    amounts: dict[str, Any] = field(default_factory=dict)
    workers: Count | None = None
    only: list[str] = field(default_factory=list)
    collect_only: bool = False


@dataclass(frozen=True)
class Job:
    """One cell with one seed.

    Attributes:
        cell: Its name.
        seed: Seed of pretraining.
        folder: Folder of the run.
        settings: Settings of `training/pretrain.py`, without `output_dir`; None where nothing is
            trained.
        model: What is measured instead.
        evaluations: Name -> settings with every `$NAME` replaced.
        shared: Seed whose run stands for this one too: a finished model of which nothing is tuned
            is the same with every seed.
    """

    cell: str
    seed: int
    folder: str
    settings: dict[str, Any] | None
    model: str | None
    evaluations: dict[str, Evaluation]
    shared: int | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of what is trained; equal ones are the same run."""
        seed = self.seed if self.shared is None else self.shared
        text = json.dumps([self.settings, self.model, seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cells_of(config: StudyConfig) -> dict[str, Cell]:
    """The cells with `like` followed.

    Raises:
        UserError: A cell, evaluation or setting that is unknown, by name.
    """
    known = {}
    for key, value in config.cells.items():
        if not isinstance(key, str):
            raise UserError(
                f"The setting cells.{key}: write the name in quotes, '{key}', for it is no text."
            )
        if not isinstance(value, dict | type(None)):
            raise UserError(
                f"The setting cells.{key} should be a group of settings, not {value!r}."
            )
        known[key] = build(Cell, value or {}, f"cells.{key}.")
    whole: dict[str, Cell] = {}

    def resolved(name: str, seen: tuple[str, ...] = ()) -> Cell:
        if name not in known:
            raise UserError(
                f"The setting cells.{seen[-1]}.like={name} is no cell: {', '.join(known)}"
            )
        if name in seen:
            raise UserError(
                f"The setting cells {' -> '.join((*seen, name))} are like each other in a circle."
            )
        if name not in whole:
            cell = known[name]
            settings: dict[str, Any] = {}
            if cell.like is not None:
                settings = copy.deepcopy(resolved(cell.like, (*seen, name)).set)
            merge(settings, copy.deepcopy(cell.set))
            whole[name] = dataclasses.replace(cell, like=None, set=settings)
        return whole[name]

    for name in known:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            raise UserError(
                f"The setting cells.{name}: a name has small letters, digits, - _ and . only."
            )
        cell = resolved(name)
        if cell.model is not None and (cell.set or known[name].like):
            raise UserError(
                f"The setting cells.{name}: give a model to measure, or settings to train one."
            )
        for evaluation in cell.evaluate:
            if evaluation not in config.evaluations:
                raise UserError(
                    f"The setting cells.{name}.evaluate names {evaluation!r}; there are: "
                    f"{', '.join(config.evaluations)}"
                )
    return whole


def floors_of(config: StudyConfig) -> dict[str, str]:
    """Cell -> the cell with random weights of its backbone, where there is one."""
    cells = cells_of(config)
    baselines = {cell.model: name for name, cell in cells.items() if cell.model}
    floors = {}
    for name, cell in cells.items():
        backbone = cell.set.get("backbone", config.base.get("backbone"))
        floor = cell.random or baselines.get(f"baseline:random-{backbone}")
        if cell.random is not None and cell.random not in cells:
            raise UserError(
                f"The setting cells.{name}.random={cell.random} is no cell: {', '.join(cells)}."
            )
        if cell.random is not None and cells[cell.random].model is None:
            raise UserError(
                f"The setting cells.{name}.random={cell.random} is a cell that is trained: name "
                "one that measures random weights."
            )
        if floor is not None and (cell.model is None or cell.random is not None):
            floors[name] = floor
    return floors


def jobs_of(config: StudyConfig, data: dict[str, str]) -> list[Job]:
    """All jobs, seed by seed, so that an early stop leaves whole rounds.

    Cells with equal settings are one run: the later ones get the first one's folder.

    Args:
        config: The study.
        data: Name -> folder or id, see `data.prepare`.

    Raises:
        UserError: Settings that pretraining, probing or fine-tuning would refuse.
    """
    from ..trainer.config import RunConfig

    check_ranges(config)
    cells = cells_of(config)
    evaluations = {
        name: _evaluation(name, filled(value, data)) for name, value in config.evaluations.items()
    }
    for key in ("only", "curves", "amounts"):
        for name in getattr(config, key):
            if name not in cells:
                raise UserError(f"{key} names {name!r}, which is no cell: {', '.join(cells)}.")
    check_report(config.report)
    jobs: list[Job] = []
    folders: dict[str, str] = {}
    for seed in config.seeds:
        for name, cell in cells.items():
            settings = None
            if cell.model is None:
                settings = filled(copy.deepcopy(config.base), data)
                merge(settings, filled(copy.deepcopy(cell.set), data))
                settings["seed"] = seed
                build(RunConfig, copy.deepcopy(settings), f"cells.{name}.set.").check()
            used = {key: evaluations[key] for key in cell.evaluate}
            finished = is_finished(cell.model)
            tuned = any(evaluation.finetune is not None for evaluation in used.values())
            job = Job(
                cell=name,
                seed=seed,
                folder=str(Path(config.output_dir) / "runs" / name / f"seed-{seed}"),
                settings=settings,
                model=filled(cell.model, data),
                evaluations=used,
                shared=config.seeds[0] if finished and not tuned else None,
            )
            folder = folders.setdefault(job.fingerprint, job.folder)
            jobs.append(Job(**{**vars(job), "folder": folder}))
    return jobs


def is_finished(model: str | None) -> bool:
    """Whether a cell measures weights that somebody trained, the same with every seed."""
    return model is not None and not model.startswith(BASELINE)


def check_report(report: str | None) -> None:
    """Refuses a report that could not be written at the end.

    Raises:
        UserError: A folder, or a place where nothing may be written.
    """
    if report is None:
        return
    path = Path(report)
    if path.is_dir():
        raise UserError(f"The setting report={report} is a folder: name a Markdown file in it.")
    check_writable(path)


def filled(value: Any, data: dict[str, str]) -> Any:
    """A value with each `$NAME` replaced by the data set it stands for.

    Raises:
        UserError: A name that `data` does not have.
    """
    if isinstance(value, dict):
        return {key: filled(inner, data) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, data) for inner in value]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in data:
            raise UserError(f"{value} is none of the study's data: {', '.join(data)}")
        return data[value[1:]]
    return value


def _evaluation(name: str, value: Any) -> Evaluation:
    from ..evaluation.kinds import check_protocols
    from ..evaluation.probe import ProbeConfig
    from ..tasks.finetuning.config import FinetuneConfig
    from ..tasks.finetuning.config import check as check_finetuning

    if not isinstance(value, dict):
        raise UserError(
            f"The setting evaluations.{name} should be a group of settings, not {value!r}"
        )
    evaluation = build(Evaluation, value, f"evaluations.{name}.")
    kinds = [key for key in _KINDS if getattr(evaluation, key) is not None]
    if len(kinds) != 1:
        raise UserError(
            f"The setting evaluations.{name}: give one of probe, finetune and geometry."
        )
    if evaluation.decoder and evaluation.finetune is None:
        raise UserError(f"The setting evaluations.{name}.decoder is for finetune: leave it out.")
    if evaluation.probe is not None:
        probe = build(ProbeConfig, copy.deepcopy(evaluation.probe), f"evaluations.{name}.probe.")
        where = ("places",) if probe.data.place else ()
        check_protocols(probe.protocols, source=probe.source is not None, known=(*where, "files"))
    if evaluation.finetune is not None:
        prefix = f"evaluations.{name}.finetune."
        check_finetuning(build(FinetuneConfig, copy.deepcopy(evaluation.finetune), prefix))
    if evaluation.geometry is not None and set(evaluation.geometry) - {"data", "images", "split"}:
        raise UserError(f"The setting evaluations.{name}.geometry knows data, split and images.")
    if evaluation.geometry is not None:
        prefix = f"evaluations.{name}.geometry."
        geometry = build(_Geometry, copy.deepcopy(evaluation.geometry), prefix)
        check_ranges(geometry)
        if not geometry.data:
            raise UserError(f"The setting {prefix}data names no data set: write data: $NAME.")
        evaluation.geometry["data"] = geometry.data  # a number stands for its digits
    return evaluation
