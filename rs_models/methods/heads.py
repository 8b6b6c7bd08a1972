"""Heads between the backbone's features and a loss."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def mlp(*sizes: int, relu: bool = True) -> nn.Sequential:
    """Linear layers with biases, ReLU between them unless `relu` is false: (B, in) -> (B, out)."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        if i and relu:
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Linear(inner, outer))
    return nn.Sequential(*layers)


class DinoHead(nn.Module):
    """DINO's head (Caron et al., 2021, arXiv 2104.14294): (B, in_dim) -> (B, out_dim).

    Three linear layers with GELU, unit length, then a linear layer of unit rows: DINO's weight
    normalisation with its gain fixed at 1, so the outputs are cosines.

    Args:
        in_dim: Width of the backbone's features.
        out_dim: Number of prototypes K.
        hidden_dim: Width of the two hidden layers.
        bottleneck_dim: Width before the prototypes.
    """

    def __init__(
        self, in_dim: int, out_dim: int, hidden_dim: int = 2048, bottleneck_dim: int = 256
    ) -> None:
        """Builds the layers."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        self.last_layer = nn.Linear(bottleneck_dim, out_dim, bias=False)
        # Read by SslModel._init_weights: DINO starts the three layers with normal(0, 0.02), cut at
        # two units. The last one keeps torch's default, of which only the direction counts.
        for layer in self.mlp:
            layer.init_std = 0.02  # type: ignore[assignment]  # nn.Module types its attributes

    def forward(self, x: Tensor) -> Tensor:
        """Cosines with the prototypes, (B, in_dim) -> (B, out_dim)."""
        x = F.normalize(self.mlp(x).float(), dim=-1)  # (B, bottleneck_dim)
        weight = F.normalize(self.last_layer.weight, dim=1)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight)
