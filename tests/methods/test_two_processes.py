"""Every method sees the global batch: two processes equal one."""

from __future__ import annotations

import copy

import pytest
import torch

from rs_models.export import export
from tests.methods.test_methods import ALL_PAIRS, make, views_of
from tests.support.models import nano, provenance
from tests.support.two_processes import joined, run_two, split_views, step


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [p for p in ALL_PAIRS if p[1] != "swin_nano"])
def test_two_processes_with_b_equal_one_with_2b(name, backbone, tmp_path):
    two_equal_one(make(name, backbone).eval(), tmp_path)


@pytest.mark.slow
def test_two_processes_learn_as_one_from_a_teacher(tmp_path):
    """Its features are standardised over the images of both."""
    teacher = nano("vit_nano", image_size=32)
    export(teacher, tmp_path / "t", provenance=provenance(teacher, train_size=32), timm=False)
    two_equal_one(make("tov", "vit_nano", teachers=[str(tmp_path / "t")]).eval(), tmp_path)


def two_equal_one(model, tmp_path):
    """Compares a step of two processes with that of one: loss, terms, gradients, buffers."""
    model.save_pretrained(tmp_path / "model")
    views = split_views(views_of(model, images=8), 8)
    torch.save(views, tmp_path / "views.pt")
    whole = copy.deepcopy(model)
    whole.freeze()
    one = step(whole, joined(views))
    two = run_two(tmp_path / "views.pt")
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-5, atol=1e-6)
    assert two["terms"].keys() == one["terms"].keys()
    for key, value in one["terms"].items():
        torch.testing.assert_close(two["terms"][key], value, rtol=1e-5, atol=1e-6, msg=key)
    assert two["grads"].keys() == one["grads"].keys()
    for key, grad in one["grads"].items():
        torch.testing.assert_close(two["grads"][key], grad, rtol=1e-4, atol=1e-6, msg=key)
    assert two["buffers"].keys() == one["buffers"].keys()
    for key, value in one["buffers"].items():  # queue and pointer, centres
        torch.testing.assert_close(two["buffers"][key], value, rtol=1e-5, atol=1e-6, msg=key)
