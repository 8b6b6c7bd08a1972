"""What is decayed, and how the rate moves."""

from __future__ import annotations

import pytest
import torch

from rs_models.settings import build
from rs_models.trainer.config import OptimizerSettings
from rs_models.trainer.optim import build_optimizer, build_schedule


@pytest.fixture
def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_only_matrices_are_decayed_and_the_rate_follows_the_batch(net, name):
    settings = build(OptimizerSettings, {"name": name, "lr": 0.1, "weight_decay": 0.3})
    optimizer = build_optimizer(net, settings, batch_size=512)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay[id(net[0].weight)] == 0.3
    assert {decay[id(p)] for p in (net[0].bias, net[1].weight, net[1].bias)} == {0.0}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_frozen_weights_are_left_out(net):
    net[0].weight.requires_grad_(False)
    optimizer = build_optimizer(net, OptimizerSettings(), batch_size=256)
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert id(net[0].weight) not in held


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine(net):
    settings = build(OptimizerSettings, {"lr": 1.0, "scale_lr": False, "final_lr_ratio": 0.1})
    optimizer = build_optimizer(net, settings, batch_size=256)
    schedule = build_schedule(optimizer, settings, steps=20, warmup_steps=4)
    rates = []
    for _ in range(21):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert rates[12] == pytest.approx(0.55)  # half way down: the mean of 1 and 0.1
    assert rates[20] == pytest.approx(0.1)
