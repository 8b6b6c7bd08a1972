"""Tiles cover a scene, and what agrees is blended into what it agrees on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rs_models.errors import UserError
from rs_models.predict.tiles import Blender, Grid, ramp


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap", "stride"),
    [
        (100, 70, 32, 8, 1),
        (33, 32, 32, 16, 1),
        (5, 7, 32, 8, 1),
        (97, 130, 32, 8, 8),
        (64, 64, 32, 0, 1),
    ],
)
def test_constant_tiles_blend_into_the_constant_everywhere(height, width, tile, overlap, stride):
    grid = Grid(height, width, tile, overlap, stride)
    blender = Blender(grid, 2)
    value = np.asarray([0.3, 0.7], np.float32)
    rows = []
    for row in range(grid.rows):
        for column in range(grid.columns):
            blender.add(column, value[:, None, None] * grid.weights())
        rows.append(blender.finish(row).copy())
        blender.advance()
    whole = np.concatenate(rows, axis=1)
    assert whole.shape == (2, *grid.cells)
    np.testing.assert_allclose(whole[0], 0.3, rtol=1e-6)
    np.testing.assert_allclose(whole[1], 0.7, rtol=1e-6)


def test_no_cell_is_missed_and_no_tile_too_many():
    for height in range(1, 140):
        grid = Grid(height, 10, 32, 8)
        assert (grid.rows - 1) * grid.step + grid.tile >= height
        assert grid.rows == 1 or (grid.rows - 2) * grid.step + grid.tile < height
        bands = [grid.band(row) for row in range(grid.rows)]
        assert bands[0][0] == 0 and bands[-1][1] == height
        assert all(before[1] == after[0] for before, after in pairwise(bands))


def test_weights_fall_towards_the_border_and_neighbours_add_up_to_one():
    line = ramp(16, 4)
    assert (np.diff(line[:4]) > 0).all() and (line[4:12] == 1).all() and (line > 0).all()
    np.testing.assert_allclose(line[-4:] + line[:4], 1)


@pytest.mark.parametrize(
    ("tile", "overlap", "stride", "message"),
    [
        (30, 8, 8, "tile is 30"),
        (32, 17, 1, "overlap is 17"),
        (32, 4, 8, "overlap is 4"),
        (32, -1, 1, "from 0"),
    ],
)
def test_grids_that_cannot_be_blended_are_refused(tile, overlap, stride, message):
    with pytest.raises(UserError, match=message):
        Grid(100, 100, tile, overlap, stride)


def test_a_large_buffer_lies_in_a_file(monkeypatch):
    monkeypatch.setattr("rs_models.predict.tiles._IN_MEMORY", 0)
    grid = Grid(40, 40, 32, 8)
    blender = Blender(grid, 1)
    assert isinstance(blender._sum, np.memmap)
    for column in range(grid.columns):
        blender.add(column, grid.weights()[None])
    np.testing.assert_allclose(blender.finish(0), 1, rtol=1e-6)
