"""Kinds of prediction that are maps: classes, probabilities, embeddings; tiles are blended."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from .model import Predictor
from .scene import Scene
from .scene_run import Kind, RowCollector, SceneRun
from .tiles import Blender, Grid
from .writing import NODATA, write_cog

_ROWS = 64  # rows whose scores are compared at a time, so that they stay in the processor's cache


class Map(Kind):
    """A raster of one value, or one band of values, a cell."""

    suffixes = (".tif", ".tiff")
    categorical = False

    def first_row(self, grid: Grid, done: int) -> int:
        """The last finished row of tiles still reaches into the next band of rows."""
        return max(0, done - 1) if done < grid.rows and grid.overlap else done

    def collector(self, run: SceneRun) -> RowCollector:
        """Blends the tiles of a row into those of the row before."""
        return _Blended(self, run)

    def results(
        self, run: SceneRun, row: int, columns: list[int], output: Any
    ) -> Iterator[np.ndarray]:
        """Weighted result (K, side, side) of each tile."""
        grid = run.grid
        side = grid.tile // grid.stride
        if output.shape[2:] != (side, side):
            output = torch.nn.functional.interpolate(output, (side, side), mode="nearest")
        weights = torch.from_numpy(grid.weights()).to(output.device)
        # Not in place: one value a tile is the same memory for all of its cells.
        yield from (output * weights).cpu().numpy()

    def write(self, run: SceneRun, output: Path) -> int | None:
        """Puts the rows together as a cloud-optimised GeoTIFF."""
        predictor = run.predictor
        first = run.rows.get(0)
        names = predictor.names or [f"feature {number}" for number in range(len(first))]
        tags = {
            "kind": self.name,
            "model": predictor.name,
            "model_revision": predictor.revision,
            "software": "rs_models",
        }
        if self.categorical:
            tags |= {f"class_{number}": name for number, name in enumerate(predictor.names)}
        write_cog(
            run.rows,
            run.scene.raster,
            run.grid,
            output,
            dtype=str(first.dtype),
            count=len(first),
            names=names,
            tags=tags,
            categorical=self.categorical,
        )
        return None

    @abstractmethod
    def encoded(self, scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """What the file holds of blended scores (K, rows, columns) where cells are valid."""

    @abstractmethod
    def empty(self, predictor: Predictor, shape: tuple[int, ...]) -> np.ndarray:
        """What the file holds of rows (rows, columns) without any data."""


class ClassMap(Map):
    """The number of the likeliest class in each cell."""

    name = "classes"
    tasks = ("segmentation", "classification")
    categorical = True

    def encoded(self, scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Class numbers (1, rows, columns), with nodata put in."""
        nodata, dtype = _class_type(len(scores))
        classes = np.zeros(valid.shape, dtype)
        for top in range(0, len(classes), _ROWS):
            largest(scores[:, top : top + _ROWS], classes[top : top + _ROWS])
        classes[~valid] = nodata
        return classes[None]

    def bytes_a_cell(self, predictor: Predictor) -> int:
        """Those of the class number's type."""
        return np.dtype(_class_type(len(predictor.names))[1]).itemsize

    def empty(self, predictor: Predictor, shape: tuple[int, ...]) -> np.ndarray:
        """Nodata (1, rows, columns)."""
        nodata, dtype = _class_type(len(predictor.names))
        return np.full((1, *shape), nodata, dtype)


class ValueMap(Map):
    """A float band a value, NaN where there is no data."""

    def bytes_a_cell(self, predictor: Predictor) -> int:
        """Four a band, where the model says how many there are."""
        return 4 * (len(predictor.names) or predictor.width or 1)

    def encoded(self, scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """The scores themselves."""
        scores[:, ~valid] = np.nan
        return scores

    def empty(self, predictor: Predictor, shape: tuple[int, ...]) -> np.ndarray:
        """NaN in as many bands as the model has values."""
        return np.full((predictor.channels, *shape), np.nan, np.float32)


class ProbabilityMap(ValueMap):
    """The probability of each class."""

    name = "probabilities"
    tasks = ("segmentation", "classification")


class EmbeddingMap(ValueMap):
    """The features of a backbone, one vector a cell of its output stride."""

    name = "embeddings"
    tasks = ("embedding",)


class _Blended(RowCollector):
    """One band of rows after the other, of tiles that overlap."""

    def __init__(self, kind: Map, run: SceneRun) -> None:
        self.kind, self.run = kind, run
        self.blender: Blender | None = None  # made with the first tile, which says how many bands
        self.row_ended = False

    def add(self, column: int, result: np.ndarray) -> None:
        self._advance()
        if self.blender is None:
            self.blender = Blender(self.run.grid, len(result))
        self.blender.add(column, result)

    def finish(self, row: int, *, wanted: bool) -> np.ndarray | None:
        run = self.run
        self._advance()
        self.row_ended = True
        scores = self.blender.finish(row) if self.blender is not None else None
        if not wanted:
            return None
        first, last = run.grid.band(row)
        valid = valid_cells(run.scene, run.grid, first, last)
        if scores is None:
            return self.kind.empty(run.predictor, valid.shape)
        return self.kind.encoded(scores, valid)

    def _advance(self) -> None:
        """Moves to the next row only when it begins: what the last one finished is a view."""
        if self.row_ended and self.blender is not None:
            self.blender.advance()
        self.row_ended = False


def valid_cells(scene: Scene, grid: Grid, first: int, last: int) -> np.ndarray:
    """Cells that hold data in some rows of them, (rows, columns): those where any pixel does."""
    stride = grid.stride
    columns = grid.cells[1]
    top, bottom = first * stride, min(last * stride, grid.height)
    valid = scene.valid(top, 0, bottom - top, grid.width)
    below, right = -len(valid) % stride, -grid.width % stride
    valid = np.pad(valid, ((0, below), (0, right)))
    cells = valid.reshape(len(valid) // stride, stride, columns, stride)
    return np.asarray(cells.any(axis=(1, 3)))


def largest(scores: np.ndarray, classes: np.ndarray) -> None:
    """Class of the largest of (K, rows, columns) into (rows, columns); the first of equal ones.

    Channel by channel, ten times as fast as argmax, which steps from channel to channel at every
    pixel and makes eight bytes of each.
    """
    best = scores[0].copy()
    for number in range(1, len(scores)):
        np.copyto(classes, number, where=scores[number] > best, casting="unsafe")
        np.maximum(best, scores[number], out=best)


def _class_type(count: int) -> tuple[int, Any]:
    """Nodata and type of class numbers."""
    if count >= 65535:
        raise UserError(f"The model has {count} classes: a map holds at most 65,534.")
    return (NODATA, np.uint8) if count < NODATA else (65535, np.uint16)
