"""How features lie: alignment, uniformity (Wang and Isola, ICML 2020) and effective rank.

Pure functions of features; nothing is learned.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance between the unit features of two views of each image.

    Wang and Isola, arXiv 2005.10242, with exponent 2: 0 where views agree, 4 at most, 2 for
    unrelated ones.

    Args:
        first: (N, D) features, any scale.
        second: (N, D) of the same images.
    """
    a, b = F.normalize(first.double(), dim=1), F.normalize(second.double(), dim=1)
    return float((a - b).square().sum(1).mean())


def uniformity(features: Tensor) -> float:
    """Logarithm of the mean Gaussian potential of pairs of unit features.

    Wang and Isola, arXiv 2005.10242, with t = 2: 0 where all are one point; the more negative, the
    more evenly they cover the sphere (about -4).

    Args:
        features: (N, D) of different images, N at least 2, any scale.
    """
    x = F.normalize(features.double(), dim=1)
    return float(torch.pdist(x).square().mul(-2).exp().mean().log())


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values of the centred unit features.

    Roy and Vetterli, EUSIPCO 2007: from 1 to min(N - 1, D), the dimensions that are really used.
    The same number as the training log's meter.

    Args:
        features: (N, D), any scale.
    """
    x = F.normalize(features.double(), dim=1)
    values = torch.linalg.svdvals(x - x.mean(0))
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(shares).sum().exp())
