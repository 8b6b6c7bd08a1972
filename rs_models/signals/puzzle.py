"""Relative position as a puzzle: cells of a view in one of several orders, to be told apart.

Noroozi & Favaro, 2016, arXiv 1603.09246; the 2020 paradigm for scene classification uses 2 x 2 and
3 x 3 cells. Its tables of orders may not be shared; these are our own, from a group.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError


@functools.cache
def permutation_table(grid: int, count: int) -> Tensor:
    """Orders of the cells of a puzzle that differ in many places.

    2 x 2: all 24, which differ in at least two places. 3 x 3: the symmetries of the projective line
    over the field of 8 elements. The 504 maps x -> (ax + b) / (cx + d) agree in at most two of the
    nine points unless they are equal, so they differ in seven; with the field's three
    automorphisms there are 1512, which differ in six. The published tables differ in two.

    Args:
        grid: Cells a side, 2 or 3.
        count: Number of orders, from 2 to 24 or 1512; the first is the right order.

    Returns:
        (count, grid * grid) int64: `table[k, place]` is the cell that order k puts at a place.

    Raises:
        UserError: Another grid or too many orders.
    """
    limits = {2: 24, 3: 1512}
    if grid not in limits:
        raise UserError(f"A puzzle of {grid} x {grid} cells is not offered: use 2 or 3.")
    if not 2 <= count <= limits[grid]:
        raise UserError(
            f"{grid} x {grid} cells have 2 to {limits[grid]} orders to tell apart, not {count}."
        )
    if grid == 2:
        orders = _mixed(list(itertools.permutations(range(4))))
    else:
        orders = _projective_line()
    return torch.tensor(orders[:count])


def _mixed(orders: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The right order first, the others mixed, so that the first few of them are of all kinds."""
    right_order = tuple(range(len(orders[0])))
    others = [order for order in orders if order != right_order]
    # RandomState: its stream is frozen, so the table is the same with every numpy.
    mixed = [others[i] for i in np.random.RandomState(0).permutation(len(others))]
    return [right_order, *mixed] if right_order in orders else mixed


def _projective_line() -> list[tuple[int, ...]]:
    """The 1512 semilinear maps of the projective line over GF(8) on its points 0 to 7 and 8."""
    infinity = 8
    # GF(8) as polynomials over GF(2) modulo x^3 + x + 1, one bit a coefficient.
    product = [[_times(a, b) for b in range(8)] for a in range(8)]
    inverse = {a: next(b for b in range(8) if product[a][b] == 1) for a in range(1, 8)}

    def divide(a: int, b: int) -> int:
        return infinity if b == 0 else product[a][inverse[b]]

    # (a, b, c, d) and its multiples are the same map: the second row starts with a 1 or is (0, 1).
    rows = [(1, d) for d in range(8)] + [(0, 1)]
    orders = []
    raised = list(range(8))  # x, then x^2, then x^4: the field's automorphisms
    for _ in range(3):
        for (c, d), a, b in itertools.product(rows, range(8), range(8)):
            if product[a][d] != product[b][c]:  # else it has no inverse
                line = [divide(product[a][x] ^ b, product[c][x] ^ d) for x in raised]
                orders.append((*line, divide(a, c)))
        raised = [product[x][x] for x in raised]
    linear = len(orders) // 3  # the first automorphism's orders, which differ most
    return _mixed(orders[:linear]) + _mixed(orders[linear:])


def _times(a: int, b: int) -> int:
    """Product in GF(8)."""
    total = 0
    for bit in range(3):
        if b >> bit & 1:
            total ^= a << bit
    for bit in (4, 3):
        if total >> bit & 1:
            total ^= 0b1011 << (bit - 3)
    return total


def cell_size(size: int, grid: int, margin: float) -> int:
    """Side in pixels of what is shown of a cell of a view of `size` pixels."""
    side = size // grid
    return max(1, side - round(side * margin))


def cut(view: Tensor, grid: int, margin: float, table: Tensor, draws: Tensor) -> tuple[Tensor, ...]:
    """Cuts views into cells, crops each at random and puts them in a random order.

    Args:
        view: (B, C, S, S) views; a remainder of S / grid pixels is left out.
        grid: Cells a side.
        margin: Share of a cell's side that its crop leaves out.
        table: (K, grid * grid) orders of `permutation_table`.
        draws: (B, 1 + 2 * grid * grid) uniform numbers on the CPU: the order, then the places of
            the crops.

    Returns:
        `cells` (grid * grid * B, C, s, s), place-major, and `targets` (B,) int64, the row of the
        table that each sample was put in.
    """
    batch, _, size, _ = view.shape
    cells = grid * grid
    side, kept = size // grid, cell_size(size, grid, margin)
    targets = (draws[:, 0] * len(table)).long()  # (B,)
    shown = table[targets]  # (B, cells): which cell stands at each place
    offset = (draws[:, 1:].view(batch, cells, 2) * (side - kept + 1)).long()  # (B, cells, 2)
    corner = torch.stack([shown // grid, shown % grid], dim=2) * side + offset
    # One gather for all cells: rows (B, cells, s, 1) and columns (B, cells, 1, s).
    place = corner[..., None] + torch.arange(kept)  # (B, cells, 2, s)
    place = place.to(view.device, non_blocking=True)
    sample = torch.arange(batch, device=view.device).view(batch, 1, 1, 1)
    rows, columns = place[:, :, 0, :, None], place[:, :, 1, None, :]
    pixels = view.permute(0, 2, 3, 1)[sample, rows, columns]  # (B, cells, s, s, C)
    pixels = pixels.transpose(0, 1).flatten(0, 1).permute(0, 3, 1, 2)  # channels-last in memory
    return pixels, targets.to(view.device, non_blocking=True)
