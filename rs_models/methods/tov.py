"""TOV: The Original Vision model for optical remote sensing image understanding.

Paper: Tao, Qi, Zhang, Zhu, Lu, Li, "TOV: The Original Vision Model for Optical Remote Sensing
Image Understanding via Self-supervised Learning", IEEE JSTARS 2023, arXiv 2204.04716.
Official code: GeoX-Lab/G-RSIM, folder TOV_v1 (fine-tuning code and a checkpoint only).

Two ideas make TOV, and both are settings of a run rather than of the network:

* the learning path: learn from general images first, then from remote sensing images, starting
  from the first stage's weights (`stages:`, see training/configs/tov_learning_path.yaml);
* the sampling: tiles drawn so that the categories of a geographic guide are balanced, against
  their natural frequency (`data.sampling: class_balanced`, and the guide in `data.guidance`).

What is published: ResNet-50, 800 epochs on the balanced set, RGB scaled with mean and standard
deviation 0.5. What is not: the pretraining code, its objective, batch size and rate. Ours is the
SimCLR objective of the same group's 2020 paradigm for scene classification (standard NT-Xent,
temperature 0.5, projector D-512-128 with BatchNorm), which is our choice and not the paper's word.
So are the views: SimCLR's, plus vertical flips and quarter turns since overhead images have no up.

Both views go through the network in one forward, so BatchNorm's statistics are over both views.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from huggingface_hub.dataclasses import strict

from ..backbones import feature_dim
from ..signals.multi_crop import multi_crop_nt_xent
from ..signals.views import ViewBatch
from .base import SslOutput
from .heads import projector
from .multi_crop import MultiCropConfig, MultiCropModel


@strict
class TovConfig(MultiCropConfig):
    """Settings of TOV beyond those of every method and of small crops.

    Args:
        temperature: Temperature of NT-Xent, > 0.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Width of the embedding that the loss sees.
    """

    model_type = "rs_tov"

    recipe: str = "tov"
    # 0.5, 512 and 128: ErenTuring/RSISC_SSL_Paradigm, instance discrimination.
    temperature: float = 0.5
    projector_hidden_dim: int = 512
    projector_dim: int = 128

    def validate_temperature(self) -> None:
        """A temperature of zero or less has no softmax."""
        self.refuse(temperature=(self.temperature <= 0, "above 0"))


class TovForPreTraining(MultiCropModel):
    """Backbone, projector and NT-Xent.

    Example:
        >>> import torch
        >>> from rs_models.backbones import backbone_config
        >>> nano = backbone_config("resnet_nano", image_size=32)
        >>> method = TovForPreTraining(TovConfig(backbone_config=nano, image_size=32))
        >>> views = torch.randn(8, 3, 32, 32)  # the first views of four images, then the second
        >>> output = method(ViewBatch(crops=[views]))
        >>> output.loss.ndim, tuple(output.embeddings.shape)
        (0, (4, 128))
    """

    config_class = TovConfig

    def __init__(self, config: TovConfig) -> None:
        """Builds backbone and projector."""
        super().__init__(config)
        self.projector = projector(
            feature_dim(config.native), config.projector_hidden_dim, config.projector_dim
        )
        self.post_init()

    def forward(self, batch: ViewBatch) -> SslOutput:
        """NT-Xent between the views of each image.

        Args:
            batch: The two views, (2*B, C, H, W), all first views then all second views; small crops
                behind them or in a second tensor (V*B, C, h, w).
        """
        views = 2 + self.config.local_views
        h = self.view_features(batch)  # (V*B, D)
        z = self.projector(h)  # (V*B, projector_dim)
        loss = multi_crop_nt_xent(z, views=views, temperature=self.config.temperature)
        return self.learned(loss, {}, h, batch)
