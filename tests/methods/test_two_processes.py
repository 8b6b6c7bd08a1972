"""A contrastive loss sees the global batch: two processes equal one."""

from __future__ import annotations

import pytest
import torch

from rs_models.methods import METHODS
from rs_models.signals.views import ViewBatch
from tests.methods.test_methods import make, views_of
from tests.support.two_processes import run_two


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet_nano", "vit_nano"])
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_with_b_equal_one_with_2b(name, backbone, tmp_path):
    model = make(name, backbone).eval()
    model.save_pretrained(tmp_path / "model")
    crops = views_of(model, images=8).crops[0]  # (2*8, C, H, W)
    torch.save(crops.unflatten(0, (2, 8)).contiguous(), tmp_path / "views.pt")
    loss = model(ViewBatch(crops=[crops])).loss
    loss.backward()
    two = run_two(tmp_path / "views.pt")
    torch.testing.assert_close(two["loss"], loss.detach(), rtol=1e-5, atol=1e-6)
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert two["grads"].keys() == expected.keys()
    for key, grad in expected.items():
        torch.testing.assert_close(two["grads"][key], grad, rtol=1e-4, atol=1e-6, msg=key)
