"""Labelled images as samples and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ...preprocessing import Preprocessing
from .data import Split, check_classes

_KEPT_BYTES = 2 * 1024**3  # decoded images that a process keeps


class Examples(Dataset):
    """Labelled images as tensors, augmented or whole.

    A sample: `pixel_values` (C, H, W) normalised, `labels` (what the task's loss wants), `index`
    (its row).
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
        """Keeps what samples are made of.

        Args:
            split: Where from.
            rows: Which.
            preprocessing: Normalisation.
            num_classes: Number of classes K.
            transform: Augmentation; None gives whole images.
            size: Side that whole images are resized to; None keeps theirs.
            seed: Seed of the augmentation.
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
        size = (scaled.shape[-2], scaled.shape[-1])
        inputs: dict[str, Any] = {"image": tv_tensors.Image(scaled)}
        inputs.update(self.split.task.inputs(label, size))
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
            "labels": self.split.task.target(inputs, label, self.num_classes),
            "index": row,
        }

    def _example(self, row: int) -> tuple[np.ndarray, Any]:
        if row not in self._kept:
            example = self.split.example(row)
            self.preprocessing.check(example[0], f"the image in {self.split.place(row)}")
            check_classes(
                self.split.task.present(example[1]), self.num_classes, self.split.place(row)
            )
            if self._bytes + example[0].nbytes > _KEPT_BYTES:
                return example
            self._kept[row] = example
            self._bytes += example[0].nbytes
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
