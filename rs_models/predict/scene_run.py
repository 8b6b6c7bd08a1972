"""One scene through one model: tiles read ahead, computed in batches, kept row by row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..settings import progress_bar
from .model import Predictor
from .scene import Scene
from .tiles import Grid
from .writing import GDAL, FinishedRows

_AHEAD = 3  # batches that are read while one is computed


@dataclass
class Batch:
    """Neighbouring tiles of one row."""

    row: int
    columns: range
    pixels: np.ndarray  # (B, C, tile, tile)
    valid: np.ndarray | None  # (B, tile, tile); None where all of it is


class RowCollector(ABC):
    """What becomes of the results of one row of tiles after the other."""

    @abstractmethod
    def add(self, column: int, result: np.ndarray) -> None:
        """Takes the result of a tile of the present row."""

    @abstractmethod
    def finish(self, row: int, *, wanted: bool) -> np.ndarray | None:
        """Ends a row of tiles: what it finished, or None where that is not wanted."""


class Kind(ABC):
    """A kind of prediction: what becomes of a network's output, and the file that holds it.

    Attributes:
        name: The word that `--kind` takes.
        tasks: Tasks whose models can give it.
        suffixes: File endings that hold it; the first is the usual one.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    suffixes: ClassVar[tuple[str, ...]]

    def bytes_a_cell(self, predictor: Predictor) -> int:
        """Room that a cell takes until the output is whole; 0 for what takes none."""
        return 0

    @abstractmethod
    def first_row(self, grid: Grid, done: int) -> int:
        """Row of tiles to compute first where `done` rows are finished."""

    @abstractmethod
    def collector(self, run: SceneRun) -> RowCollector:
        """Something that takes the run's results."""

    @abstractmethod
    def results(self, run: SceneRun, row: int, columns: list[int], output: Any) -> Iterator[Any]:
        """Result of each tile, in the order of the columns."""

    @abstractmethod
    def write(self, run: SceneRun, output: Path) -> int | None:
        """Makes the file of the finished rows; how many boxes it holds, None for maps."""


@dataclass
class SceneRun:
    """One scene through one model.

    Attributes:
        predictor: Network with its preprocessing.
        scene: Open scene.
        grid: Its tiles.
        kind: What is made of the network's output.
        rows: What is finished.
        batch_size: Tiles at a time.
        threshold: Least score of a box.
        progress: Whether a bar is shown.
    """

    predictor: Predictor
    scene: Scene
    grid: Grid
    kind: Kind
    rows: FinishedRows
    batch_size: int
    threshold: float
    progress: bool

    def compute(self) -> int:
        """Computes what is not there yet; how many tiles it were."""
        grid = self.grid
        done = self.rows.done(grid.rows)
        first = self.kind.first_row(grid, done)
        collector = self.kind.collector(self)
        computed = 0
        bar = progress_bar(
            grid.rows * grid.columns,
            "predicting",
            "tile",
            shown=self.progress,
            initial=done * grid.columns,
        )
        with bar:
            for batch in self._batches(first):
                for column, result in self._results(batch):
                    collector.add(column, result)
                    computed += 1
                wanted = batch.row >= done
                if wanted:
                    bar.update(len(batch.columns))
                if batch.columns.stop == grid.columns:
                    values = collector.finish(batch.row, wanted=wanted)
                    if values is not None:
                        self.rows.put(batch.row, values)
        return computed

    def _batches(self, first_row: int) -> Iterator[Batch]:
        """Batches in order, a few of them read ahead in a thread."""
        rows, columns = self.grid.rows, self.grid.columns
        spans = (  # one at a time: a large scene has millions
            (row, range(column, min(column + self.batch_size, columns)))
            for row in range(first_row, rows)
            for column in range(0, columns, self.batch_size)
        )
        reading = self.scene.another()  # a raster must not be shared by threads
        waiting: deque[Future[Batch]] = deque()
        try:
            with ThreadPoolExecutor(1) as pool:
                try:
                    for span in spans:
                        waiting.append(pool.submit(self._read, reading, *span))
                        if len(waiting) > _AHEAD:
                            yield waiting.popleft().result()
                    while waiting:
                        yield waiting.popleft().result()
                finally:
                    for future in waiting:
                        future.cancel()
        finally:
            reading.close()

    def _read(self, scene: Scene, row: int, columns: range) -> Batch:
        import rasterio

        with rasterio.Env(**GDAL):  # settings are a thread's own
            return self._read_batch(scene, row, columns)

    def _read_batch(self, scene: Scene, row: int, columns: range) -> Batch:
        grid = self.grid
        top, left = row * grid.step, columns.start * grid.step
        width = (len(columns) - 1) * grid.step + grid.tile
        pixels, valid = scene.read(top, left, grid.tile, width)
        starts = [i * grid.step for i in range(len(columns))]
        return Batch(
            row,
            columns,
            np.stack([pixels[:, :, start : start + grid.tile] for start in starts]),
            None
            if valid.all()
            else np.stack([valid[:, start : start + grid.tile] for start in starts]),
        )

    def _results(self, batch: Batch) -> Iterator[tuple[int, Any]]:
        """Column and result of each tile with data."""
        pixels, valid, columns = batch.pixels, batch.valid, list(batch.columns)
        if valid is not None:
            with_data = np.asarray(valid.any(axis=(1, 2)))
            if not with_data.any():
                return
            pixels, valid = pixels[with_data], valid[with_data]
            columns = [c for c, holds in zip(columns, with_data, strict=True) if holds]
        mask = torch.from_numpy(valid) if valid is not None else None
        output = self.predictor(self.predictor.prepared(torch.from_numpy(pixels), mask))
        results = self.kind.results(self, batch.row, columns, output)
        yield from zip(columns, results, strict=True)
