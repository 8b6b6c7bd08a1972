"""Heads between the backbone's features and a loss."""

from __future__ import annotations

from torch import nn


def projector(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Module:
    """SimCLR's two-layer projector: (B, in_dim) -> (B, out_dim).

    Linear without bias, BatchNorm, ReLU, Linear.
    """
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, out_dim),
    )
