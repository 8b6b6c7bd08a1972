"""Distillation of trained models into the one that learns, as settings: no label is seen.

Frozen teachers look at the two views, and a linear layer for each has to predict its features from
the backbone's, so that what several models know comes together in one (AM-RADIO does so for large
models: Ranzinger et al., 2024, arXiv 2312.06709). The loss stands beside the method's own. Ours is
the choice of the loss, see `signals.losses.feature_distillation`.

Teachers are no part of the method's checkpoint: they are loaded when training starts, and a trained
method needs none.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig

from .. import backbones
from ..backbones.loading import read_config
from ..errors import UserError
from ..preprocessing import Preprocessing, recorded
from ..signals.losses import feature_distillation
from ..zoo import resolve
from .base import SslConfig, SslModel


@strict
class DistillationConfig(SslConfig):
    """Settings of distillation; no teacher by default.

    Args:
        teachers: Names or folders of backbones as this package exports them.
        teacher_widths: Widths of their features; null reads them from the teachers.
        distillation_weight: Weight of the mean of the teachers' losses beside the method's own.
    """

    teachers: list[str] | tuple[str, ...] = ()
    teacher_widths: list[int] | tuple[int, ...] | None = None
    distillation_weight: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Reads the widths, so that a teacher that cannot teach is told before any training."""
        unread = self.teacher_widths is None
        if unread:
            self.teacher_widths = [_width(name) for name in self.teachers]
        super().__post_init__(**kwargs)
        for name in self.teachers if unread else ():
            _order(name, _preprocessing(read_config(resolve(name)), name), self)

    def validate_teachers(self) -> None:
        """Ranges of the settings."""
        self.refuse(
            teacher_widths=(
                len(self.teacher_widths or ()) != len(self.teachers)
                or any(width < 1 for width in self.teacher_widths or ()),
                f"one number for each of the {len(self.teachers)} teachers, 1 or more, or null",
            ),
            distillation_weight=(not 0 <= self.distillation_weight < float("inf"), "0 or more"),
        )


@dataclass(frozen=True)
class Teacher:
    """A frozen backbone and the way from the student's views to its own input.

    Attributes:
        model: Native backbone in evaluation mode.
        order: (C,) places of its bands among the student's, on the device.
        scale: (C, 1, 1) its input is `views * scale + offset`.
        offset: (C, 1, 1)
    """

    model: Any
    order: Tensor
    scale: Tensor
    offset: Tensor

    @classmethod
    def load(cls, name: str, config: SslConfig, device: torch.device) -> "Teacher":
        """Loads a teacher for a student's settings.

        Raises:
            UserError: Bands that the student does not have, or another value range.
        """
        # Whenever it is loaded, at a run's start or when it goes on, the run's draws are the same.
        with torch.random.fork_rng(devices=[]):
            model = backbones.load(name)
        theirs = _preprocessing(model.config, name)
        order = _order(name, theirs, config)
        mean, std = (
            torch.tensor(values)[order] for values in (config.image_mean, config.image_std)
        )
        its_mean, its_std = torch.tensor(theirs.image_mean), torch.tensor(theirs.image_std)
        scale, offset = std / its_std, (mean - its_mean) / its_std
        model.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
        scale, offset = (values[:, None, None].to(device) for values in (scale, offset))
        return cls(model, torch.tensor(order, device=device), scale, offset)

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        """Features (B, D) of views (B, C, H, W) as the student gets them."""
        x = torch.addcmul(self.offset, views.index_select(1, self.order), self.scale)
        return backbones.pooled(self.model, x.contiguous(memory_format=torch.channels_last))


class DistilledModel(SslModel):
    """A method that may learn from teachers too."""

    config_class = DistillationConfig

    def __init__(self, config: DistillationConfig) -> None:
        """Builds a linear layer for each teacher."""
        super().__init__(config)
        # In a list of their own, which holds them out of the weights that are trained and saved.
        self._teachers: list[Teacher] = []
        if config.teachers:
            width = backbones.feature_dim(config.native)
            self.predictors = nn.ModuleList(
                nn.Linear(width, w) for w in config.teacher_widths or ()
            )

    def distillation(self, features: Tensor, views: Tensor) -> Tensor:
        """The mean of the teachers' losses.

        Args:
            features: (B, D) of the backbone.
            views: (B, C, H, W) that they were computed from.
        """
        if not self._teachers:
            config = cast(DistillationConfig, self.config)
            self._teachers = [Teacher.load(t, config, views.device) for t in config.teachers]
            for name, teacher, told in zip(
                config.teachers, self._teachers, config.teacher_widths or (), strict=True
            ):
                width = backbones.feature_dim(teacher.model.config)
                if width != told:
                    raise UserError(
                        f"The setting method.teacher_widths says {told} for the teacher {name!r}, "
                        f"whose features have {width} numbers: leave it out."
                    )
        losses = [
            feature_distillation(predictor(features), teacher(views))
            for predictor, teacher in zip(self.predictors, self._teachers, strict=True)
        ]
        return torch.stack(losses).mean()


def _order(name: str, theirs: Preprocessing, config: SslConfig) -> list[int]:
    """Places of a teacher's bands among the student's.

    Raises:
        UserError: Bands that the student does not have, or another value range.
    """
    if theirs.value_range != tuple(map(float, config.value_range)):
        raise UserError(
            f"The teacher {name!r} knows stored values from {theirs.value_range[0]:g} to "
            f"{theirs.value_range[1]:g}, and these images hold them from "
            f"{config.value_range[0]:g} to {config.value_range[1]:g}: choose another teacher."
        )
    missing = [band for band in theirs.bands if band not in config.bands]
    if missing:
        raise UserError(
            f"The teacher {name!r} sees {', '.join(missing)}, which the bands of this run do not "
            f"have ({', '.join(config.bands)}): choose another teacher, or other bands."
        )
    return [config.bands.index(band) for band in theirs.bands]


def _width(name: str) -> int:
    """Width of a teacher's features, from its config.json."""
    settings = read_config(resolve(name))
    _preprocessing(settings, name)
    kind = settings.pop("model_type", None)
    if kind not in backbones.NATIVE_TYPES:
        raise UserError(
            f"The teacher {name!r} is no backbone but a {kind!r}: name the folder `export/` of a "
            "run, or a model of the zoo."
        )
    return backbones.feature_dim(AutoConfig.for_model(kind, **settings))


def _preprocessing(config: Any, name: str) -> Preprocessing:
    """What a teacher's config, read or loaded, says of its input."""
    preprocessing = recorded(config)
    if preprocessing is None:
        raise UserError(
            f"The teacher {name!r} does not say what it was trained on (no rs_models in its "
            "config.json): choose a model that this package exported."
        )
    return preprocessing
