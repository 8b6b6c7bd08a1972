"""Feeding a run from a data set that is read as it comes, for sets larger than disk or memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator

from ..data.streaming import StreamBatches
from ..errors import UserError
from .batches import MicroBatch, read_ahead

# Rows in the shuffle buffer: some hundred batches, a few hundred MB of encoded images.
SHUFFLE_BUFFER = 10_000


class StreamedBatches:
    """Steps over a stream: a `Feed`.

    A stream has no length, so an "epoch" of its schedule and of its log is a tenth of the run.
    To continue, the rows before are read again without being decoded: slower than a jump, but
    exact whatever the shuffle buffer held.

    Args:
        rows: An `IterableDataset` of `rs_models.data.load(..., streaming=True)`.
        bands: Bands to keep, in channel order.
        image_size: Side of the images in pixels.
        batch_size: Images of a step over all processes and micro-batches.
        accumulation: Micro-batches of a step.
        accelerator: Number of processes, this one's rank, the device.
        total_steps: Steps of the run, of which a tenth stands for an epoch.
        seed: Seed of the order of the images.
        strict: Stop at a corrupt image.

    Raises:
        UserError: A batch that cannot be split evenly.
    """

    def __init__(
        self,
        rows: Any,
        *,
        bands: tuple[str, ...],
        image_size: int,
        batch_size: int,
        accumulation: int,
        accelerator: Accelerator,
        total_steps: int,
        seed: int,
        strict: bool,
    ) -> None:
        """Takes the stream; nothing is read yet."""
        parts = accumulation * accelerator.num_processes
        if batch_size % parts:
            raise UserError(
                f"The setting batch_size={batch_size} cannot be split over "
                f"{accelerator.num_processes} processes and gradient_accumulation={accumulation}: "
                f"use a multiple of {parts}."
            )
        self.rows, self.seed, self.accumulation = rows, seed, accumulation
        self.settings = {
            "bands": bands,
            "image_size": image_size,
            "batch_size": batch_size // accelerator.num_processes,
            "strict": strict,
            "rank": accelerator.process_index,
            "world_size": accelerator.num_processes,
        }
        self.device = accelerator.device
        self.steps_per_epoch = max(1, total_steps // 10)
        # (passes over the stream, rows of this process's part read in the current one).
        self.position: list[int] | None = [0, 0]

    fingerprints = ("stream",)  # of images that are not known before they come

    def passes(self, step: int) -> float:
        """How often the whole stream has been seen; a part of a pass cannot be told."""
        return float(self.position[0]) if self.position else 0.0

    def first(self, batches: int) -> torch.Tensor:
        """Images of the first batches, for statistics: (N, C, H, W)."""
        return torch.cat(
            [batch for _, (batch, _) in zip(range(batches), self._batches(), strict=False)]
        )

    def steps(self, start: int, stop: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches of steps `start` to `stop` - 1; the next step is read ahead."""
        batches = zip(range(start, stop), self._batches(), strict=False)
        for micro_batches, position in read_ahead(self._to_device, batches):
            self.position = position
            yield micro_batches

    def _batches(self) -> Iterator[tuple[torch.Tensor, list[int]]]:
        epoch, skip = self.position or (0, 0)
        while True:
            shuffled = self.rows.shuffle(seed=self.seed + epoch, buffer_size=SHUFFLE_BUFFER)
            stream = StreamBatches(shuffled, **self.settings)
            stream.skip(skip)
            for batch in stream:
                yield batch, [epoch, stream.rows_read]
            if stream.rows_read < self.settings["batch_size"]:
                raise UserError(
                    f"The stream has {stream.rows_read} images for this process, fewer than one "
                    f"batch of {self.settings['batch_size']}: use a smaller batch_size."
                )
            epoch, skip = epoch + 1, 0

    def _to_device(self, numbered: tuple[int, tuple[torch.Tensor, list[int]]]) -> Any:
        step, (batch, position) = numbered
        index = torch.arange(step * len(batch), (step + 1) * len(batch))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        parts = zip(batch.chunk(self.accumulation), index.chunk(self.accumulation), strict=True)
        return [MicroBatch(images, rows, None) for images, rows in parts], position
