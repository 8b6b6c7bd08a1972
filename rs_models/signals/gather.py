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
    return _GatherWithGrad.apply(x) if processes() > 1 else x


def processes() -> int:
    """Number of processes W that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Rows of all processes in rank order, without gradient: (B, ...) -> (W*B, ...)."""
    if processes() == 1:
        return x.detach()
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(processes())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without gradient."""
    if processes() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / processes()


@torch.no_grad()
def shuffle_over_processes(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Deals the rows of the global batch out to the processes anew (MoCo's shuffled BatchNorm).

    The key encoder's statistics are then over other images than the query's, which would
    otherwise give away which key belongs to a query.

    Args:
        x: (B, ...), the same shape on every process.

    Returns:
        This process's new rows (B, ...), and the order to hand to `unshuffle_over_processes`; `x`
        itself and None where there is one process, which shuffling would not change.
    """
    if processes() == 1:
        return x, None
    everything = gather(x)
    order = torch.randperm(len(everything), device=x.device)
    dist.broadcast(order, src=0)
    return everything[order.view(processes(), -1)[dist.get_rank()]], order


@torch.no_grad()
def unshuffle_over_processes(x: Tensor, order: Tensor | None) -> Tensor:
    """Undoes `shuffle_over_processes` on what was computed from its rows."""
    if order is None:
        return x
    return gather(x)[order.argsort().view(processes(), -1)[dist.get_rank()]]
