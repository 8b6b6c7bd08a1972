"""Convolutions over maps of a few pixels as plain matrix products, for training on CPU.

The last stage of a ResNet on images of 64 pixels works on maps of 2 x 2: most taps of a 3x3 kernel
meet padding alone, and what the library spends on them takes hours. Here the outputs that see the
same taps are computed together from those taps: 16 products of channels at 2 x 2 where a 3x3
convolution over a padded map has 36, and 49 of 81 at 3 x 3. Only the training forward changes, in
rounding alone: parameters, their names, evaluation and export stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Largest side of the output, in pixels, at which this wins against oneDNN, forward and backward at
# 128 and 256 images, with 1 and 2 threads: (has AMX, bfloat16) -> side at stride 1. At stride 2 it
# wins up to 3 with either. Zen 4 (no AMX), 512 channels, bfloat16, 2 threads and 256 images, ms of
# oneDNN against ours: 51 / 25 at 2 x 2, 82 / 64 at 3 x 3 (1 thread and 128 images: 79 / 78), 113 /
# 120 at 4 x 4; float32 71 / 51, 126 / 141, 222 / 261. Two AMX cores gain up to one pixel more.
_LARGEST_SIDE = {(False, False): 2, (False, True): 2, (True, False): 3, (True, True): 4}
_LARGEST_SIDE_STRIDED = 3

# Outputs, taps of the kernel that meet pixels there, and the pixels that each of these taps reads.
Span = tuple[slice, slice, list[slice]]


@cache
def spans(size: int, kernel: int, stride: int, padding: int) -> list[Span]:
    """The outputs along one side, grouped by the taps that meet pixels and not padding alone.

    Args:
        size: Pixels of the side.
        kernel: Taps along it.
        stride: Pixels from an output to the next.
        padding: Pixels of zeros at either end.
    """
    runs: list[tuple[int, int, int, int]] = []  # first output, last + 1, first tap, last + 1
    for output in range((size + 2 * padding - kernel) // stride + 1):
        first = output * stride - padding
        taps = max(0, -first), min(kernel, size - first)
        if runs and runs[-1][2:] == taps:
            runs[-1] = (runs[-1][0], output + 1, *taps)
        else:
            runs.append((output, output + 1, *taps))
    return [
        (
            slice(a, b),
            slice(low, high),
            [
                slice(a * stride - padding + tap, (b - 1) * stride - padding + tap + 1, stride)
                for tap in range(low, high)
            ],
        )
        for a, b, low, high in runs
    ]


def columns(x: Tensor, rows: list[slice], cols: list[slice]) -> Tensor:
    """What the taps of a group of outputs read: (N, H, W, C) -> (N * outputs, taps * C)."""
    return torch.cat([x[:, row, col] for row in rows for col in cols], dim=3).flatten(0, 2)


class SmallMapConvolution(torch.autograd.Function):
    """`conv2d` of maps (N, H, W, C) with weights (K, kh, kw, C), square stride and padding.

    Computed in the type of the maps; the weights may be wider, and so is their gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """(N, H, W, C) -> (N, h, w, K)."""
        ctx.wide, weight = weight.dtype, weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        tall = spans(x.shape[1], weight.shape[1], stride, padding)
        wide = spans(x.shape[2], weight.shape[2], stride, padding)
        ctx.groups = [(row, col) for row in tall for col in wide]
        output = x.new_empty(len(x), tall[-1][0].stop, wide[-1][0].stop, len(weight))
        for (top, taps, rows), (left, across, cols) in ctx.groups:
            part = output[:, top, left]
            kernel = weight[:, taps, across].flatten(1)  # (K, taps * C)
            part.copy_((columns(x, rows, cols) @ kernel.T).view_as(part))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """(N, h, w, K) -> gradients of the maps and the weights."""
        x, weight = ctx.saved_tensors
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        # Sums over the groups in float32, as over the taps of one product.
        grad_weight = torch.zeros(weight.shape, dtype=torch.promote_types(ctx.wide, torch.float32))
        for (top, taps, rows), (left, across, cols) in ctx.groups:
            part = grad[:, top, left].flatten(0, 2)  # (N * outputs, K)
            kernel = weight[:, taps, across]  # (K, th, tw, C)
            grad_weight[:, taps, across] += (part.T @ columns(x, rows, cols)).view_as(kernel)
            if grad_x is None:
                continue
            shares = (part @ kernel.flatten(1)).view(*grad[:, top, left].shape[:3], -1, x.shape[3])
            places = [(row, col) for row in rows for col in cols]
            for share, (row, col) in zip(shares.unbind(3), places, strict=True):
                grad_x[:, row, col] += share
        return grad_x, grad_weight.to(ctx.wide), None, None


class SmallMapConv2d(nn.Conv2d):
    """A `Conv2d` that trains by `SmallMapConvolution` where its maps are small enough."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        stride = self.stride[0]
        side = _LARGEST_SIDE[_has_amx(), dtype == torch.bfloat16]
        largest = side if stride == 1 else _LARGEST_SIDE_STRIDED * stride
        if not self.training or max(x.shape[2:]) > largest or x.device.type != "cpu":
            return super().forward(x)
        maps = x.to(dtype).permute(0, 2, 3, 1).contiguous()
        weight = self.weight.permute(0, 2, 3, 1)
        output = SmallMapConvolution.apply(maps, weight, stride, self.padding[0])
        return output.permute(0, 3, 1, 2)


def use_small_maps(network: nn.Module) -> int:
    """Puts `SmallMapConv2d` behind the 3x3 convolutions of a network; returns how many.

    Layers stay the same objects with the same parameters. Left alone are those with a bias, groups,
    dilation or uneven settings, and narrow ones, whose products are too small to gain.
    """
    chosen = [m for m in network.modules() if type(m) is nn.Conv2d and _fits(m)]
    for module in chosen:
        module.__class__ = SmallMapConv2d
    return len(chosen)


def _fits(layer: nn.Conv2d) -> bool:
    """Whether a layer is one that `SmallMapConvolution` computes, and wide enough to gain."""
    even = layer.kernel_size == (3, 3) and layer.padding == (1, 1) and layer.dilation == (1, 1)
    plain = layer.bias is None and layer.groups == 1 and layer.padding_mode == "zeros"
    return even and plain and layer.stride in ((1, 1), (2, 2)) and layer.in_channels >= 128


@cache
def _has_amx() -> bool:
    """Whether this CPU has matrix tiles, which change what wins."""
    return bool(torch.cpu._is_amx_tile_supported())
