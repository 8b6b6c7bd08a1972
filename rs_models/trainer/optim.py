"""Optimizer, rate and weight decay of a run, from torch, timm and transformers."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from .. import schedules
from .config import OptimizerSettings


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, *, batch_size: int
) -> torch.optim.Optimizer:
    """SGD, LARS, Adam or AdamW; biases and one-dimensional weights are not decayed.

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
    if settings.name in ("adam", "adamw"):
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, lr=lr, betas=(settings.betas[0], settings.betas[1]), fused=True)
    if settings.name == "lars":
        from timm.optim import Lars

        return Lars(groups, lr=lr, momentum=settings.momentum)
    # Not fused: a fused SGD fails where a weight gets its first gradient later than the others, as
    # prototypes do that are held still at first.
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, *, steps: int, warmup_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate of every step, see `OptimizerSettings.schedule`."""
    if settings.schedule == "dino":
        ratio = partial(schedules.dino, 1.0, settings.final_lr_ratio)
        return LambdaLR(optimizer, lambda step: ratio(step, steps, warmup_steps))
    if settings.schedule == "warm_restart":
        share = warmup_steps / max(1, steps)
        wave = partial(schedules.warm_restart, 1.0, settings.final_lr_ratio, warmup=share)
        return LambdaLR(optimizer, lambda step: wave(step / max(1, steps)))
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    return get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=steps,
        min_lr_rate=settings.final_lr_ratio,
    )


def set_weight_decay(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, *, step: int, steps: int
) -> None:
    """The weight decay of a step, where the settings change it; biases keep none."""
    if settings.final_weight_decay is None:
        return
    decay = schedules.cosine(settings.weight_decay, settings.final_weight_decay, step, steps)
    optimizer.param_groups[0]["weight_decay"] = decay
