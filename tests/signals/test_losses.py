"""NT-Xent against the authors' numbers and against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models.signals.losses import nt_xent


@pytest.fixture(scope="module")
def vectors(golden):
    return np.load(golden / "ntxent.npz")


@pytest.mark.parametrize("temperature", ["0.5", "0.2", "1.0", "0.07"])
@pytest.mark.parametrize(("name", "with_positive"), [("standard", True), ("glcnet", False)])
def test_equals_the_authors_values(vectors, temperature, name, with_positive):
    z1, z2 = torch.from_numpy(vectors["zi"]), torch.from_numpy(vectors["zj"])
    loss = nt_xent(z1, z2, temperature=float(temperature), positive_in_denominator=with_positive)
    key = f"{name}_loss_tau{temperature}" + ("_cos1" if name == "glcnet" else "")
    np.testing.assert_allclose(loss.item(), vectors[key], rtol=1e-5)


@pytest.mark.parametrize(("name", "with_positive"), [("standard", True), ("glcnet", False)])
def test_gradients_equal_the_authors(vectors, name, with_positive):
    z1 = torch.from_numpy(vectors["zi"]).requires_grad_()
    z2 = torch.from_numpy(vectors["zj"]).requires_grad_()
    nt_xent(z1, z2, temperature=0.5, positive_in_denominator=with_positive).backward()
    for z, view in ((z1, "zi"), (z2, "zj")):
        expected = vectors[f"{name}_grad_{view}_tau0.5"]
        np.testing.assert_allclose(z.grad.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_scale_of_the_embeddings_does_not_matter():
    z1, z2 = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nt_xent(z1, z2), nt_xent(3 * z1, 0.1 * z2))


def test_equal_views_that_differ_between_images_reach_the_lower_bound():
    z = torch.eye(4)
    # cos 1 with the partner, 0 with the other six: log(e^2 + 6) - 2 at temperature 0.5.
    torch.testing.assert_close(nt_xent(z, z), torch.tensor(np.log(np.exp(2) + 6) - 2).float())


def test_stays_finite_in_bfloat16_at_a_small_temperature():
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1))
    z1 = z1.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z1, z2.bfloat16(), temperature=0.02)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(z1.grad).all()


def test_refuses_views_of_different_shape():
    with pytest.raises(ValueError, match=r"\(3, 8\) and \(4, 8\)"):
        nt_xent(torch.zeros(3, 8), torch.zeros(4, 8))
