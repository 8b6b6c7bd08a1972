"""Optimizer, rate and weight decay of a run; the last two are set in every step."""

from __future__ import annotations

import torch
from torch import nn

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
    lr = peak_rate(settings, batch_size=batch_size)
    if settings.name in ("adam", "adamw"):
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, lr=lr, betas=(settings.betas[0], settings.betas[1]), fused=True)
    if settings.name == "lars":
        from timm.optim import Lars

        return Lars(groups, lr=lr, momentum=settings.momentum)
    # Not fused: a fused SGD fails where a weight gets its first gradient later than the others, as
    # prototypes do that are held still at first.
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)


def peak_rate(settings: OptimizerSettings, *, batch_size: int) -> float:
    """The rate at the end of the warm-up.

    Linear scaling by the batch (Goyal et al., 2017, arXiv 1706.02677), as SimCLR does.
    """
    return settings.lr * (batch_size / 256 if settings.scale_lr else 1)


def rate_at(
    settings: OptimizerSettings, step: int, *, batch_size: int, steps: int, warmup_steps: int
) -> float:
    """The rate of a step, a function of its number alone; see `OptimizerSettings.schedule`.

    Args:
        settings: Peak, schedule and last rate.
        step: Optimizer steps done before this one.
        batch_size: Images of one optimizer step over all processes, for `scale_lr`.
        steps: Optimizer steps of the stage.
        warmup_steps: How many of them warm up.
    """
    end = settings.final_lr_ratio
    if settings.schedule == "dino":
        share = schedules.dino(1.0, end, step, steps, warmup_steps)
    elif settings.schedule == "warm_restart":
        warmup = warmup_steps / max(1, steps)
        share = schedules.warm_restart(1.0, end, step / max(1, steps), warmup=warmup)
    else:
        share = schedules.warmup_cosine(1.0, end, step, steps, warmup_steps)
    return peak_rate(settings, batch_size=batch_size) * share


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next update, for all weights."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_weight_decay(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, *, step: int, steps: int
) -> None:
    """The weight decay of a step, where the settings change it; biases keep none."""
    if settings.final_weight_decay is None:
        return
    decay = schedules.cosine(settings.weight_decay, settings.final_weight_decay, step, steps)
    optimizer.param_groups[0]["weight_decay"] = decay
