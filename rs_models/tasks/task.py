"""What a task is, as one object: how its labels are read, learned, counted and told.

Fine-tuning asks the object and never for its name. A new task is one file with a subclass, and a
row in `table.TASKS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import UserError
from ..evaluation.metrics import scores as class_scores
from ..evaluation.results import BOOTSTRAP_SAMPLES

# What a test image adds to the scores, as plain JSON.
Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """The labels of a data set: where they are and what they mean.

    Attributes:
        name: Name of the column.
        classes: Names of the classes; None where masks carry none.
        ignored: Mask values beside 255 that mean no class.
    """

    name: str
    classes: list[str] | None = None
    ignored: tuple[int, ...] = ()


class Task:
    """One task. Subclasses say what is theirs; what they share stands here.

    A label is what `read` gives: whatever the task likes, an image each. Class numbers are 0 to
    K - 1.

    Attributes:
        name: Its word in settings, results and file names.
        columns: Columns that can hold its labels, the first that is there is taken.
        metric: Headline: name in results, key among the scores.
        resamples: Resamples of the test images for an interval.
        whole_image: Whether an answer is of the whole image, which may then be resized.
        one_class: Whether an image has exactly one class, so that labels can be drawn by class.
        weighs_classes: Whether classes can be weighed in the loss.
        least_classes: Fewest classes that leave anything to learn.
        has_boxes: Whether augmentation moves boxes.
        has_heads: Whether `FinetuneConfig.head` chooses among networks.
        pipeline: The Hub's name of the task.
        auto_class: Class of transformers that loads its networks.
        answer: File that `predict` writes, for the card.
        processor: Settings of the image processor beside size and statistics.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    metric: ClassVar[tuple[str, str]]
    resamples: ClassVar[int] = BOOTSTRAP_SAMPLES
    whole_image: ClassVar[bool] = False
    one_class: ClassVar[bool] = False
    weighs_classes: ClassVar[bool] = False
    least_classes: ClassVar[int] = 1
    has_boxes: ClassVar[bool] = False
    has_heads: ClassVar[bool] = False
    pipeline: ClassVar[str]
    auto_class: ClassVar[str]
    answer: ClassVar[str] = "map.tif"
    processor: ClassVar[Mapping[str, Any]] = {}

    # Labels

    def column(self, features: Mapping[str, Any], data: str) -> str:
        """Column that holds the labels.

        Args:
            features: Features of the data set.
            data: Name of the data set, for the message.

        Raises:
            UserError: There is none.
        """
        for name in self.columns:
            if name in features:
                return name
        wanted = " or ".join(f"'{name}'" for name in self.columns)
        raise UserError(
            f"{data} has no {wanted} column, which {self.name} needs (it has "
            f"{', '.join(features)}): name it with data.columns, or choose another task."
        )

    def class_feature(self, feature: Any) -> Any:
        """Part of the column's feature that may hold the class names."""
        return feature

    def read(self, row: Mapping[str, Any], column: Column, where: str) -> Any:
        """The label of a stored row.

        Args:
            row: With the column.
            column: What it means.
            where: The row's place in words, for messages.

        Raises:
            UserError: A label that cannot be right.
        """
        raise NotImplementedError

    def fit(self, label: Any, size: tuple[int, int], where: str) -> None:
        """Refuses a label that does not fit an image.

        Args:
            label: Label of the image.
            size: Height and width of the image.
            where: The row's place in words, for messages.

        Raises:
            UserError: Naming the row.
        """

    def present(self, label: Any) -> np.ndarray:
        """Class numbers that a label holds, without what is ignored; repeated or not."""
        raise NotImplementedError

    def class_counts(self, label: Any, num_classes: int) -> np.ndarray:
        """How often each class is there, (K,) int64, to weigh classes by."""
        return np.bincount(self.present(label), minlength=num_classes)[:num_classes]

    def nothing(self, name: str) -> str:
        """What is said of a split in which no image has a label."""
        return f"No image of {name} holds a class: there is nothing to learn or to count."

    # Samples

    def inputs(self, label: Any, size: tuple[int, int]) -> dict[str, Any]:
        """What augmentation must move with an image, as `tv_tensors` by name."""
        return {}

    def target(self, inputs: Mapping[str, Any], label: Any, num_classes: int) -> Any:
        """What the loss wants.

        Args:
            inputs: The augmented `image`, (C, H, W), and what `inputs` gave.
            label: As read.
            num_classes: Number of classes K.
        """
        raise NotImplementedError

    # Learning

    def network(
        self,
        backbone: PreTrainedModel,
        id2label: Mapping[int, str],
        *,
        head: str,
        settings: Mapping[str, Any],
    ) -> PreTrainedModel:
        """A network over a native backbone, whose weights are copied.

        Args:
            backbone: Trained or not.
            id2label: Names of the classes.
            head: Which network, where the task has several.
            settings: Fields of the network's config.

        Raises:
            UserError: A backbone that does not fit, or unknown settings.
        """
        raise NotImplementedError

    def outputs(self, model: nn.Module, pixel_values: Tensor) -> dict[str, Tensor]:
        """What a network says of normalised images (B, C, H, W), for `rows`."""
        raise NotImplementedError

    def loss(
        self, model: nn.Module, pixel_values: Tensor, labels: Any, class_weights: Tensor | None
    ) -> Tensor:
        """What a training step lowers.

        Args:
            model: From `network`.
            pixel_values: Normalised images, (B, C, H, W).
            labels: A batch of targets.
            class_weights: (K,), or None.
        """
        raise NotImplementedError

    # Counting

    def rows(self, output: Mapping[str, Tensor], labels: Any, num_classes: int) -> list[Row]:
        """What each image of a batch adds to the scores.

        Args:
            output: From `outputs`.
            labels: A batch of targets.
            num_classes: Number of classes K.
        """
        raise NotImplementedError

    def scores(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Every score over some images, from 0 to 1 (kappa from -1)."""
        raise NotImplementedError

    def confusions(self, rows: Sequence[Row]) -> np.ndarray | None:
        """Confusion matrices (images, K, K) int64 whose sum tells all scores; None without."""
        return None

    def headline(self, rows: Sequence[Row]) -> float:
        """The task's metric over some images, in percent."""
        return 100 * float(self.scores(rows)[self.metric[1]])

    def protocol(self, *, frozen: bool) -> str:
        """First part of the protocol's name in results."""
        return f"{self.name}-frozen" if frozen else self.name


class ConfusionTask(Task):
    """A task whose scores all come of one confusion matrix."""

    def confusions(self, rows: Sequence[Row]) -> np.ndarray:
        """Confusion matrices of the images, (images, K, K) int64."""
        raise NotImplementedError

    def scores(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Every score over some images, from 0 to 1 (kappa from -1)."""
        return class_scores(self.confusions(rows).sum(0))


def label_classes(config: PreTrainedConfig, id2label: Mapping[int, str]) -> None:
    """Writes names of classes into a network's config."""
    config.id2label = {int(number): name for number, name in id2label.items()}
    config.label2id = {name: number for number, name in config.id2label.items()}


def out_of_range(classes: np.ndarray | Tensor, num_classes: int) -> int | None:
    """A class number that is not from 0 to K - 1; None where all are."""
    values = torch.as_tensor(classes)
    if values.numel() == 0 or 0 <= int(values.min()) <= int(values.max()) < num_classes:
        return None
    return int(values.min()) if int(values.min()) < 0 else int(values.max())
