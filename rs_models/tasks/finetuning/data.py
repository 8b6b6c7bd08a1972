"""Labelled images: opened, read and checked for a task."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Image

from ...bands import band_statistics, default_value_range
from ...data import load
from ...data.columns import BandArray, CorruptImageError, RowReader, open_image, orientation
from ...data.labels import tell_unused
from ...data.sources import readable_rows
from ...data.synthetic import LAND_COVER
from ...errors import UserError
from ..table import task as task_of
from ..task import Column, Task, out_of_range
from .config import FinetuneData

_HASHED = 256  # images that tell one data set from another
_COUNTED = 500  # test images whose masks tell how many classes there are, where nothing else does


@dataclass
class Split:
    """One split of a data set, opened for a task.

    Attributes:
        rows: Undecoded rows.
        name: Name of the split, for messages.
        task: Task that its labels are read for.
        reader: Reader of the images.
        column: Column of the labels.
        labels: (N,) class of each image, where the task has exactly one an image.
        places: (N,) where each image is, if asked for.
    """

    rows: Any
    name: str
    task: Task
    reader: RowReader
    column: Column
    labels: np.ndarray | None
    places: np.ndarray | None = None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes; None where masks carry none."""
        return self.column.classes

    def select(self, rows: np.ndarray, name: str) -> Split:
        """The same of some rows."""
        return dataclasses.replace(
            self,
            rows=self.rows.select(rows),
            name=name,
            labels=None if self.labels is None else self.labels[rows],
            places=None if self.places is None else self.places[rows],
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def place(self, row: int) -> str:
        """A row in words."""
        return f"row {row} of {self.name}"

    def image(self, row: int) -> np.ndarray:
        """Stored pixels, (H, W, C).

        Raises:
            UserError: An image that cannot be read.
        """
        return self._decode(self.rows[row], row)

    @cached_property
    def _labels(self) -> Any:
        return self.rows.select_columns([self.column.name])

    def label(self, row: int) -> Any:
        """What is known of an image, as the task reads it, without the image.

        Raises:
            UserError: A label that cannot be right.
        """
        if self.labels is not None:
            return int(self.labels[row])
        return self.task.read(self._labels[row], self.column, self.place(row))

    def example(self, row: int) -> tuple[np.ndarray, Any]:
        """Stored pixels (H, W, C) and the label.

        Raises:
            UserError: An image or label that cannot be read, or that do not fit each other.
        """
        stored = self.rows[row]
        image = self._decode(stored, row)
        label = self.task.read(stored, self.column, self.place(row))
        self.task.fit(label, (image.shape[0], image.shape[1]), self.place(row))
        return image, label

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of an image, from its header where it is a file."""
        stored = self.rows[row]
        if isinstance(self.reader.feature, Image):
            try:
                image = open_image(stored["image"])
                sides = image.size[::-1] if orientation(image) < 5 else image.size
                return sides[0], sides[1]
            except (OSError, SyntaxError, ValueError, TypeError, CorruptImageError):
                pass  # the reader tells
        height, width = self._decode(stored, row).shape[:2]
        return height, width

    def _decode(self, stored: dict, row: int) -> np.ndarray:
        try:
            return self.reader(stored)
        except CorruptImageError as error:
            raise UserError(
                f"The image in {self.place(row)} cannot be read ({error}): repair or remove it."
            ) from error


def open_split(data: FinetuneData, split: str, task: Task | str, bands: Sequence[str]) -> Split:
    """One split, with the columns that a task needs.

    Args:
        data: Settings of the data.
        split: Name of the split.
        task: The task or its name.
        bands: Canonical names of the bands to read.

    Raises:
        UserError: What `data.load` says, a missing column, or classes that are none.
    """
    task = task_of(task) if isinstance(task, str) else task
    rows = load(
        data.name,
        split,
        bands=bands,
        revision=data.revision,
        columns=data.columns,
        mask_values=data.mask_values,
        box_format=data.box_format,
    )
    if not data.strict:
        rows = readable_rows(rows, f"{data.name} ({split})")
    features = rows.features
    wanted = task.column(features, data.name)
    reader = RowReader(features, bands)
    places = None
    if data.place is not None:
        if data.place not in features:
            raise UserError(
                f"{data.name} has no column {data.place!r} for data.place: it has "
                f"{', '.join(features)}."
            )
        places = np.asarray([str(place) for place in rows[data.place]])
    rows = reader.undecoded(rows.select_columns([*reader.columns, wanted]))
    if isinstance(reader.feature, BandArray):
        rows = rows.with_format("numpy")  # else pixels come as lists, far slower
    name = f"{data.name} ({split})"
    classes = _class_names(task.class_feature(features[wanted]), data.classes, name)
    if classes is None and wanted == "mask" and data.name.split(":")[0] == "synthetic":
        classes = list(LAND_COVER)
    return Split(
        rows=rows,
        name=name,
        task=task,
        reader=reader,
        column=Column(wanted, classes, tuple(data.ignored_classes) if wanted == "mask" else ()),
        labels=_labels(rows, wanted, classes, name) if task.one_class else None,
        places=places,
    )


def _labels(rows: Any, column: str, classes: list[str] | None, name: str) -> np.ndarray:
    """The class of each image, (N,)."""
    labels = np.asarray(rows.with_format("numpy")[column][:])
    if labels.dtype == object or np.issubdtype(labels.dtype, np.floating):
        empty = [i for i, value in enumerate(labels.tolist()) if value is None or value != value]
        if empty:
            raise UserError(
                f"Image {empty[0]} of {name} has no class (null), like {len(empty)} of "
                f"{len(labels)}: remove such rows."
            )
        labels = labels.astype(np.int64)
    if len(labels) and labels.min() < 0:
        raise UserError(
            f"Image {int(np.argmin(labels))} of {name} has class {labels.min()}, which means none: "
            "remove such rows."
        )
    if len(labels) and classes is not None and labels.max() >= len(classes):
        raise UserError(
            f"Image {int(np.argmax(labels))} of {name} has class {labels.max()}, but there are "
            f"{len(classes)} classes: name them all in data.classes, or correct the row."
        )
    return labels


def check_labels(split: Split, rows: Iterable[int], num_classes: int) -> None:
    """Reads the labels of some images and refuses what cannot be right, before any training.

    Named classes that never occur among them are told.

    Args:
        split: Split of the images.
        rows: Rows of the images.
        num_classes: Number of classes K.

    Raises:
        UserError: Naming the row.
    """
    chosen = [int(row) for row in rows]
    where = f"the {len(chosen)} images of {split.name}"
    if split.labels is not None:  # all of them were read when the split was opened
        tell_unused(np.unique(split.labels[chosen]).tolist(), split.classes, where)
        return
    held = set[int]()
    sized = type(split.task).fit is not Task.fit
    for row in chosen:
        label = split.label(row)
        if sized:
            split.task.fit(label, split.size(row), split.place(row))
        present = np.unique(split.task.present(label))
        check_classes(present, num_classes, split.place(row))
        held.update(present.tolist())
    if not held:
        raise UserError(split.task.nothing(split.name))
    tell_unused(held, split.classes, where)


def check_classes(classes: Any, num_classes: int, where: str) -> None:
    """Refuses class numbers that there are no classes for.

    Raises:
        UserError: Naming the row.
    """
    if (wrong := out_of_range(classes, num_classes)) is not None:
        place = where[0].upper() + where[1:]
        raise UserError(
            f"{place} has class {wrong}, but there are {num_classes} classes: name them all in "
            "data.classes, or ignore it with data.ignored_classes."
        )


def statistics(
    split: Split, rows: np.ndarray, bands: Sequence[str]
) -> tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]]:
    """Value range, mean and deviation of the labelled images, for weights that have none."""
    pixels = [split.image(int(row)).reshape(-1, len(bands))[::4] for row in rows[:256]]
    stacked = np.concatenate(pixels).T[None, :, :, None]  # (1, C, pixels, 1)
    value_range = default_value_range(stacked.dtype, bands)
    return value_range, *band_statistics(stacked, value_range)


def class_count(split: Split, rows: np.ndarray, test: Split) -> int:
    """Number of classes: that of the names, else one more than the highest mask value seen."""
    if split.classes is not None:
        return len(split.classes)
    highest = -1
    for part, numbers in ((split, rows), (test, range(min(len(test), _COUNTED)))):
        for row in numbers:
            present = part.task.present(part.label(int(row)))
            highest = max(highest, int(present.max()) if present.size else -1)
    return max(highest + 1, 2)


def content_hash(split: Split) -> str:
    """Hash of evenly spaced images and their labels, the same on every machine."""
    digest = hashlib.sha256(f"{len(split)} {split.reader.bands} {split.task.name}".encode())
    for row in np.unique(np.linspace(0, len(split) - 1, min(len(split), _HASHED)).astype(int)):
        image, label = split.example(int(row))
        for part in (image, *(label if isinstance(label, tuple) else (label,))):
            digest.update(np.ascontiguousarray(part).tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _class_names(feature: Any, given: list[str] | None, name: str) -> list[str] | None:
    """Names of the classes: those given, else those that the column carries."""
    while feature is not None and not hasattr(feature, "names"):
        feature = getattr(feature, "feature", None)
    names = list(feature.names) if feature is not None else None
    if given is not None and names is not None and len(given) < len(names):
        raise UserError(
            f"The setting data.classes names {len(given)} classes, but {name} has {len(names)} "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}): name them all, or leave "
            "it out."
        )
    return names if given is None else list(given)
