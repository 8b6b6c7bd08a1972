"""Feeding a run: the global batch of every step, and this process's part of it.

The order of an epoch depends on seed and epoch alone. Process r of W takes the r-th contiguous
part of each global batch, so that gathering in rank order restores it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..data import ImageCache
from ..data.sampling import epoch_indices
from ..errors import UserError


@dataclass
class MicroBatch:
    """Images of one forward pass on this process.

    Attributes:
        images: (B, C, H, W) stored integers, on the run's device.
        index: (B,) rows in the data set.
        labels: (B,) class indices, for meters only; None where the data has none.
        places: (B,) numbers of the images' places, on the CPU; None where they are not known.
    """

    images: Tensor
    index: Tensor
    labels: Tensor | None
    places: Tensor | None = None

    def first(self, images: int) -> MicroBatch:
        """Its first so many images."""
        labels, places = (
            None if part is None else part[:images] for part in (self.labels, self.places)
        )
        return MicroBatch(self.images[:images], self.index[:images], labels, places)


class Feed(Protocol):
    """What the loop asks of its images, whether they are cached or read as they come.

    Attributes:
        steps_per_epoch: Steps of one pass over the data, or of what stands for one.
        position: Where the next step begins, as plain JSON values that a checkpoint keeps and gives
            back; None where the number of the step says it all.
    """

    steps_per_epoch: int
    position: list[int] | None

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Tell images apart, for a run continues on the same ones only.

        The first is kept by a checkpoint; the others were, by earlier versions.
        """

    def passes(self, step: int) -> float:
        """How often the data has been seen after so many steps."""

    def steps(self, start: int, stop: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches of steps `start` to `stop` - 1."""


class CachedBatches:
    """Steps over an image cache, held on the device where it fits: a `Feed`.

    Args:
        cache: Decoded images.
        rows: Rows of the cache to use, (N,).
        guidance: (len(cache),) labels of class-balanced sampling, or None for natural frequency.
        places: (len(cache),) numbers of the images' places, or None.
        batch_size: Images of a step over all processes and micro-batches.
        accumulation: Micro-batches of a step.
        processes: Number of processes W.
        rank: This process.
        device: Where the images go.
        seed: Seed of the order of the images.

    Raises:
        UserError: A batch that cannot be split evenly, or more images a batch than there are.
    """

    def __init__(
        self,
        cache: ImageCache,
        rows: np.ndarray,
        *,
        guidance: np.ndarray | None,
        places: np.ndarray | None = None,
        batch_size: int,
        accumulation: int,
        processes: int,
        rank: int,
        device: torch.device,
        seed: int,
    ) -> None:
        """Checks that the batch can be split, and takes the images to the device if they fit."""
        if batch_size % (accumulation * processes):
            raise UserError(
                f"The setting batch_size={batch_size} cannot be split over {processes} processes "
                f"and gradient_accumulation={accumulation}: use a multiple of "
                f"{accumulation * processes}."
            )
        if len(rows) < batch_size:
            raise UserError(
                f"The setting batch_size={batch_size} is more than the {len(rows)} images of the "
                "data: use a smaller one."
            )
        self.cache, self.rows, self.guidance = cache, rows, guidance
        self.places = None if places is None else torch.from_numpy(places)
        self.batch_size, self.accumulation = batch_size, accumulation
        self.processes, self.rank = processes, rank
        self.device, self.seed = device, seed
        self.steps_per_epoch = len(rows) // batch_size  # the last partial batch is dropped
        self.images = cache.images
        if device.type == "cuda" and self._fits(device):
            self.images = cache.images.to(device)

    # The order is a function of the step alone: a checkpoint need not hold a position.
    position: list[int] | None = None

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Tell images apart, for a run continues on the same ones only."""
        content = self.cache.content()
        # By these the images of a batch are chosen, and the names of their columns tell nothing.
        for numbers in (self.guidance, None if self.places is None else self.places.numpy()):
            if numbers is not None:
                content = hashlib.sha256(content.encode() + numbers.tobytes()).hexdigest()[:20]
        return content, self.cache.fingerprint

    def passes(self, step: int) -> float:
        """How often the data has been seen after so many steps."""
        return step / self.steps_per_epoch

    def _fits(self, device: torch.device) -> bool:
        """True when the images take at most a third of the device's free memory."""
        free, _ = torch.cuda.mem_get_info(device)
        return self.cache.images.numel() * self.cache.images.element_size() < free / 3

    def order(self, epoch: int) -> np.ndarray:
        """Rows of the cache in the order of an epoch, (N,)."""
        mode: Any = "natural" if self.guidance is None else "class_balanced"
        labels = None if self.guidance is None else self.guidance[self.rows]
        return self.rows[
            epoch_indices(len(self.rows), labels=labels, mode=mode, seed=self.seed, epoch=epoch)
        ]

    def steps(self, start: int, stop: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches of steps `start` to `stop` - 1; the next step is read ahead."""
        if self.device.type != "cuda":
            yield from map(self._read, self._indices(start, stop))
            return
        yield from read_ahead(self._read, self._indices(start, stop))

    def _indices(self, start: int, stop: int) -> Iterator[np.ndarray]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        local = self.batch_size // self.processes
        for step in range(start, stop):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.order(epoch)
            first = (step % self.steps_per_epoch) * self.batch_size + self.rank * local
            yield order[first : first + local]

    def _read(self, index: np.ndarray) -> list[MicroBatch]:
        rows = torch.from_numpy(index)
        if self.images.device.type == "cuda":
            images = self.images[rows.pin_memory().to(self.device, non_blocking=True)]
        else:
            images = self.images[rows]
            if self.device.type == "cuda":
                images = images.pin_memory().to(self.device, non_blocking=True)
        labels, places = self.cache.labels, self.places
        return [
            MicroBatch(
                part,
                part_rows,
                None if labels is None else labels[part_rows],
                None if places is None else places[part_rows],
            )
            for part, part_rows in zip(
                images.chunk(self.accumulation), rows.chunk(self.accumulation), strict=True
            )
        ]


def read_ahead(read: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """`map(read, items)`, the next item drawn and read in a thread while the last one is used."""
    end = object()

    def following() -> Any:
        item = next(items, end)
        return end if item is end else read(item)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(following)
        while (result := pending.result()) is not end:
            pending = pool.submit(following)
            yield result
