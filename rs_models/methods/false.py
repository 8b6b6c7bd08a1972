"""FALSE: False negative samples aware contrastive learning.

Paper: Zhang, Wang, Mei, Tao, Li, "FALSE: False Negative Samples Aware Contrastive Learning for
Semantic Segmentation of High-Resolution Remote Sensing Image", IEEE GRSL 2022, arXiv 2211.07928.
Official code: GeoX-Lab/FALSE (on VISSL).

SimCLR treats every other image of the batch as a negative, and land cover repeats: some of them
show the same thing. FALSE suspects the negative that is about as similar to its anchor as the
anchor's own positive (coarse determination), believes it where the anchor's positive is close
enough to trust (`threshold`), and counts it as a positive to the degree `confidence`.

Two choices of the released code are settings, at their released values:

* `scope="batch"`: one pair of the whole batch is recalibrated a step, so its weight shrinks as the
  batch grows. `"row"`, our reading of the idea, gives every anchor its own candidate;
* `projector_relu=False`: the released configuration loses the ReLU between the projector's layers.

`confidence=0` is SimCLR with FALSE's projector. Differences: vectorised over the batch, and over
the global batch where the released multi-GPU indexing is wrong.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from typing import Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor

from ..backbones import feature_dim
from ..signals.gather import gather
from ..signals.losses import false_negative_nt_xent_with_suspects, suspected_false_negatives
from ..signals.multi_crop import multi_crop_nt_xent
from ..signals.views import ViewBatch
from .base import IMAGENET_MEAN, IMAGENET_STD, SslOutput
from .heads import mlp
from .multi_crop import MultiCropConfig, MultiCropModel


@strict
class FalseConfig(MultiCropConfig):
    """Settings of FALSE beyond those of every method and of small crops.

    Args:
        temperature: Temperature of NT-Xent and of the comparison, > 0.
        confidence: How far a suspected false negative is a positive, 0 (SimCLR) to 1.
        threshold: Smallest cosine with its positive at which an anchor is believed, -1 to 1.
        scope: One suspect a `batch` (released) or one a `row` (anchor).
        projector_relu: ReLU between the projector's layers; the released code has none.
        projector_dim: Width of the embedding that the loss sees.
    """

    model_type = "rs_false"

    recipe: str = "false"
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    # GeoX-Lab/FALSE, config/pretrain/false.
    temperature: float = 0.5
    confidence: float = 1.0
    threshold: float = 0.9
    scope: Literal["batch", "row"] = "batch"
    projector_relu: bool = False
    projector_dim: int = 128

    def validate_loss(self) -> None:
        """Ranges of the loss's settings."""
        self.refuse(
            temperature=(self.temperature <= 0, "above 0"),
            confidence=(not 0 <= self.confidence <= 1, "from 0 (SimCLR) to 1"),
            threshold=(not -1 <= self.threshold <= 1, "a cosine, from -1 to 1"),
        )


class FalseForPreTraining(MultiCropModel):
    """Backbone, projector and NT-Xent with recalibrated false negatives."""

    config_class = FalseConfig

    def __init__(self, config: FalseConfig) -> None:
        """Builds backbone and projector."""
        super().__init__(config)
        width = feature_dim(config.native)
        self.projector = mlp(width, width, config.projector_dim, relu=config.projector_relu)
        self.post_init()

    def forward(self, batch: ViewBatch) -> SslOutput:
        """FALSE's loss between the views of each image.

        Args:
            batch: The two views, (2*B, C, H, W), all first views then all second views; small crops
                behind them or in a second tensor (V*B, C, h, w). They suspect what the two views
                suspect of each other.
        """
        config = self.config
        views = 2 + config.local_views
        h = self.view_features(batch)  # (V*B, D)
        z = self.projector(h)  # (V*B, projector_dim)
        z1, z2 = z.chunk(views)[:2]
        how = {"threshold": config.threshold, "scope": config.scope}
        weights = {"temperature": config.temperature, "confidence": config.confidence}
        if views == 2:
            loss, suspects = false_negative_nt_xent_with_suspects(z1, z2, **weights, **how)
        else:
            suspects = suspected_false_negatives(z1, z2, temperature=config.temperature, **how)
            loss = multi_crop_nt_xent(z, views=views, suspects=suspects, **weights)
        terms = recalibrated(suspects & (config.confidence > 0), batch.labels)
        return self.learned(loss, terms, h, batch)


@torch.no_grad()
def recalibrated(suspects: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Meters: how many pairs of the global batch were recalibrated, and how many of them rightly.

    Args:
        suspects: (2N, 2N) mask of `suspected_false_negatives`.
        labels: (B,) classes of this process's images, where they are known; a pair is a true false
            negative if its images are of one class.
    """
    terms = {"recalibrated": suspects.sum()}
    if labels is not None:
        y = gather(labels.to(suspects.device, non_blocking=True)).repeat(2)  # (2N,)
        terms["truly_false_negatives"] = (suspects & (y[:, None] == y[None])).sum()
    return terms
