"""What learns: a network with the loss of its task, and the rates of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ... import backbones
from ..task import Task
from .config import FinetuneConfig
from .data import Split


class Learner(nn.Module):
    """A network with the loss of its task, as the Trainer calls it.

    Args:
        model: Native network.
        task: Whose loss it is.
        frozen: Whether the backbone keeps its weights and its statistics.
        freeze_norm: Whether it keeps its BatchNorm statistics.
        class_weights: (K,) or None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: Task,
        *,
        frozen: bool = False,
        freeze_norm: bool = False,
        class_weights: Tensor | None = None,
    ) -> None:
        """Freezes what is to be frozen."""
        super().__init__()
        self.model, self.task = model, task
        self.frozen, self.freeze_norm = frozen, freeze_norm
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        if frozen:
            self.backbone.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The part that was pretrained."""
        return getattr(self.model, "backbone", None) or self.model.base_model

    @property
    def tested(self) -> Any:
        """The network that answers and is kept."""
        return self.model

    def train(self, mode: bool = True) -> Learner:
        """Training mode, but for what is frozen."""
        super().train(mode)
        if mode and self.frozen:
            self.backbone.eval()
        elif mode and self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, pixel_values: Tensor, labels: Any = None) -> dict[str, Tensor]:
        """The loss where labels are given, else what the task counts."""
        if labels is None:
            return self.task.outputs(self.model, pixel_values)
        loss = self.task.loss(self.model, pixel_values, labels, self.class_weights)
        return {"loss": loss}


def balanced_weights(split: Split, rows: np.ndarray, num_classes: int) -> Tensor:
    """Inverse frequency of each class in the labels, 1 on average over them; 0 for absent ones."""
    counts = np.zeros(num_classes, np.int64)
    for row in rows:
        counts += split.task.class_counts(split.label(int(row)), num_classes)
    there = counts > 0
    weights = np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights).float()


def parameter_groups(learner: Learner, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Groups of the optimizer: the head, and the backbone by depth where rates decay."""
    head_rate = config.head_learning_rate or config.learning_rate
    inside = {id(p) for p in learner.backbone.parameters()}
    names = [name for name, _ in learner.backbone.named_parameters()]
    depths = backbones.family(learner.backbone).depths(names)
    last = max(depths.values(), default=0)
    rates: dict[int, float] = {}
    for name, parameter in learner.backbone.named_parameters():
        decay = config.layer_decay ** (last + 1 - depths[name])
        factor = decay if config.tune == "layer_decay" else 1.0
        rates[id(parameter)] = config.learning_rate * factor
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            rate = rates[id(parameter)] if id(parameter) in inside else head_rate
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
