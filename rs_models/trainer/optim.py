"""Optimizer and rate schedule of a run, from torch, timm and transformers."""

from __future__ import annotations

import torch
from torch import nn

from .config import OptimizerSettings


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, *, batch_size: int
) -> torch.optim.Optimizer:
    """SGD, LARS or AdamW; biases and one-dimensional weights are not decayed.

    Args:
        model: Whose parameters that need gradients are optimised.
        settings: Name, rate and the rest.
        batch_size: Images of one optimizer step over all processes, for `scale_lr`.
    """
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # Linear scaling by the batch (Goyal et al., 2017, arXiv 1706.02677), as SimCLR does.
    lr = settings.lr * (batch_size / 256 if settings.scale_lr else 1)
    if settings.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=lr, betas=(settings.betas[0], settings.betas[1]), fused=True
        )
    if settings.name == "lars":
        from timm.optim import Lars

        return Lars(groups, lr=lr, momentum=settings.momentum)
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, *, steps: int, warmup_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up over `warmup_steps`, then a cosine to `final_lr_ratio` at step `steps`."""
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    return get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=steps,
        min_lr_rate=settings.final_lr_ratio,
    )
