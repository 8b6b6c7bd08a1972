"""Distillation of trained models into the one that learns, as settings: no label is seen.

Frozen teachers look at the two views (STICL: at the query's), and a linear layer for each has to
predict its features from the backbone's, so that what several models know comes together in one
(AM-RADIO does so for large models: Ranzinger et al., 2024, arXiv 2312.06709). The loss stands
beside the method's own. Ours is the choice of the loss, see `signals.losses.feature_distillation`.

With `teacher_readout: stages` it is what all stages of a teacher say of the same view, whitened:
few labels find more in these than in the last one's features, and so that comes into the latter. A
model may be its own teacher. Both see one crop, as Beyer et al. advise (2022, arXiv 2106.05237):
what is said once of each whole image is soon learned by heart.

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

# What makes the means of a teacher's stages of like variance: (D,) mean, (D, D) matrix.
Whitening = tuple[Tensor, Tensor]


@strict
class DistillationConfig(SslConfig):
    """Settings of distillation; no teacher by default.

    Args:
        teachers: Names or folders of backbones as this package exports them.
        teacher_readout: `features` of a teacher's last stage, or the means of all its `stages`,
            whitened on some of the images that are trained on (the read-out of `linear-n20@stages`,
            at one size).
        teacher_widths: Widths of what is predicted; null takes those of the teachers.
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
        whitening: (D,) mean and (D, D) matrix of what its stages say; None reads the last one.
    """

    model: Any
    order: Tensor
    scale: Tensor
    offset: Tensor
    whitening: Whitening | None = None

    @classmethod
    def load(
        cls,
        name: str,
        config: SslConfig,
        device: torch.device,
        whitening: Whitening | None = None,
    ) -> "Teacher":
        """Loads a teacher for a student's settings.

        Args:
            name: Name or folder of a backbone.
            config: The student's settings.
            device: Where it computes.
            whitening: (D,) mean and (D, D) matrix for the means of all its stages; None reads the
                last stage alone.

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
        if whitening is not None:
            whitening = (whitening[0].to(device), whitening[1].to(device))
        return cls(model, torch.tensor(order, device=device), scale, offset, whitening)

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        """What it says (B, D) of views (B, C, H, W) as the student gets them."""
        x = torch.addcmul(self.offset, views.index_select(1, self.order), self.scale)
        x = x.contiguous(memory_format=torch.channels_last)
        if self.whitening is None:
            return backbones.pooled(self.model, x)
        mean, matrix = self.whitening
        stages = backbones.stage_means(self.model, x).float()
        with torch.autocast(views.device.type, enabled=False):  # the weak directions are small
            return (stages - mean) @ matrix


class DistilledModel(SslModel):
    """A method that may learn from teachers too."""

    config_class = DistillationConfig

    def __init__(self, config: DistillationConfig) -> None:
        """Builds a linear layer for each teacher."""
        super().__init__(config)
        # In a list of their own, which holds them out of the weights that are trained and saved.
        self._teachers: list[Teacher] = []
        self._whitenings: list[Whitening] = []
        if config.teachers:
            width = backbones.feature_dim(config.native)
            self.predictors = nn.ModuleList(
                nn.Linear(width, w) for w in config.teacher_widths or ()
            )

    def teach(self, whitenings: Sequence[Whitening]) -> None:
        """Hands over what whitens the teachers' stages, for `teacher_readout: stages`.

        Args:
            whitenings: One a teacher.
        """
        self._teachers, self._whitenings = [], list(whitenings)

    def with_teachers(
        self, loss: Tensor, terms: dict[str, Tensor], features: Tensor, views: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's loss and terms, with what its teachers add; as they are without teachers.

        Args:
            loss: Scalar, the method's own.
            terms: What is logged beside it.
            features: (V*B, D) of the backbone, view-major.
            views: (V*B, C, H, W) that they were computed from.
        """
        config = cast(DistillationConfig, self.config)
        if not config.teachers:
            return loss, terms
        far = self.distillation(features, views)
        return loss + config.distillation_weight * far, {**terms, "distillation": far.detach()}

    def distillation(self, features: Tensor, views: Tensor) -> Tensor:
        """The mean of the teachers' losses.

        Args:
            features: (V*B, D) of the backbone, view-major.
            views: (V*B, C, H, W) that they were computed from.
        """
        config = cast(DistillationConfig, self.config)
        if not self._teachers:
            self._teachers = self._loaded(config, views.device)
        of_stages = config.teacher_readout == "stages"
        compared = _away if of_stages else feature_distillation
        losses = [
            compared(predictor(features), teacher(views))
            for predictor, teacher in zip(self.predictors, self._teachers, strict=True)
        ]
        return torch.stack(losses).mean()

    def _loaded(self, config: DistillationConfig, device: torch.device) -> list[Teacher]:
        """The teachers, whose widths are as the settings say."""
        whitenings: Sequence[Whitening | None] = [None] * len(config.teachers)
        if config.teacher_readout == "stages":
            whitenings = self._whitenings
            if not whitenings:
                raise UserError(
                    "The setting method.teacher_readout=stages needs what whitens the teachers' "
                    "stages: train with rs_models.trainer, or hand it over by `teach`."
                )
        found = []
        told = zip(config.teachers, whitenings, config.teacher_widths or (), strict=True)
        for name, whitening, width in told:
            teacher = Teacher.load(name, config, device, whitening)
            theirs = _width_of(teacher.model.config, config.teacher_readout)
            if theirs != width:
                raise UserError(
                    f"The setting method.teacher_widths says {width} for the teacher {name!r}, "
                    f"whose {config.teacher_readout} have {theirs} numbers: leave it out."
                )
            found.append(teacher)
        return found


def _away(prediction: Tensor, target: Tensor) -> Tensor:
    """1 minus the mean cosine of what was predicted and of what a teacher's stages say."""
    return 1 - F.cosine_similarity(prediction.float(), target, dim=1).mean()


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
    return _width_of(AutoConfig.for_model(kind, **settings), readout)


def _width_of(config: Any, readout: str) -> int:
    """Width of what a teacher says."""
    if readout == "features":
        return backbones.feature_dim(config)
    return backbones.stage_means_dim(config)


def _preprocessing(config: Any, name: str) -> Preprocessing:
    """What a teacher's config, read or loaded, says of its input."""
    preprocessing = recorded(config)
    if preprocessing is None:
        raise UserError(
            f"The teacher {name!r} does not say what it was trained on (no rs_models in its "
            "config.json): choose a model that this package exported."
        )
    return preprocessing
