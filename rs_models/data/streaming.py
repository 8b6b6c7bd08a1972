"""Batches from a data set that is too large to cache: read and decoded while training runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.utils.data

from ..bands import resolve_bands
from ..errors import UserError
from .cache import num_threads
from .resize import resize_and_crop

logger = logging.getLogger(__name__)


class StreamBatches(torch.utils.data.IterableDataset):
    """Integer image batches of a streaming data set.

    Give it to a `DataLoader` with `batch_size=None`, or iterate it. Every process takes its own
    part of the stream, and every worker its part of that (whole shards where there are enough of
    them). `rows_read` after a batch, given to `skip` of a new one, continues with the next row.

    Args:
        rows: From `rs_models.data.load(..., streaming=True)`; shuffle it before with
            `rows.shuffle(seed=, buffer_size=)`.
        bands: Bands to keep, in channel order.
        image_size: Shorter side resized to this, then the centre square cut out.
        batch_size: Images of this process in a batch.
        strict: Raise at an image that cannot be read, instead of leaving it out and counting it.
        rank: Number of this process.
        world_size: Number of processes.

    Attributes:
        skipped: Images left out so far because they could not be read.
        rows_read: Rows of this process's part read so far, those left out included.

    Raises:
        UserError: The data lacks a band.
    """

    def __init__(
        self,
        rows: Any,
        *,
        bands: str | Sequence[str] = "rgb",
        image_size: int,
        batch_size: int,
        strict: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Looks at the columns; nothing is read yet."""
        from datasets import Array3D, Image
        from datasets.distributed import split_dataset_by_node

        from .columns import BandArray, RowReader

        self.bands, self.image_size, self.batch_size = resolve_bands(bands), image_size, batch_size
        self.strict = strict
        self.skipped = 0
        self.rows_read = 0
        if rows.features is None:
            # A stream of bare files has no schema: its image column is taken at its word.
            rows = rows.cast_column("image", Image())
        self._reader = RowReader(rows.features, self.bands)
        rows = self._reader.undecoded(rows.select_columns(self._reader.columns))
        if isinstance(self._reader.feature, BandArray | Array3D):
            rows = rows.with_format("numpy")  # else pixels come as lists, far slower
        self._rows = (
            split_dataset_by_node(rows, rank=rank, world_size=world_size)
            if world_size > 1
            else rows
        )

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yields (B, C, H, W) integer batches, channels-last; an incomplete last one is dropped."""
        threads = 1 if torch.utils.data.get_worker_info() else num_threads()
        with ThreadPoolExecutor(threads) as pool:
            source = iter(self._rows)
            while True:
                images: list[np.ndarray] = []
                while len(images) < self.batch_size:
                    rows = list(islice(source, self.batch_size - len(images)))
                    if not rows:
                        return
                    self.rows_read += len(rows)
                    images += [image for image in pool.map(self._read, rows) if image is not None]
                yield torch.from_numpy(np.ascontiguousarray(np.stack(images))).permute(0, 3, 1, 2)

    def _read(self, row: dict) -> np.ndarray | None:
        from .columns import CorruptImageError

        try:
            return resize_and_crop(self._reader(row), self.image_size)
        except CorruptImageError as error:
            if self.strict:
                raise UserError(
                    f"An image of the stream cannot be read ({error}): repair or remove it."
                ) from error
            self.skipped += 1
            logger.warning(
                "Left out an image that cannot be read (%s); %d so far.", error, self.skipped
            )
            return None

    def skip(self, rows: int) -> None:
        """Leaves out the next rows of this process's part, without decoding them.

        Exact for a shuffled stream too, whose buffer a saved position would not hold.
        """
        self._rows = self._rows.skip(rows)
        self.rows_read = rows
