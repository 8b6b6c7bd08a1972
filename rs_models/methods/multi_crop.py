"""Small crops beside the two views of a contrastive method, as settings.

Multi-crop is SwAV's (arXiv 2006.09882): `local_views` crops of a small part at a small size cost
little, and each has to tell the whole image's two views from other images'. See
`signals.multi_crop` for the loss.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from dataclasses import replace

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor

from ..signals.view_settings import Recipe
from ..signals.views import ViewBatch
from .base import SslOutput
from .distillation import DistillationConfig, DistilledModel


@strict
class MultiCropConfig(DistillationConfig):
    """Settings of small crops and of distillation; neither by default, as in each paper.

    Args:
        local_views: Small crops an image beside its two views.
        local_size: Their side in pixels; null is 96 for 224.
        local_scale: Smallest and largest area of a small crop over the image's.
    """

    local_views: int = 0
    local_size: int | None = None
    # facebookresearch/dino, main_dino.py, as LaST; SwAV has 0.05 to 0.14.
    local_scale: list[float] | tuple[float, ...] = (0.05, 0.4)

    def validate_local_views(self) -> None:
        """Ranges of the settings."""
        self.refuse(
            local_views=(self.local_views < 0, "0 or more"),
            local_size=(self.local_size is not None and self.local_size < 1, "1 or more, or null"),
            local_scale=(len(self.local_scale) != 2, "two numbers, the smaller first"),
        )


class MultiCropModel(DistilledModel):
    """A method over two views that can learn from small crops and from teachers too."""

    config_class = MultiCropConfig

    @property
    def recipe(self) -> Recipe:
        """The two views and the small crops."""
        return self.with_local_views(super().recipe)

    def with_local_views(self, recipe: Recipe) -> Recipe:
        """A recipe of two views with the small crops of the settings behind them.

        A small crop is made as the second view, which has the changes of colour where only one has.
        """
        config = self.config
        size = config.local_size or max(1, round(config.image_size * 96 / 224))
        local = replace(
            recipe.views[1], size=size, scale=tuple(config.local_scale), crop_probability=1.0
        )
        return replace(recipe, views=(*recipe.views, *(local,) * config.local_views))

    def view_features(self, batch: ViewBatch) -> Tensor:
        """Pooled features of all views, view-major: (V*B, D)."""
        return torch.cat([self.features(crop) for crop in batch.crops])

    def learned(
        self, loss: Tensor, terms: dict[str, Tensor], features: Tensor, batch: ViewBatch
    ) -> SslOutput:
        """The output of a step, to whose loss the teachers add theirs.

        Args:
            loss: Scalar, the method's own.
            terms: What is logged beside it.
            features: (V*B, D) of all views, from `view_features`.
            batch: The views.
        """
        images = len(features) // (2 + self.config.local_views)
        both = slice(0, 2 * images)  # they come first; small crops are too small for teachers
        loss, terms = self.with_teachers(loss, terms, features[both], batch.crops[0][both])
        return SslOutput(loss=loss, terms=terms, embeddings=features.detach()[:images])
