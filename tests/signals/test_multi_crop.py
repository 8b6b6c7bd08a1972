"""NT-Xent over many crops: arithmetic by loops, and two views are the losses of two views."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rs_models.signals.losses import (
    false_negative_nt_xent,
    nt_xent,
    suspected_false_negatives,
)
from rs_models.signals.multi_crop import multi_crop_nt_xent

IMAGES, DIM = 5, 7


def embeddings(views: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(views)
    return torch.randn(views * IMAGES, DIM, generator=generator)


def by_loops(z, views, temperature, suspects=None, confidence=1.0):
    """The mean over every view, every other global view and every image, one at a time."""
    unit = F.normalize(z, dim=1).unflatten(0, (views, IMAGES))
    terms = []
    for g in range(2):
        for v in set(range(views)) - {g}:
            for i in range(IMAGES):
                weight = {
                    (w, j): torch.exp(unit[v, i] @ unit[w, j] / temperature)
                    for w in range(2)
                    for j in range(IMAGES)
                    if j != i or w == g
                }
                believed = sum(
                    confidence * weight[w, j]
                    for w, j in weight
                    if suspects is not None and suspects[(1 - g) * IMAGES + i, w * IMAGES + j]
                )
                terms.append(torch.log(sum(weight.values()) / (weight[g, i] + believed)))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("views", [2, 3, 6])
def test_is_the_mean_over_pairs_with_global_views(views, temperature):
    z = embeddings(views)
    loss = multi_crop_nt_xent(z, views=views, temperature=temperature)
    torch.testing.assert_close(loss, by_loops(z, views, temperature))


@pytest.mark.parametrize("confidence", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("scope", ["batch", "row"])
@pytest.mark.parametrize("views", [2, 4])
def test_suspects_count_as_positives(views, scope, confidence):
    z = embeddings(views)
    z1, z2 = z.chunk(views)[:2]
    suspects = suspected_false_negatives(z1, z2, threshold=-1.0, scope=scope)
    assert suspects.any()
    how = {"suspects": suspects, "confidence": confidence}
    loss = multi_crop_nt_xent(z, views=views, **how)
    torch.testing.assert_close(loss, by_loops(z, views, 0.5, **how))
    if views == 2:
        whole = false_negative_nt_xent(z1, z2, confidence=confidence, threshold=-1.0, scope=scope)
        torch.testing.assert_close(loss, whole)


def test_two_views_are_nt_xent_to_the_bit_and_without_a_shortcut():
    z = embeddings(2)
    wanted = nt_xent(*z.chunk(2), temperature=0.2)
    assert torch.equal(multi_crop_nt_xent(z, views=2, temperature=0.2), wanted)
    nobody = torch.zeros(2 * IMAGES, 2 * IMAGES, dtype=torch.bool)
    loss = multi_crop_nt_xent(z, views=2, temperature=0.2, suspects=nobody)
    torch.testing.assert_close(loss, wanted)


def test_small_crops_are_no_ones_target():
    """Among themselves they may be anything: only their cosines with global views count."""
    z = torch.eye(DIM)[:2].repeat(4, 1)  # two images, orthogonal, every crop equal to its image
    loss = multi_crop_nt_xent(z, views=4, temperature=1.0)
    torch.testing.assert_close(loss, torch.log(torch.tensor(1.0).exp() + 2) - 1)


def test_every_view_learns_and_a_small_temperature_stays_finite():
    z = embeddings(4).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = multi_crop_nt_xent(z, views=4, temperature=0.02)
    loss.backward()
    assert loss.dtype == torch.float32
    assert z.grad.isfinite().all()
    assert z.grad.any(dim=1).all()


@pytest.mark.parametrize(("rows", "views"), [(7, 3), (4, 1)])
def test_refuses_what_are_not_so_many_views(rows, views):
    with pytest.raises(ValueError, match="V="):
        multi_crop_nt_xent(torch.zeros(rows, DIM), views=views)
