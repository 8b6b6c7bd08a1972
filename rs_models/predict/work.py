"""One scene through one model: tiles read ahead, computed in batches, blended, kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import rasterio
import torch

from .model import Predictor, boxes_of
from .scene import Scene
from .tiles import Blender, Grid
from .writing import GDAL, NODATA, Partial

_ROWS = 64
_AHEAD = 3  # batches that are read while one is computed


@dataclass
class Batch:
    """Neighbouring tiles of one row."""

    row: int
    columns: range
    pixels: np.ndarray  # (B, C, tile, tile)
    valid: np.ndarray | None  # (B, tile, tile); None where all of it is


@dataclass
class Work:
    """One scene through one model."""

    predictor: Predictor
    scene: Scene
    grid: Grid
    partial: Partial
    kind: str
    batch_size: int
    threshold: float
    progress: bool

    def run(self) -> int:
        """Computes what is not there yet; how many tiles it were."""
        from tqdm.auto import tqdm

        grid = self.grid
        done = self.partial.done(grid.rows)
        # The last finished row of tiles still reaches into the next band of rows.
        first = max(0, done - 1) if done < grid.rows and grid.overlap else done
        if self.kind == "boxes":
            first = done
        computed = 0
        blender: Blender | None = None
        bar = tqdm(
            total=grid.rows * grid.columns,
            initial=done * grid.columns,
            desc="predicting",
            unit="tile",
            disable=not self.progress,
        )
        row_boxes: list[np.ndarray] = []
        for batch in self._batches(first):
            results = self._results(batch)
            for column, result in results:
                computed += 1
                if self.kind == "boxes":
                    row_boxes.append(result)
                    continue
                if blender is None:
                    blender = Blender(grid, len(result))
                blender.add(column, result)
            if batch.row >= done:
                bar.update(len(batch.columns))
            if batch.columns.stop == grid.columns:
                if self.kind == "boxes":
                    kept = row_boxes or [np.zeros((0, 6), np.float32)]
                    self.partial.put(batch.row, np.concatenate(kept))
                    row_boxes = []
                    continue
                band = blender.finish(batch.row) if blender is not None else None
                if batch.row >= done:
                    self.partial.put(batch.row, self._encoded(band, batch.row))
                if blender is not None:
                    blender.advance()
        bar.close()
        return computed

    def _batches(self, first_row: int) -> Iterator[Batch]:
        """Batches in order, a few of them read ahead in a thread."""
        grid = self.grid
        spans = [
            (row, range(column, min(column + self.batch_size, grid.columns)))
            for row in range(first_row, grid.rows)
            for column in range(0, grid.columns, self.batch_size)
        ]
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

    def _results(self, batch: Batch) -> Iterator[tuple[int, np.ndarray]]:
        """Column and weighted result (K, side, side), or boxes (n, 6), of each tile with data."""
        grid, predictor = self.grid, self.predictor
        pixels, valid, columns = batch.pixels, batch.valid, list(batch.columns)
        if valid is not None:
            there = np.asarray(valid.any(axis=(1, 2)))
            if not there.any():
                return
            pixels, valid = pixels[there], valid[there]
            columns = [column for column, known in zip(columns, there, strict=True) if known]
        mask = torch.from_numpy(valid) if valid is not None else None
        found = predictor(predictor.prepared(torch.from_numpy(pixels), mask))
        if self.kind == "boxes":
            for column, boxes in zip(
                columns, boxes_of(found, self.threshold, grid.tile), strict=True
            ):
                yield column, self._in_scene(boxes, batch.row, column)
            return
        side = grid.tile // grid.stride
        if found.shape[2:] != (side, side):
            found = torch.nn.functional.interpolate(found, (side, side), mode="nearest")
        weights = torch.from_numpy(grid.weights()).to(found.device)
        # Not in place: one value a tile is the same memory for all of its cells.
        weighted = (found * weights).cpu().numpy()
        yield from zip(columns, weighted, strict=True)

    def _in_scene(self, boxes: dict[str, torch.Tensor], row: int, column: int) -> np.ndarray:
        """Boxes (n, 6) in pixels of the scene: x0 y0 x1 y1 score label.

        Those whose centre a neighbouring tile sees from further inside are left to it.
        """
        grid = self.grid
        corners = boxes["boxes"].float().cpu().numpy()
        centre = (corners[:, :2] + corners[:, 2:]) / 2
        half = grid.overlap / 2
        low = np.asarray([half if column else -np.inf, half if row else -np.inf])
        high = np.asarray(
            [
                grid.tile - half if column < grid.columns - 1 else np.inf,
                grid.tile - half if row < grid.rows - 1 else np.inf,
            ]
        )
        mine = ((centre >= low) & (centre < high)).all(1)
        shift = np.asarray([column * grid.step, row * grid.step] * 2, np.float32)
        limits = np.asarray([grid.width, grid.height] * 2, np.float32)
        inside = ((centre + shift[:2]) < limits[:2]).all(1)  # not of what is mirrored at the border
        keep = mine & inside
        placed = np.minimum(corners[keep] + shift, limits)
        scores = boxes["scores"].float().cpu().numpy()[keep]
        labels = boxes["labels"].cpu().numpy()[keep]
        return np.column_stack((placed, scores, labels)).astype(np.float32).reshape(-1, 6)

    def _encoded(self, band: np.ndarray | None, row: int) -> np.ndarray:
        """What a file holds of a band of rows: classes, or values, with nodata put in."""
        grid = self.grid
        first, last = grid.band(row)
        valid = self._valid(first, last)
        classes = self.kind == "classes"
        count = len(self.predictor.names)
        if classes:
            none, kind = (NODATA, np.uint8) if count < NODATA else (65535, np.uint16)
            if band is None:
                return np.full((1, *valid.shape), none, kind)
            found = np.zeros(valid.shape, kind)
            for top in range(0, len(found), _ROWS):
                _argmax(band[:, top : top + _ROWS], found[top : top + _ROWS])
            found[~valid] = none
            return found[None]
        if band is None:
            width = count or _width(self.predictor)
            return np.full((width, *valid.shape), np.nan, np.float32)
        band[:, ~valid] = np.nan
        return band

    def _valid(self, first: int, last: int) -> np.ndarray:
        """Cells that hold data, (rows, columns): those where any pixel does."""
        grid, stride = self.grid, self.grid.stride
        columns = grid.cells[1]
        top, bottom = first * stride, min(last * stride, grid.height)
        valid = self.scene.valid(top, 0, bottom - top, grid.width)
        below, right = -len(valid) % stride, -grid.width % stride
        valid = np.pad(valid, ((0, below), (0, right)))
        cells = valid.reshape(len(valid) // stride, stride, columns, stride)
        return np.asarray(cells.any(axis=(1, 3)))


def _argmax(scores: np.ndarray, found: np.ndarray) -> None:
    """Class of the largest of (K, rows, columns) into (rows, columns); the first of equal ones.

    Channel by channel, ten times as fast as argmax, which steps from channel to channel at every
    pixel and makes eight bytes of each.
    """
    best = scores[0].copy()
    for number in range(1, len(scores)):
        np.copyto(found, number, where=scores[number] > best, casting="unsafe")
        np.maximum(best, scores[number], out=best)


def _width(predictor: Predictor) -> int:
    """Number of features, asked of the model itself."""
    side = predictor.default_tile()
    channels = len(predictor.preprocessing.bands)
    blank = torch.zeros(1, channels, side, side, device=predictor.device)
    return int(predictor(blank).shape[1])
