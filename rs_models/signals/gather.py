"""The gather over processes that lets a contrastive loss see the global batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherWithGrad(torch.autograd.Function):
    """All-gather forward; the backward sums what every process says of this process's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)  # (W*B, D), in rank order

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # An all-reduce and a slice rather than a reduce-scatter, which gloo does not have.
        grad = grads[0].contiguous().clone()  # autograd's own tensor must not be written over
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.rows
        return grad[start : start + ctx.rows]


def gather_with_grad(x: Tensor) -> Tensor:
    """Rows of all processes in rank order, differentiable with respect to this process's rows.

    Every process then computes the same global loss. The summed backward is W times the gradient
    of that loss, and the mean over W processes that DistributedDataParallel takes undoes the W.

    Args:
        x: (B, D), the same shape on every process.

    Returns:
        (W*B, D); `x` itself when there is one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return _GatherWithGrad.apply(x)
