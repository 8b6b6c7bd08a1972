"""Distillation of trained models into the one that learns, as settings: no label is seen.

Frozen teachers look at the two views, and a linear layer for each has to predict its features from
the backbone's, so that what several models know comes together in one (AM-RADIO does so for large
models: Ranzinger et al., 2024, arXiv 2312.06709). The loss stands beside the method's own. Ours is
the choice of the loss, see `signals.losses.feature_distillation`.

With `teacher_readout: stages` the views have to tell what a teacher's stages say of the whole
image, read once before training: few labels find more in all stages, whitened, than in the last
one's features, and so that comes into these. A model may be its own teacher.

Teachers are no part of the method's checkpoint: they are loaded when training starts, and a trained
method needs none.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
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
        teacher_readout: `features` of the student's views by a teacher's last stage, or what all
            its `stages` say of the whole image (the read-out of `linear-n20@stages`).
        teacher_widths: Widths of what is predicted; null takes those of the features, or as many
            main directions of the stages as these have channels.
        distillation_weight: Weight of the mean of the teachers' losses beside the method's own.
    """

    teachers: list[str] | tuple[str, ...] = ()
    teacher_readout: Literal["features", "stages"] = "features"
    teacher_widths: list[int] | tuple[int, ...] | None = None
    distillation_weight: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Reads the widths, so that a teacher that cannot teach is told before any training."""
        unread = self.teacher_widths is None
        if unread:
            self.teacher_widths = [_width(name, self.teacher_readout) for name in self.teachers]
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
            teacher_readout=(
                self.teacher_readout != "features" and not self.teachers,
                "left out without method.teachers",
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
        # With the read-out of stages: what each teacher says of every image, (N, its width).
        self._targets: list[Tensor] = []
        if config.teachers:
            width = backbones.feature_dim(config.native)
            self.predictors = nn.ModuleList(
                nn.Linear(width, w) for w in config.teacher_widths or ()
            )

    def teach(self, targets: Sequence[Tensor]) -> None:
        """Hands over what the teachers' stages say of the images that are going to be trained on.

        Args:
            targets: One (N, width) a teacher, N being the rows that a batch's `index` names.

        Raises:
            UserError: Targets of another width than the settings say.
        """
        widths = list(cast(DistillationConfig, self.config).teacher_widths or ())
        found = [target.shape[1] for target in targets]
        if found != widths:
            raise UserError(
                f"The setting method.teacher_widths says {widths}, but what the teachers say has "
                f"{found} numbers: leave it out."
            )
        self._targets = list(targets)

    def distillation(self, features: Tensor, views: Tensor, index: Tensor | None) -> Tensor:
        """The mean of the teachers' losses.

        Args:
            features: (V*B, D) of the backbone, view-major.
            views: (V*B, C, H, W) that they were computed from.
            index: (B,) rows of the images; the read-out of stages needs them.
        """
        if cast(DistillationConfig, self.config).teacher_readout == "stages":
            return self._of_stages(features, index)
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

    def _of_stages(self, features: Tensor, index: Tensor | None) -> Tensor:
        """1 minus the mean cosine of what is predicted from each view and its image's target."""
        if not self._targets or index is None:
            raise UserError(
                "The setting method.teacher_readout=stages needs what the teachers say of whole "
                "images: train with rs_models.trainer, or hand it over by `teach`."
            )
        losses = []
        for predictor, targets in zip(self.predictors, self._targets, strict=True):
            target = targets[index.to(targets.device)].to(features.device, torch.float32)
            target = target.repeat(len(features) // len(index), 1)
            losses.append(1 - F.cosine_similarity(predictor(features).float(), target).mean())
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


def _width(name: str, readout: str) -> int:
    """Width of what is learned from a teacher, from its config.json."""
    settings = read_config(resolve(name))
    _preprocessing(settings, name)
    kind = settings.pop("model_type", None)
    if kind not in backbones.NATIVE_TYPES:
        raise UserError(
            f"The teacher {name!r} is no backbone but a {kind!r}: name the folder `export/` of a "
            "run, or a model of the zoo."
        )
    config = AutoConfig.for_model(kind, **settings)
    return backbones.feature_dim(config) if readout == "features" else stages_width(config)


def stages_width(config: Any) -> int:
    """Width of the target that a teacher's stages give: that of the stages at one size."""
    try:
        return sum(backbones.stage_dims(config))
    except UserError:  # a ViT has no stages: its class token and the mean of its patches
        return 2 * backbones.feature_dim(config)


def _preprocessing(config: Any, name: str) -> Preprocessing:
    """What a teacher's config, read or loaded, says of its input."""
    preprocessing = recorded(config)
    if preprocessing is None:
        raise UserError(
            f"The teacher {name!r} does not say what it was trained on (no rs_models in its "
            "config.json): choose a model that this package exported."
        )
    return preprocessing
