"""Where the tiles of a scene lie, and how their results are blended into rows.

Tiles form a grid with a fixed step, so that every output row is touched by at most two rows of
tiles. A result weighs less towards the border of its tile, falling linearly over the overlap, and
the sum is divided by the weights' sum: two tiles that agree give what they agree on, and there is
no seam.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np

from ..errors import UserError

_IN_MEMORY = 768 * 1024**2  # bytes of a blending buffer; a larger one lies in a file


@dataclass(frozen=True)
class Grid:
    """Tiles over one axis pair of a scene, in pixels.

    Attributes:
        height: Height of the scene.
        width: Width of the scene.
        tile: Side of a tile.
        overlap: Overlap of neighbouring tiles, at most half a tile.
        stride: Pixels of the scene to one cell of the result.
    """

    height: int
    width: int
    tile: int
    overlap: int
    stride: int = 1

    def __post_init__(self) -> None:
        """Refuses what cannot be blended."""
        if self.tile < 1 or self.tile % self.stride:
            raise UserError(
                f"The tile is {self.tile} pixels: it must be a multiple of {self.stride}, the "
                "pixels to one cell of this model's result."
            )
        if not 0 <= self.overlap <= self.tile // 2 or self.overlap % self.stride:
            raise UserError(
                f"The overlap is {self.overlap} pixels: it must be a multiple of {self.stride}, "
                f"from 0 to half a tile ({self.tile // 2})."
            )

    @property
    def step(self) -> int:
        """Pixels from a tile to the next."""
        return self.tile - self.overlap

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return _count(self.height, self.tile, self.step)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return _count(self.width, self.tile, self.step)

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the result in cells; the last one may reach beyond the scene."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    def weights(self) -> np.ndarray:
        """Weight of each cell of a tile, (tile / stride, tile / stride) float32."""
        line = ramp(self.tile // self.stride, self.overlap // self.stride)
        return line[:, None] * line[None, :]

    def band(self, row: int) -> tuple[int, int]:
        """Rows of cells that are finished with a row of tiles: (first, one behind the last)."""
        step = self.step // self.stride
        last = self.cells[0] if row == self.rows - 1 else min((row + 1) * step, self.cells[0])
        return row * step, last


def _count(length: int, tile: int, step: int) -> int:
    return max(1, -(-(length - tile) // step) + 1)


def ramp(tile: int, overlap: int) -> np.ndarray:
    """Weights along one side of a tile, (tile,) float32: 1 inside, falling over the overlap."""
    weights = np.ones(tile, np.float32)
    if overlap:
        rising = ((np.arange(overlap) + 0.5) / overlap).astype(np.float32)
        weights[:overlap] = np.minimum(weights[:overlap], rising)
        weights[-overlap:] = np.minimum(weights[-overlap:], rising[::-1])
    return weights


class Blender:
    """Sums the tiles of a scene row by row; holds the rows of one row of tiles.

    Args:
        grid: Grid of the tiles.
        channels: K of a result.
    """

    def __init__(self, grid: Grid, channels: int) -> None:
        """Reserves one row of tiles."""
        self.grid = grid
        side, stride = grid.tile // grid.stride, grid.stride
        self.side, self.step = side, grid.step // stride
        self.width = (grid.columns - 1) * self.step + side
        line = ramp(side, grid.overlap // stride)
        self._across = _sums(line, grid.columns, self.step)  # (width,)
        self._along = _sums(line, grid.rows, self.step)
        shape = (channels, side, self.width)
        self._file = None
        if 4 * int(np.prod(shape)) > _IN_MEMORY:
            self._file = tempfile.TemporaryFile()
            self._sum: np.ndarray = np.memmap(self._file, np.float32, "w+", shape=shape)
        else:
            self._sum = np.zeros(shape, np.float32)

    def add(self, column: int, result: np.ndarray) -> None:
        """Adds a tile's result, (K, side, side) float32, already times the weights."""
        start = column * self.step
        self._sum[:, :, start : start + self.side] += result

    def finish(self, row: int) -> np.ndarray:
        """Blended cells that no later row of tiles touches, (K, rows, columns).

        A view that `advance` overwrites, so that a wide scene has one buffer and no second.
        """
        first, last = self.grid.band(row)
        count, columns = last - first, self.grid.cells[1]
        done = self._sum[:, :count, :columns]
        weights = self._along[first:last, None] * self._across[None, :columns]
        for channel in done:
            channel /= weights
        return done

    def advance(self) -> None:
        """Moves on to the next row of tiles."""
        left = self.side - self.step
        for channel in self._sum:
            channel[:left] = channel[self.step :].copy()
            channel[left:] = 0


def _sums(line: np.ndarray, count: int, step: int) -> np.ndarray:
    """Sum of the weights of `count` tiles along an axis."""
    total = np.zeros((count - 1) * step + len(line), np.float32)
    for i in range(count):
        total[i * step : i * step + len(line)] += line
    return total
