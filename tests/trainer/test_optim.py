"""What is decayed, and how the rate moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rs_models import schedules
from rs_models.settings import build
from rs_models.trainer.config import OptimizerSettings
from rs_models.trainer.optim import build_optimizer, rate_at, set_rate, set_weight_decay


@pytest.fixture
def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adamw"])
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


def rates_of(settings, steps: int, warmup_steps: int) -> list[float]:
    """The rate of every optimizer step, and the one after the last."""
    return [
        rate_at(settings, step, batch_size=256, steps=steps, warmup_steps=warmup_steps)
        for step in range(steps + 1)
    ]


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine():
    settings = build(OptimizerSettings, {"lr": 1.0, "scale_lr": False, "final_lr_ratio": 0.1})
    rates = rates_of(settings, 20, 4)
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert rates[12] == pytest.approx(0.55)  # half way down: the mean of 1 and 0.1
    assert rates[20] == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0, 1, 3, 50])
def test_the_cosine_is_transformers_own_to_the_bit(net, warmup):
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    settings = build(OptimizerSettings, {"lr": 0.06, "final_lr_ratio": 0.003})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.06)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, num_warmup_steps=warmup, num_training_steps=101, min_lr_rate=0.003
    )
    for rate in rates_of(settings, 101, warmup):
        assert rate == schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()


def test_a_rate_is_set_for_all_weights(net):
    optimizer = build_optimizer(net, OptimizerSettings(), batch_size=256)
    set_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize("warmup", [0, 1, 8])
def test_named_schedules_are_those_of_their_methods(warmup):
    settings = {"lr": 0.5, "scale_lr": False, "final_lr_ratio": 0.01}
    rates = rates_of(build(OptimizerSettings, {**settings, "schedule": "dino"}), 20, warmup)
    assert rates == pytest.approx([schedules.dino(0.5, 0.005, s, 20, warmup) for s in range(21)])
    again = build(OptimizerSettings, {**settings, "schedule": "warm_restart"})
    assert rates_of(again, 20, warmup) == pytest.approx(
        [schedules.warm_restart(0.5, 0.005, s / 20, warmup=warmup / 20) for s in range(21)]
    )


def test_the_schedules_of_the_releases(golden):
    dino = {"lr": 1e-3, "scale_lr": False, "final_lr_ratio": 1e-3, "schedule": "dino"}
    stored = np.load(golden / "dino.npz")["lr_schedule_base1e-3_end1e-6_ep5_it4_warm2"]
    rates = rates_of(build(OptimizerSettings, {**dino, "name": "adamw"}), 20, 8)
    assert rates[:20] == pytest.approx(stored, abs=1e-12)
    false = {"lr": 4.8, "scale_lr": False, "final_lr_ratio": 1e-3, "schedule": "warm_restart"}
    points = json.loads((golden / "false_lr_schedule.json").read_text())
    rates = rates_of(build(OptimizerSettings, {**false, "name": "lars"}), 1000, 100)
    for where, rate in zip(points["where"], points["lr"], strict=True):
        step = round(1000 * where)
        if step == pytest.approx(1000 * where):
            assert rates[step] == pytest.approx(rate, abs=1e-9)


def test_adam_adds_the_decay_to_the_gradient_and_adamw_does_not(net):
    """On a gradient of nothing AdamW shrinks by lr * decay; Adam's step has no say in the size."""
    moved = {}
    for name in ("adam", "adamw"):
        settings = build(
            OptimizerSettings, {"name": name, "lr": 0.01, "scale_lr": False, "weight_decay": 0.5}
        )
        linear = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(linear.weight, 4.0)
        bias = linear.bias.detach().clone()
        optimizer = build_optimizer(linear, settings, batch_size=256)
        for parameter in linear.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        moved[name] = 4.0 - linear.weight.detach()
        assert torch.equal(linear.bias, bias)  # one-dimensional: not decayed
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert torch.allclose(moved["adamw"], torch.tensor(4 * 0.01 * 0.5))
    assert torch.allclose(moved["adam"], torch.tensor(0.01))


def test_the_weight_decay_follows_a_cosine_for_matrices_only(net, golden):
    values = {"name": "adamw", "weight_decay": 0.04, "final_weight_decay": 0.4}
    settings = build(OptimizerSettings, values)
    optimizer = build_optimizer(net, settings, batch_size=256)
    decays = []
    for step in range(20):
        set_weight_decay(optimizer, settings, step=step, steps=20)
        matrices, plain = optimizer.param_groups
        decays.append(matrices["weight_decay"])
        assert plain["weight_decay"] == 0.0
    stored = np.load(golden / "dino.npz")["wd_schedule_0.04_0.4_ep5_it4"]
    assert decays == pytest.approx(stored, abs=1e-12)


def test_the_weight_decay_stays_where_no_end_is_set(net):
    settings = build(OptimizerSettings, {"weight_decay": 0.04})
    optimizer = build_optimizer(net, settings, batch_size=256)
    set_weight_decay(optimizer, settings, step=10, steps=20)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.04, 0.0]
