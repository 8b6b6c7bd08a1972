"""LaST: label-free self-distillation contrastive learning with transformer architecture.

Paper: Wang, Zhu, Yan, Zhang, Zhang, Chen, Li, "LaST: Label-Free Self-Distillation Contrastive
Learning With Transformer Architecture for Remote Sensing Image Scene Classification", IEEE GRSL
2022, doi 10.1109/LGRS.2022.3185088. No code is published.

What the abstract says: self-distillation instead of negatives, since hard negatives hurt; a
multi-crop module with global-local crops and scale alignment; a transformer backbone with spatial
smoothness and long range. Everything else here is DINO (Caron et al., 2021, arXiv 2104.14294;
facebookresearch/dino), whose parts those are, and is our reconstruction:

* student and teacher see two global crops, the student also sees small local ones; the student
  predicts the teacher's output of every other view, so parts learn to tell the whole;
* the teacher is a slow average of the student; its outputs are centred and sharpened;
* backbone Swin-T; `backbone=vit_small_patch16` makes it DINO.

Two readings of "scale alignment" are settings: local crops anywhere in the image (`views`, DINO's),
or within a global crop at one known ratio of ground sizes (`ground`). `region_matching` adds
EsViT's loss between regions (Li et al., 2021, arXiv 2106.09785).

Durations are shares of the training, since a method knows its step and the number of steps. The
teacher is what is evaluated and exported, as DINO does.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import backbones, schedules
from ..errors import UserError
from ..signals.gather import mean_over_processes
from ..signals.losses import region_distillation, self_distillation
from ..signals.views import Recipe, ViewBatch
from .base import IMAGENET_MEAN, IMAGENET_STD, SslOutput
from .distillation import DistillationConfig, DistilledModel
from .heads import DinoHead


@strict
class LastConfig(DistillationConfig):
    """Settings of LaST beyond those of every method and of distillation, which is none by default.

    `teacher_temperature` and what begins so are of the student's slow average; `teachers`,
    `teacher_readout` and `teacher_widths` are of other, trained models.

    Args:
        prototypes: Outputs K of the head; fewer for few images.
        head_hidden_dim: Width of the head's hidden layers.
        head_bottleneck_dim: Width before the prototypes.
        local_views: Local crops an image.
        local_size: Their side in pixels; null is 96 for 224.
        global_scale: Smallest and largest area of a global crop over the image's.
        local_scale: Range of scales of a local crop, where `scale_alignment` is `views`.
        scale_alignment: `views` draws local crops anywhere; `ground` within a global crop, at the
            ratio of the view sizes, so that both show the ground at one scale.
        region_matching: Add EsViT's loss between regions, half and half.
        student_temperature: > 0.
        teacher_temperature: After the warm-up, > 0.
        teacher_temperature_start: At the start.
        teacher_temperature_warmup: Share of the training.
        momentum: Momentum of the teacher at the start; it grows to 1 by a cosine.
        center_momentum: Momentum of the centre.
        freeze_last_layer: Share of the training in which the prototypes stay as they started.
    """

    model_type = "rs_last"

    recipe: str = "last"
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    # facebookresearch/dino, main_dino.py; shares are of its 100 epochs.
    prototypes: int = 65536
    head_hidden_dim: int = 2048
    head_bottleneck_dim: int = 256
    local_views: int = 8
    local_size: int | None = None
    global_scale: list[float] | tuple[float, ...] = (0.4, 1.0)
    local_scale: list[float] | tuple[float, ...] = (0.05, 0.4)
    scale_alignment: Literal["views", "ground"] = "views"
    region_matching: bool = False
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_start: float = 0.04
    teacher_temperature_warmup: float = 0.3
    momentum: float = 0.996
    center_momentum: float = 0.9
    freeze_last_layer: float = 0.01

    def __post_init__(self, **kwargs: Any) -> None:
        """A Swin-T where no backbone is named."""
        if self.backbone_config is None:
            self.backbone_config = backbones.backbone_config(
                "swin_tiny", bands=self.bands, image_size=self.image_size
            )
        super().__post_init__(**kwargs)

    def validate_last(self) -> None:
        """Ranges of the settings."""
        positive = ("student_temperature", "teacher_temperature", "teacher_temperature_start")
        shares = ("teacher_temperature_warmup", "momentum", "center_momentum", "freeze_last_layer")
        self.refuse(
            **{name: (getattr(self, name) <= 0, "above 0") for name in positive},
            **{name: (not 0 <= getattr(self, name) <= 1, "from 0 to 1") for name in shares},
            prototypes=(self.prototypes < 2, "2 or more"),
            local_views=(self.local_views < 0, "0 or more"),
            local_size=(self.local_size is not None and self.local_size < 1, "1 or more, or null"),
            view_settings=(
                "scale" in (self.view_settings or {}),
                "without scale, which global_scale and local_scale set",
            ),
        )


class LastForPreTraining(DistilledModel):
    """Student, teacher, their heads and the centre."""

    config_class = LastConfig
    center: Tensor
    region_center: Tensor

    def __init__(self, config: LastConfig) -> None:
        """Builds student and teacher."""
        super().__init__(config)
        # DINO drops paths in the student only.
        steady = copy.deepcopy(config.native)
        if hasattr(steady, "drop_path_rate"):
            steady.drop_path_rate = 0.0
        self.teacher_backbone = backbones.from_config(steady)
        self.head, self.teacher_head = self._head(), self._head()
        self.register_buffer("center", torch.zeros(1, config.prototypes))
        if config.region_matching:
            self.region_head, self.teacher_region_head = self._head(), self._head()
            self.register_buffer("region_center", torch.zeros(1, config.prototypes))
        self.teacher_temperature = config.teacher_temperature  # of the step, see `before_step`
        self.post_init()

    def _head(self) -> DinoHead:
        config = self.config
        width = backbones.feature_dim(config.native)
        return DinoHead(
            width, config.prototypes, config.head_hidden_dim, config.head_bottleneck_dim
        )

    @property
    def exported(self) -> PreTrainedModel:
        """The teacher."""
        return self.teacher_backbone

    @property
    def recipe(self) -> Recipe:
        """Two global views and the local ones."""
        config, recipe = self.config, self.named_recipe()
        if len(recipe.views) < 3:
            raise UserError(
                f"LaST wants two global views and a local one; recipe {config.recipe!r} has "
                f"{len(recipe.views)} views: use 'last'."
            )
        first, second = (
            replace(view, scale=tuple(config.global_scale)) for view in recipe.views[:2]
        )
        local = recipe.views[2]
        local = replace(
            local, size=config.local_size or local.size, scale=tuple(config.local_scale)
        )
        locals_ = (local,) * config.local_views
        if config.scale_alignment == "ground":
            share = (local.size / first.size) ** 2
            locals_ = tuple(
                replace(local, scale=(share, share), inside=i % 2) for i in range(len(locals_))
            )
        return replace(recipe, views=(first, second, *locals_))

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The teacher follows the student."""
        pairs: list[tuple[nn.Module, nn.Module]] = [
            (self.backbone, self.teacher_backbone),
            (self.head, self.teacher_head),
        ]
        if self.config.region_matching:
            pairs.append((self.region_head, self.teacher_region_head))
        return pairs

    def before_step(self, step: int, total_steps: int) -> None:
        """The teacher's temperature at this step."""
        config = self.config
        self.teacher_temperature = schedules.linear(
            config.teacher_temperature_start,
            config.teacher_temperature,
            step,
            round(config.teacher_temperature_warmup * total_steps),
        )

    def before_update(self, step: int, total_steps: int) -> None:
        """Holds the prototypes still at first: the rest of the network has to find its feet."""
        if step < self.config.freeze_last_layer * total_steps:
            for head in self.children():
                if isinstance(head, DinoHead):
                    head.last_layer.weight.grad = None

    def after_step(self, step: int, total_steps: int) -> None:
        """Moves the teacher."""
        self.update_momentum(schedules.cosine(self.config.momentum, 1.0, step, total_steps))

    def forward(self, batch: ViewBatch) -> SslOutput:
        """Self-distillation between the views of each image.

        Args:
            batch: Global views (2*B, C, H, W) and, in a second tensor or behind the global ones
                where their size is the same, local views (V*B, C, h, w).
        """
        views = 2 + self.config.local_views
        size = sum(len(crop) for crop in batch.crops) // views  # B
        seen = [self._see(self.backbone, crop) for crop in batch.crops]
        h = torch.cat([pooled for pooled, _ in seen])  # (V*B, D)
        with torch.no_grad():
            taught, regions = self._see(self.teacher_backbone, batch.crops[0][: 2 * size])
            targets = self.teacher_head(taught)  # (2B, K)
        how = {
            "student_temperature": self.config.student_temperature,
            "teacher_temperature": self.teacher_temperature,
        }
        loss = self_distillation(self.head(h), targets, self.center.clone(), **how)
        if self.config.region_matching:
            # One entry a view: (B, T_v, D) regions.
            mine = [part for _, maps in seen for part in maps.split(size)]
            theirs = list(regions.split(size))
            with torch.no_grad():
                region_targets = [self.teacher_region_head(part) for part in theirs]
            near = region_distillation(
                [self.region_head(part) for part in mine],
                region_targets,
                mine,
                theirs,
                self.region_center.clone(),
                **how,
            )
            loss = 0.5 * loss + 0.5 * near
            self._move(self.region_center, torch.cat(region_targets).flatten(0, 1))
        self._move(self.center, targets)
        # Frozen teachers (`method.teachers`) see the global views, as the average does.
        loss, terms = self.with_teachers(loss, {}, h[: 2 * size], batch.crops[0][: 2 * size])
        return SslOutput(loss=loss, terms=terms, embeddings=h.detach()[:size])

    def _see(self, backbone: PreTrainedModel, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (B, D), and those of regions (B, h*w, D) where they are matched."""
        if not self.config.region_matching:
            return backbones.pooled(backbone, x), x.new_empty(0)
        pooled, dense = backbones.pooled_and_dense(backbone, x)
        return pooled, dense.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def _move(self, center: Tensor, outputs: Tensor) -> None:
        """Centre <- m * centre + (1 - m) * mean of the teacher's outputs on all processes."""
        if self.training:
            mean = mean_over_processes(outputs.float().mean(dim=0, keepdim=True))
            center.lerp_(mean, 1 - self.config.center_momentum)
