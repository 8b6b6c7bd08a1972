"""Puzzles: orders that differ in many places, and cells that are cut and laid as the order says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rs_models.errors import UserError
from rs_models.signals.puzzle import cut, permutation_table


def distances(table: torch.Tensor) -> torch.Tensor:
    """(K, K) number of places in which two orders differ, the diagonal a large number."""
    different = torch.zeros(len(table), len(table), dtype=torch.int64)
    for column in table.unbind(1):
        different += column[:, None] != column
    return different.fill_diagonal_(99)


@pytest.mark.parametrize(
    ("grid", "count", "least"),
    [(2, 24, 2), (2, 5, 2), (3, 2, 7), (3, 504, 7), (3, 505, 6), (3, 1000, 6), (3, 1512, 6)],
)
def test_orders_differ_in_many_places(grid, count, least):
    table = permutation_table(grid, count)
    assert table.shape == (count, grid * grid) and table.dtype == torch.int64
    assert (table.sort(1).values == torch.arange(grid * grid)).all()  # every cell once
    assert torch.equal(table[0], torch.arange(grid * grid))  # the right order comes first
    assert len(table.unique(dim=0)) == count
    away = distances(table)
    assert away.min() >= least
    assert away.min() == least or count < 100
    if count < 1512 and grid == 3:
        assert torch.equal(table, permutation_table(3, 1512)[:count])


def test_whole_tables_put_every_cell_equally_often_at_every_place():
    assert set(map(tuple, permutation_table(2, 24).tolist())) == set(
        itertools.permutations(range(4))
    )
    for grid, count in ((2, 24), (3, 504), (3, 1512)):
        table, cells = permutation_table(grid, count), grid * grid
        for column in table.unbind(1):
            assert (column.bincount(minlength=cells) == count // cells).all()


@pytest.mark.parametrize(
    ("grid", "count", "words"),
    [
        (1, 2, "1 x 1.*use 2 or 3"),
        (4, 24, "4 x 4.*use 2 or 3"),
        (2, 25, "2 to 24.*25"),
        (2, 1, "2 to 24.*not 1"),
        (3, 1513, "2 to 1512.*1513"),
        (3, 0, "not 0"),
    ],
)
def test_other_puzzles_are_refused(grid, count, words):
    with pytest.raises(UserError, match=words):
        permutation_table(grid, count)


def numbered(count: int, size: int) -> torch.Tensor:
    """Views whose three bands are the sample, the row and the column of a pixel."""
    place = torch.arange(size).float()
    sample = torch.arange(count).float().view(-1, 1, 1).expand(-1, size, size)
    rows, columns = place[:, None].expand(size, size), place.expand(size, size)
    views = torch.stack([sample, rows.expand(count, -1, -1), columns.expand(count, -1, -1)], dim=1)
    return views.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("grid", "size", "margin", "side", "kept"),
    [
        (2, 150, 11 / 75, 75, 64),  # the published sizes
        (3, 225, 11 / 75, 75, 64),
        (3, 50, 0.25, 16, 12),  # two pixels are left over
        (2, 9, 0.0, 4, 4),
        (3, 3, 0.5, 1, 1),
        (2, 6, 0.99, 3, 1),
    ],
)
def test_cells_are_whole_crops_of_the_cells_that_the_order_names(grid, size, margin, side, kept):
    count, cells = 40, grid * grid
    table = permutation_table(grid, 24)
    draws = torch.rand(count, 1 + 2 * cells, generator=torch.Generator().manual_seed(0))
    pieces, targets = cut(numbered(count, size), grid, margin, table, draws)
    assert pieces.shape == (cells * count, 3, kept, kept)
    assert pieces.is_contiguous(memory_format=torch.channels_last)
    assert targets.shape == (count,) and targets.dtype == torch.int64
    pieces = pieces.unflatten(0, (cells, count))  # place-major
    assert (pieces[:, :, 0] == torch.arange(count).view(1, -1, 1, 1)).all()  # of its own sample
    corner = pieces[:, :, 1:, 0, 0].long()  # (cells, B, 2)
    step = torch.arange(kept)
    assert (pieces[:, :, 1] == (corner[..., 0, None] + step)[..., :, None]).all()
    assert (pieces[:, :, 2] == (corner[..., 1, None] + step)[..., None, :]).all()
    cell, offset = corner // side, corner % side
    assert torch.equal((cell[..., 0] * grid + cell[..., 1]).T, table[targets])
    assert (offset + kept <= side).all()  # no pixel of a neighbouring cell
    if kept < side:
        assert offset.min() == 0 and offset.max() == side - kept  # every place occurs


def test_orders_and_offsets_are_even_and_apart_in_every_cell():
    count, table = 6000, permutation_table(2, 24)
    draws = torch.rand(count, 9, generator=torch.Generator().manual_seed(1))
    pieces, targets = cut(numbered(count, 8), 2, 0.25, table, draws)
    frequency = np.bincount(targets, minlength=24)
    assert np.abs(frequency - count / 24).max() < 4 * (count / 24) ** 0.5  # four standard errors
    offset = (pieces[:, 1:, 0, 0].unflatten(0, (4, count)) % 4).transpose(0, 1).flatten(1)
    assert offset.unique().tolist() == [0, 1]
    assert (offset.mean(0) - 0.5).abs().max() < 4 * 0.5 / count**0.5
    both = torch.cat([offset, targets[:, None].float()], 1)
    assert (torch.corrcoef(both.T) - torch.eye(9)).abs().max() < 0.06


def test_ends_of_the_draw_stay_inside():
    for number in (0.0, 1 - 2**-24):  # the smallest and the largest that torch.rand gives
        pieces, targets = cut(
            numbered(1, 30), 3, 0.2, permutation_table(3, 1512), torch.full((1, 19), number)
        )
        assert targets.item() == (0 if number == 0 else 1511)
        assert pieces.shape == (9, 3, 8, 8)
        assert pieces.min() >= 0 and pieces.max() <= 29


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_cells_keep_the_type_and_are_copies(dtype):
    view = numbered(2, 8).to(dtype)
    draws = torch.rand(2, 9, generator=torch.Generator().manual_seed(2))
    pieces, _ = cut(view, 2, 0.0, permutation_table(2, 24), draws)
    before = pieces.clone()
    view.zero_()
    assert pieces.dtype == dtype and torch.equal(pieces, before)
