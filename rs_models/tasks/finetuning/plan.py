"""What is fine-tuned on what: the model looked up, the data opened and checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ...bands import resolve_bands
from ...data.names import MissingSplitError, data_name
from ...errors import UserError
from ..table import task as task_of
from ..task import Task
from .config import AUTO, FinetuneConfig, check
from .data import Split, check_labels, class_count, open_split
from .draws import Draw, draw, hold_out
from .start import Start, find_start
from .trainer import check_trackers


@dataclass(frozen=True)
class Plan:
    """What the seeds of a run have in common.

    Attributes:
        config: Settings.
        task: Task of these settings.
        start: What the weights start from.
        bands: Canonical names, of the images.
        train: Split that labels are drawn from.
        validation: Split for early stopping; None holds out a part of the draw.
        test: Split that is counted.
        size: Side of training images in pixels.
        classes: Names.
    """

    config: FinetuneConfig
    task: Task
    start: Start
    bands: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    size: int
    classes: list[str]

    @classmethod
    def of(cls, config: FinetuneConfig) -> Plan:
        """Looks up the model, opens the data, and refuses what cannot be right.

        Raises:
            UserError: Settings, model or data that do not fit each other.
        """
        check(config)
        check_trackers(config.report_to)
        task, data, start = task_of(config.task), config.data, find_start(config)
        trained = start.preprocessing
        bands = resolve_bands(data.bands or (trained.bands if trained else "rgb"))
        train = open_split(data, data.train_split, task, bands)
        test = train
        if data.place is None:
            test = open_split(data, data.test_split, task, bands)
        elif len(set(train.places if train.places is not None else ())) < 2:
            raise UserError(f"{train.name} is of one place: there is none to leave out.")
        validation = _validation(config, task, bands)
        for split in (train, validation, test):
            if split is not None and len(split) == 0:
                raise UserError(f"{split.name} holds no image: choose another split.")
            if split is not None and split.classes != train.classes:
                raise UserError(
                    f"{split.name} has the classes {split.classes}, {train.name} {train.classes}: "
                    "they must be the same, in the same order."
                )
        rows = [draw(train, config.labels, seed) for seed in config.seeds]
        labelled = np.unique(np.concatenate(rows))
        count = class_count(train, labelled, test)
        if count < task.least_classes:
            raise UserError(f"{train.name} has one class: there is nothing to tell apart.")
        check_labels(train, labelled, count)
        for split in (validation, test):
            if split is not None:
                check_labels(split, range(len(split)), count)
        size = config.image_size
        if size is None and task.whole_image and trained is not None:
            size = trained.train_size
        if size is None:
            size = min(train.image(int(labelled[0])).shape[:2])
        classes = train.classes or [f"class {number}" for number in range(count)]
        return cls(config, task, start, bands, train, validation, test, size, classes)

    @property
    def data(self) -> str:
        """Name of the data set in results."""
        return self.config.data.label or data_name(self.config.data.name)

    @property
    def validation_name(self) -> str | None:
        """Name of the validation split; None where labels are held out."""
        if self.validation is None:
            return None
        name = self.config.data.validation_split
        return "validation" if name == AUTO else name

    def draw(self, seed: int) -> Draw:
        """The labelled images of a seed, and which of them are held out."""
        labelled = draw(self.train, self.config.labels, seed)
        if self.validation is not None:
            held = np.arange(len(self.validation))
            return Draw(labelled, labelled, self.validation, held)
        learned, held = hold_out(self.train, labelled, self.config.holdout, seed)
        return Draw(labelled, learned, self.train, held)

    def said(self, drawn: Draw) -> str | None:
        """The line about labels that are held out; None where the data has a split for it."""
        if self.validation is not None:
            return None
        what = f"{len(drawn.held)} of {len(drawn.labelled)} labelled images"
        if not len(drawn.held):
            return (
                f"{self.data}: no labels are held out for validation ({what}), so each seed trains "
                "to its end."
            )
        return (
            f"{self.data}: {what} are held out for validation, drawn by the seed (share "
            f"{self.config.holdout:g})."
        )

    def folds(self) -> list[tuple[int, Plan, str]]:
        """Seed, plan and folder's name of each training: one a seed, or a place left out."""
        places = self.train.places
        if places is None:
            return [(seed, self, f"seed-{seed}") for seed in self.config.seeds]
        folds = []
        for number, place in enumerate(sorted(set(places.tolist()))):
            here, others = np.flatnonzero(places == place), np.flatnonzero(places != place)
            part = dataclasses.replace(
                self,
                train=self.train.select(others, f"{self.data} (all but {place})"),
                test=self.train.select(here, f"{self.data} ({place})"),
            )
            folds.append((self.config.seeds[0], part, f"place-{number}"))
        return folds


def _validation(config: FinetuneConfig, task: Task, bands: tuple[str, ...]) -> Split | None:
    name = config.data.validation_split
    if name is None:
        return None
    try:
        return open_split(config.data, "validation" if name == AUTO else name, task, bands)
    except MissingSplitError:
        if name != AUTO:
            raise
        return None
