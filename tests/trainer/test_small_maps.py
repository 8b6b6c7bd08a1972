"""Convolutions over small maps: the library's numbers, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rs_models import backbones
from rs_models.trainer import pretrain, small_maps, stage
from rs_models.trainer.small_maps import SmallMapConv2d, SmallMapConvolution, spans, use_small_maps
from tests.trainer.helpers import tiny


def layers(dtype, stride, width=128):
    """The library's layer and one of ours with the same weights."""
    torch.manual_seed(0)
    plain = nn.Conv2d(width, 24, 3, stride=stride, padding=1, bias=False).to(dtype)
    ours = copy.deepcopy(plain)
    assert use_small_maps(ours) == 1
    return plain, ours


def outcome(layer, x):
    """Output and gradients of maps and weights, in float32."""
    x = x.clone().requires_grad_()
    output = layer(x)
    torch.manual_seed(1)
    output.backward(torch.randn(output.shape).to(output.dtype))
    return [t.float() for t in (output, x.grad, layer.weight.grad)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 3), (3, 3), (4, 4), (5, 4), (6, 6), (7, 3)])
def test_the_numbers_are_the_librarys(monkeypatch, size, stride):
    monkeypatch.setattr(small_maps, "_LARGEST_SIDE", dict.fromkeys(small_maps._LARGEST_SIDE, 9))
    monkeypatch.setattr(small_maps, "_LARGEST_SIDE_STRIDED", 9)
    plain, ours = layers(torch.float64, stride)
    x = torch.randn(3, 128, *size, dtype=torch.float64)
    for wanted, got in zip(outcome(plain, x), outcome(ours, x), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_rounding_is_that_of_the_type(dtype, error, stride):
    plain, ours = layers(dtype, stride)
    x = torch.randn(8, 128, 2 * stride, 2 * stride).to(dtype)
    exact = outcome(plain.double(), x.double())
    for wanted, got in zip(exact, outcome(ours, x), strict=True):
        assert (got - wanted).norm() < error * wanted.norm()


def test_gradients_are_those_of_the_function():
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    for stride in (1, 2):
        assert torch.autograd.gradcheck(
            lambda x, w, stride=stride: SmallMapConvolution.apply(x, w, stride, 1), (x, weight)
        )


def test_taps_that_only_meet_padding_are_left_out():
    def products(size):
        return sum((o.stop - o.start) * (t.stop - t.start) for o, t, _ in spans(size, 3, 1, 1)) ** 2

    assert [products(size) for size in (1, 2, 3, 4)] == [1, 16, 49, 100]  # of 9, 36, 81, 144


def test_autocast_computes_in_its_type_and_keeps_float32_gradients():
    plain, ours = layers(torch.float32, 1)
    x = torch.randn(4, 128, 2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted, got = plain(x), ours(x)
    assert got.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted.float(), rtol=0.02, atol=0.02)
    got.float().sum().backward()
    assert ours.weight.grad.dtype == x.grad.dtype == torch.float32


def test_large_maps_and_evaluation_take_the_librarys_way(monkeypatch):
    plain, ours = layers(torch.float32, 1)

    def refuse(*_):
        raise AssertionError("called")

    monkeypatch.setattr(SmallMapConvolution, "apply", refuse)
    large, small = torch.randn(2, 128, 9, 9), torch.randn(2, 128, 2, 2)
    torch.testing.assert_close(ours(large), plain(large), rtol=0, atol=0)
    torch.testing.assert_close(ours.eval()(small), plain(small), rtol=0, atol=0)
    with pytest.raises(AssertionError, match="called"):
        ours.train()(small)


def test_only_fitting_layers_are_replaced_and_the_state_dict_stays():
    network = backbones.build("resnet18", image_size=64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert use_small_maps(network) == 11  # of 3x3 with 128 channels or more in
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    others = nn.Sequential(
        nn.Conv2d(128, 8, 1),
        nn.Conv2d(128, 8, 3),
        nn.Conv2d(128, 8, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, groups=128, bias=False),
        nn.Conv2d(128, 8, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(64, 8, 3, padding=1, bias=False),
    )
    assert use_small_maps(others) == 0


def test_a_network_learns_the_same():
    torch.manual_seed(0)
    plain = backbones.build("resnet18", image_size=64).train()
    ours = copy.deepcopy(plain)
    use_small_maps(ours)
    x = torch.randn(4, 3, 64, 64)
    for model in (plain, ours):
        F.mse_loss(model(x).pooler_output, torch.ones(4, 512, 1, 1)).backward()
    for (name, wanted), got in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert (got.grad - wanted.grad).norm() <= 1e-3 * wanted.grad.norm() + 1e-7, name


@pytest.mark.parametrize("small", [True, False])
def test_the_setting_decides_and_the_export_is_plain(tmp_path, monkeypatch, small):
    chosen = []
    monkeypatch.setattr(
        stage, "use_small_maps", lambda network: chosen.append(use_small_maps(network))
    )
    export = pretrain(tiny(tmp_path / "out", small_maps=small, max_steps=1))
    assert len(chosen) == small
    assert not any(isinstance(m, SmallMapConv2d) for m in backbones.load(str(export)).modules())
