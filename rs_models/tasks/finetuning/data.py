"""Labelled images of the four tasks: drawn, held out, decoded, and brought into batches."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ...bands import band_statistics, default_value_range
from ...data import load
from ...data.columns import BandArray, CorruptImageError, RowReader
from ...data.synthetic import LAND_COVER
from ...errors import UserError
from ...preprocessing import Preprocessing
from .config import FinetuneData

IGNORED = 255
_KEPT_BYTES = 2 * 1024**3  # decoded images that a process keeps
_HASHED = 256  # images that tell one data set from another
_COLUMN = {"classification": "label", "segmentation": "mask", "detection": "objects"}


@dataclass
class Split:
    """One split of a data set, opened and checked for a task.

    Attributes:
        rows: Undecoded rows.
        name: Of the split, for messages.
        task: See `FinetuneConfig.task`.
        reader: Of the images.
        classes: Names of the classes; None where masks carry none.
        labels: (N,) class of each image, in classification.
        ignored: Mask values that become 255.
        places: (N,) where each image is, if asked for.
    """

    rows: Any
    name: str
    task: str
    reader: RowReader
    classes: list[str] | None
    labels: np.ndarray | None
    ignored: Sequence[int] = ()
    places: np.ndarray | None = None

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

    def image(self, row: int) -> np.ndarray:
        """Stored pixels, (H, W, C).

        Raises:
            UserError: An image that cannot be read.
        """
        return self._decode(self.rows[row], row)

    def example(self, row: int) -> tuple[np.ndarray, Any]:
        """Stored pixels (H, W, C) and what is known of them.

        The class, the (K,) classes of a multi-label image, a (H, W) uint8 mask, or boxes as
        ((N, 4) x0 y0 x1 y1 float32, (N,) classes).

        Raises:
            UserError: An image or mask that cannot be read, or a mask of another size.
        """
        found = self.rows[row]
        image = self._decode(found, row)
        if self.task == "classification":
            return image, int(found["label"])
        if self.task == "multilabel":
            return image, self._label_set(found)
        if self.task == "segmentation":
            mask = self._mask(found)
            if mask.shape != image.shape[:2]:
                raise UserError(
                    f"The mask in row {row} of {self.name} is {mask.shape[1]} x {mask.shape[0]} "
                    f"pixels, its image {image.shape[1]} x {image.shape[0]}."
                )
            return image, mask
        return image, _corners(found["objects"])

    def _decode(self, found: dict, row: int) -> np.ndarray:
        try:
            return self.reader(found)
        except CorruptImageError as error:
            raise UserError(
                f"The image in row {row} of {self.name} cannot be read ({error}): repair or remove "
                "it."
            ) from error

    def _mask(self, found: dict) -> np.ndarray:
        mask = np.array(found["mask"], np.uint8)
        if self.ignored:
            mask[np.isin(mask, list(self.ignored))] = IGNORED
        return mask

    def _label_set(self, found: dict) -> np.ndarray:
        if "labels" not in found:
            there = np.unique(self._mask(found))
            return there[there != IGNORED].astype(np.int64)
        values = np.asarray(found["labels"], np.int64).reshape(-1)
        multi_hot = self.classes is not None and len(values) == len(self.classes) > 1
        if multi_hot and set(values.tolist()) <= {0, 1}:
            return np.flatnonzero(values)
        return values


def open_split(data: FinetuneData, split: str, task: str, bands: Sequence[str]) -> Split:
    """One split, with the columns that a task needs.

    Raises:
        UserError: What `data.load` says, or a missing column.
    """
    rows = load(data.name, split, bands=bands, revision=data.revision, columns=data.columns)
    features = rows.features
    wanted = _COLUMN.get(task) or ("labels" if "labels" in features else "mask")
    if wanted not in features:
        what = "'labels' or 'mask'" if task == "multilabel" else f"'{wanted}'"
        raise UserError(
            f"{data.name} has no {what} column, which {task} needs (it has "
            f"{', '.join(features)}): name it with data.columns, or choose another task."
        )
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
    given = data.classes
    if given is None and wanted == "mask" and data.name.split(":")[0] == "synthetic":
        given = list(LAND_COVER)
    labels = None
    if task == "classification":
        labels = np.asarray(rows.with_format("numpy")["label"][:])
        if labels.min() < 0:
            raise UserError(
                f"Image {int(np.argmin(labels))} of {data.name} ({split}) has class "
                f"{labels.min()}, which means none: remove such rows."
            )
    return Split(
        rows=rows,
        name=f"{data.name} ({split})",
        task=task,
        reader=reader,
        classes=_class_names(features, wanted, given),
        labels=labels,
        ignored=data.ignored_classes if wanted == "mask" else (),
        places=places,
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
    for part, numbers in ((split, rows), (test, range(min(len(test), 500)))):
        for row in numbers:
            label = part.example(int(row))[1]
            known = label[label != IGNORED]
            highest = max(highest, int(known.max()) if known.size else -1)
    return max(highest + 1, 2)


def content_hash(split: Split) -> str:
    """Hash of evenly spaced images and their labels, the same on every machine."""
    digest = hashlib.sha256(f"{len(split)} {split.reader.bands} {split.task}".encode())
    for row in np.unique(np.linspace(0, len(split) - 1, min(len(split), _HASHED)).astype(int)):
        image, label = split.example(int(row))
        for part in (image, *(label if isinstance(label, tuple) else (label,))):
            digest.update(np.ascontiguousarray(part).tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


class Examples(Dataset):
    """Labelled images as tensors, augmented or whole.

    A sample: `pixel_values` (C, H, W) normalised, `labels` (class, multi-hot (K,) float, mask
    (H, W), or `{"class_labels", "boxes"}` with normalised centre boxes), `index` (its row).
    """

    def __init__(
        self,
        split: Split,
        rows: Sequence[int] | np.ndarray,
        preprocessing: Preprocessing,
        num_classes: int,
        *,
        transform: Any = None,
        size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Keep what samples are made of.

        Args:
            split: Where from.
            rows: Which.
            preprocessing: Normalisation.
            num_classes: K.
            transform: Augmentation; None gives whole images.
            size: Side that whole images are resized to; None keeps theirs.
            seed: Of the augmentation.
        """
        self.split, self.rows = split, [int(row) for row in rows]
        self.preprocessing, self.num_classes = preprocessing, num_classes
        self.transform, self.size, self.seed = transform, size, seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers see it change
        self._kept: dict[int, tuple[np.ndarray, Any]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample."""
        row = self.rows[index]
        stored, label = self._example(row)
        scaled = self.preprocessing.scaled(torch.tensor(stored).permute(2, 0, 1))
        inputs: dict[str, Any] = {"image": tv_tensors.Image(scaled)}
        if self.split.task == "segmentation":
            inputs["mask"] = tv_tensors.Mask(torch.from_numpy(label))
        elif self.split.task == "detection":
            boxes, classes = label
            kind: Any = tv_tensors.BoundingBoxFormat.XYXY
            inputs["boxes"] = tv_tensors.BoundingBoxes(
                torch.from_numpy(boxes), format=kind, canvas_size=scaled.shape[-2:]
            )
            inputs["classes"] = torch.from_numpy(classes)
        if self.transform is not None:
            # By seed, epoch and row: what a loader has read ahead does not matter to a resumed run.
            seed = np.random.SeedSequence([self.seed, int(self.epoch), row]).generate_state(1)[0]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seed))
                inputs = self.transform(inputs)
        image = inputs["image"].as_subclass(Tensor)
        if self.transform is None and self.size is not None:
            image = self.preprocessing.resized(image[None], self.size)[0]
        return {
            "pixel_values": self.preprocessing.normalised(image[None])[0],
            "labels": self._labels(inputs, label, row),
            "index": row,
        }

    def _labels(self, inputs: dict[str, Any], label: Any, row: int) -> Any:
        task = self.split.task
        if task == "classification":
            return torch.tensor(label)
        if task == "segmentation":
            mask = inputs["mask"].as_subclass(Tensor).long()
            self._check(mask[mask != IGNORED], row)
            return mask
        if task == "multilabel":
            self._check(torch.from_numpy(label), row)
            return torch.zeros(self.num_classes).index_fill_(0, torch.from_numpy(label), 1.0)
        self._check(inputs["classes"], row)
        x0, y0, x1, y1 = inputs["boxes"].as_subclass(Tensor).float().unbind(-1)
        height, width = inputs["image"].shape[-2:]
        centres = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
        sides = ((x1 - x0) / width, (y1 - y0) / height)
        return {
            "class_labels": inputs["classes"].long(),
            "boxes": torch.stack((*centres, *sides), dim=-1),
        }

    def _check(self, classes: Tensor, row: int) -> None:
        if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < self.num_classes:
            raise UserError(
                f"Row {row} of {self.split.name} has class {int(classes.max())}, but there are "
                f"{self.num_classes} classes: name them all in data.classes, or ignore it with "
                "data.ignored_classes."
            )

    def _example(self, row: int) -> tuple[np.ndarray, Any]:
        if row not in self._kept:
            found = self.split.example(row)
            self.preprocessing.check(found[0], f"the image in row {row} of {self.split.name}")
            if self._bytes + found[0].nbytes > _KEPT_BYTES:
                return found
            self._kept[row] = found
            self._bytes += found[0].nbytes
        return self._kept[row]


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch; images of different sizes stay a list, which evaluation takes apart."""
    batch: dict[str, Any] = {"index": torch.tensor([sample["index"] for sample in samples])}
    images = [sample["pixel_values"] for sample in samples]
    labels = [sample["labels"] for sample in samples]
    alike = len({image.shape for image in images}) == 1
    batch["pixel_values"] = torch.stack(images) if alike else images
    boxes = isinstance(labels[0], dict)
    batch["labels"] = torch.stack(labels) if alike and not boxes else labels
    return batch


def data_name(data: FinetuneData) -> str:
    """Name of the data set in results."""
    if data.label:
        return data.label
    return os.path.basename(os.path.realpath(data.name)) if os.path.exists(data.name) else data.name


def _class_names(features: Any, column: str, given: list[str] | None) -> list[str] | None:
    if given is not None:
        return list(given)
    feature = features[column]
    if column == "objects":
        feature = feature["category"]
    while feature is not None and not hasattr(feature, "names"):
        feature = getattr(feature, "feature", None)
    return list(feature.names) if feature is not None else None


def _corners(objects: Any) -> tuple[np.ndarray, np.ndarray]:
    """Boxes x0 y0 x1 y1 and classes from {bbox [x, y, w, h], category}; empty boxes left out."""
    boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4).copy()
    classes = np.asarray(objects["category"], np.int64).reshape(-1)
    real = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    boxes, classes = boxes[real], classes[real]
    boxes[:, 2:] += boxes[:, :2]
    return boxes, classes
