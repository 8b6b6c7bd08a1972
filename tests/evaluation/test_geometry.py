"""How features lie."""

from __future__ import annotations

import math

import pytest
import torch

from rs_models.evaluation.geometry import alignment, effective_rank, uniformity
from rs_models.methods.base import collapse_meters


def test_alignment_is_the_squared_distance_of_unit_vectors():
    a = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert alignment(a, 7 * a) == pytest.approx(0.0)
    assert alignment(a, -a) == pytest.approx(4.0)
    assert alignment(a, a.flip(0)) == pytest.approx(2.0)


def test_uniformity_is_lower_the_more_of_the_sphere_is_used():
    one = torch.ones(50, 8)
    spread = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert uniformity(one) == pytest.approx(0.0, abs=1e-6)
    assert uniformity(spread) < -2
    # Two opposite points: distance squared 4, so log(exp(-8)).
    assert uniformity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8.0)


def test_effective_rank_counts_the_dimensions_that_are_used():
    x = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(x) == pytest.approx(5.0)
    assert effective_rank(x * torch.arange(1.0, 11.0)[:, None]) == pytest.approx(5.0)
    line = torch.tensor([-1.0, 1.0]).repeat(5)[:, None] * torch.ones(1, 6)
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-6)
    assert math.isfinite(effective_rank(torch.ones(4, 3)))


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_effective_rank_is_that_of_the_training_log(shape):
    x = 5 + torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert effective_rank(x) == pytest.approx(collapse_meters(x)["effective_rank"], rel=1e-4)
