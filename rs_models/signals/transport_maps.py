"""Two fast maps from the colours of images onto those of scenes, a whole batch on its device.

`gaussian` is optimal between normal distributions, `sliced` follows the whole distribution; see
`transport.transfer_batch`, which calls them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Variance of an error uniform within half a level: what rounding to integers hides, and the least
# that a colour distribution is taken to have.
_ROUNDING_VARIANCE = 1 / 12
# Directions in which a colour distribution is thinner than a hundredth of the images' contrast are
# noise; stretching them to the scene's width would show it. It also bounds the condition number.
_RELATIVE_VARIANCE = 1e-4
# A step of Newton-Schulz makes the smallest eigenvalue 2.25 times larger while it is far from 1, so
# 32 of them reach eigenvalues of 1e-9 with a few to spare for the quadratic end.
_ROOT_STEPS = 32
# Colours this close, in stored units, are one colour to the sliced solver.
_SAME_COLOUR = 0.5
_TABLE = 1024


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """(B, C, N) colours with the mean and covariance of (B, C, M) colours, moved least."""
    mean_x, covariance_x = _moments(x)
    mean_y, covariance_y = _moments(y)
    bands = x.shape[1]
    variance = (covariance_x + covariance_y).diagonal(dim1=1, dim2=2).mean(1) / 2  # (B,)
    ridge = _ROUNDING_VARIANCE + _RELATIVE_VARIANCE * variance
    # The same for both, so that equal images give the identity.
    ridge = ridge.view(-1, 1, 1) * torch.eye(bands, dtype=ridge.dtype, device=ridge.device)
    # With L L' = cov(x), the map L'^-1 (L' cov(y) L)^1/2 L^-1 is symmetric, positive and takes
    # cov(x) to cov(y): the Monge map. The checks of `cholesky` and `eigh` would wait for the
    # device, hence `cholesky_ex` and a root by matrix products.
    lower = torch.linalg.cholesky_ex(covariance_x + ridge).L  # (B, C, C)
    root = _matrix_root(lower.mT @ (covariance_y + ridge) @ lower)
    half = torch.linalg.solve_triangular(lower.mT, root, upper=True)
    matrix = torch.linalg.solve_triangular(lower, half, upper=False, left=False)  # (B, C, C)
    shift = mean_y - matrix @ mean_x  # (B, C, 1)
    return torch.baddbmm(shift.float(), matrix.float(), x)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, 1) and covariance (B, C, C) of (B, C, N) colours, float64."""
    mean = x.mean(2, keepdim=True)
    centred = x - mean
    return mean.double(), (centred @ centred.mT).double() / x.shape[2]


def _matrix_root(matrix: Tensor) -> Tensor:
    """Square roots of (B, C, C) positive definite matrices by the coupled Newton-Schulz iteration.

    Source: Higham, "Functions of Matrices", SIAM 2008, chapter 6. It needs eigenvalues in (0, 1],
    which dividing by the trace gives.
    """
    trace = matrix.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)
    eye = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    root, inverse = matrix / trace, eye.expand_as(matrix)
    for _ in range(_ROOT_STEPS):
        step = 1.5 * eye - 0.5 * inverse @ root
        root, inverse = root @ step, step @ inverse
    return root * trace.sqrt()


def rotations(num_steps: int, bands: int, seed: int) -> Tensor:
    """(num_steps, C, C) random orthonormal matrices, the first one the bands themselves."""
    random = np.random.default_rng(seed)
    drawn, _ = np.linalg.qr(random.normal(size=(num_steps, bands, bands)))
    drawn[:1] = np.eye(bands)
    return torch.from_numpy(drawn).float()


def sliced(
    x: Tensor, y: Tensor, positions: tuple[np.ndarray, np.ndarray], rotations: Tensor
) -> Tensor:
    """(B, C, N) colours moved, axis by axis of each rotation, onto (B, C, M) colours."""
    # A few kilobytes from the host, without waiting.
    at_x, at_y = (torch.from_numpy(p).to(x.device, non_blocking=True) for p in positions)
    rotations = rotations.to(x.device, non_blocking=True)
    y = y[:, :, at_y]  # (B, C, n)
    for rotation in rotations:
        turned = rotation @ x  # (B, C, N)
        knots = turned[:, :, at_x].sort(2).values  # (B, C, n)
        goals = (rotation @ y).sort(2).values  # (B, C, n)
        turned = turned + _tabulated(turned, knots, _merged(knots, goals) - knots)
        x = rotation.mT @ turned
    return x


def _merged(knots: Tensor, goals: Tensor) -> Tensor:
    """(B, C, n) goals, averaged over the knots that are one colour (which must move as one)."""
    first = torch.searchsorted(knots, knots - _SAME_COLOUR)
    last = torch.searchsorted(knots, knots + _SAME_COLOUR, right=True)
    sums = F.pad(goals.double().cumsum(2), (1, 0))  # (B, C, n + 1)
    return ((sums.gather(2, last) - sums.gather(2, first)) / (last - first)).float()


def _tabulated(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """`_interpolate` at (B, C, N) places by way of a table, since N is far more than the knots.

    Looking a place up in a table of equal steps is six times as fast as searching the knots (on a
    CPU), and 1,024 steps (under half a level of uint8) cost no accuracy that can be measured.
    """
    low, high = knots[:, :, :1], knots[:, :, -1:]
    step = ((high - low) / (_TABLE - 1)).clamp_min(1e-6)
    nodes = low + step * torch.arange(_TABLE, device=at.device)  # (B, C, _TABLE)
    table = _interpolate(nodes, knots, values)
    place = ((at - low) / step).clamp_(0, _TABLE - 1)
    left = place.long().clamp_(max=_TABLE - 2)
    return torch.lerp(table.gather(2, left), table.gather(2, left + 1), place - left)


def _interpolate(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear values at places `at` (B, C, G), constant beyond the sorted knots."""
    right = torch.searchsorted(knots, at).clamp_(max=knots.shape[2] - 1)
    left = (right - 1).clamp_(min=0)
    start, end = knots.gather(2, left), knots.gather(2, right)
    weight = ((at - start) / (end - start).clamp_min(1e-6)).clamp_(0, 1)
    return torch.lerp(values.gather(2, left), values.gather(2, right), weight)
