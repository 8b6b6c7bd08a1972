"""GLCNet: global style and local matching contrastive learning network.

Paper: Li, Li, Zhang, Liu, Huang, Zhu, Tao, "Global and Local Contrastive Self-Supervised Learning
for Semantic Segmentation of HR Remote Sensing Images", IEEE TGRS 2022, arXiv 2106.10605.
Official code: GeoX-Lab/G-RSIM, folder T-SS-GLCNet.

A segmentation network needs more than one vector an image, so GLCNet pretrains encoder and decoder:

* global style: the mean and the variance of each channel of the encoder's map, rather than the mean
  alone, describe the image, and are told apart by NT-Xent;
* local matching: regions of the decoder's map that show the same ground in both views are tracked
  through crop, flip and turn, and are told apart from all other regions of the batch.

The network is DeepLabV3+ on a ResNet dilated to output stride 16. The decoder is kept: a trained
method also becomes a segmentation model (`export.export_segmentation`). Ablations are settings:
`style=false` takes means only, `global_weight` 0 or 1 drops the global or the local half.

What differs from the code: the positive stays out of the denominator as released, but negatives are
those of all processes; both views pass in one forward; views without common ground are redrawn
where the code stops; a region is pooled from the decoder's own map by the weights of the
upsampling, which gives the same mean without the large map.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .. import backbones
from ..backbones.decoders import AsppEncoder, DeepLabV3PlusDecoder, init_decoder_weights
from ..errors import UserError
from ..signals.losses import nt_xent, region_nt_xent
from ..signals.regions import pool_regions
from ..signals.views import Recipe, Regions, ViewBatch
from .base import SslConfig, SslModel, SslOutput
from .heads import mlp


@strict
class GlcnetConfig(SslConfig):
    """Settings of GLCNet beyond those of every method.

    Args:
        temperature: Temperature of both losses, > 0.
        global_weight: Weight of the global loss, 0 to 1; the local loss has the rest.
        style: Describe an image by mean and variance; else by the mean alone.
        patch_size: Side of a region in pixels of the view; null is 48 for 224.
        patches: Regions an image.
        output_stride: Image side over the side of the backbone's map, 8, 16 or 32.
        projector_dim: Width of the embeddings of images and of regions.
        encoder_dim: Channels of the encoder's map and within the decoder.
        decoder_dim: Channels of the decoder's map.
        dropout: Dropout rate of the encoder's map.
        norm_momentum: Share of the new batch in BatchNorm's running statistics.
    """

    model_type = "rs_glcnet"

    recipe: str = "glcnet"
    # x / 255 * 3.2 - 1.6, GeoX-Lab/G-RSIM, T-SS-GLCNet/utils.
    image_std: list[float] | tuple[float, ...] = (0.3125, 0.3125, 0.3125)
    # T-SS-GLCNet: options of the training script, and its network.
    temperature: float = 0.5
    global_weight: float = 0.5
    style: bool = True
    patch_size: int | None = None
    patches: int = 4
    output_stride: int = 16
    projector_dim: int = 64
    encoder_dim: int = 256
    decoder_dim: int = 64
    dropout: float = 0.5
    norm_momentum: float = 0.9

    def __post_init__(self, **kwargs: Any) -> None:
        """Notes the dilation in the backbone's config, where `backbones` reads it."""
        if self.patch_size is None:
            self.patch_size = max(1, round(self.image_size * 48 / 224))
        super().__post_init__(**kwargs)
        self.backbone_config = copy.deepcopy(self.native)  # another model may be built of it too
        if self.native.model_type == "resnet":
            self.native.output_stride = self.output_stride
            self.native.first_block_dilated = True

    def validate_glcnet(self) -> None:
        """Ranges of the settings."""
        self.refuse(
            temperature=(self.temperature <= 0, "above 0"),
            global_weight=(not 0 <= self.global_weight <= 1, "from 0 to 1"),
            patches=(self.patches < 1, "1 or more"),
            patch_size=(
                not 1 <= (self.patch_size or 0) < self.image_size,
                f"at least 1 and below image_size={self.image_size}",
            ),
            output_stride=(self.output_stride not in (8, 16, 32), "8, 16 or 32"),
            dropout=(not 0 <= self.dropout < 1, "from 0 to below 1"),
            norm_momentum=(not 0 < self.norm_momentum <= 1, "above 0 and at most 1"),
        )


class GlcnetForPreTraining(SslModel):
    """Dilated backbone, ASPP encoder, decoder, and a projector for images and one for regions."""

    config_class = GlcnetConfig
    backbone_types: ClassVar[tuple[str, ...]] = ("resnet",)

    def __init__(self, config: GlcnetConfig) -> None:
        """Builds the network; a half without weight is left out."""
        super().__init__(config)
        low, *_, high = config.native.hidden_sizes
        norm_momentum = config.norm_momentum
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
        width = config.encoder_dim
        self.encoder = AsppEncoder(high, width, dropout=config.dropout, norm_momentum=norm_momentum)
        if config.global_weight > 0:
            style_width = 2 * width if config.style else width
            self.projector = mlp(style_width, 256, config.projector_dim)
        if config.global_weight < 1:
            wide = config.decoder_dim
            self.decoder = DeepLabV3PlusDecoder(
                low, wide, channels=width, norm_momentum=norm_momentum
            )
            self.region_projector = mlp(wide, wide, config.projector_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Kaiming-normal convolutions in encoder and decoder, torch's defaults in the heads."""
        if isinstance(module, nn.Linear):
            super()._init_weights(module)
        else:
            init_decoder_weights(module)

    @property
    def recipe(self) -> Recipe:
        """Two views and the regions that they share."""
        regions = Regions(self.config.patch_size, self.config.patches)
        return replace(super().recipe, regions=regions)

    def forward(self, batch: ViewBatch) -> SslOutput:
        """Global and local loss between the two views of each image.

        Args:
            batch: One crop size, (2*B, C, H, W), all first views then all second views, and
                `boxes` (2, B, R, 4).
        """
        if batch.boxes is None:
            raise UserError("GLCNet wants views with matching regions: use the method's recipe.")
        config, x = self.config, batch.crops[0]
        maps = backbones.stages(self.backbone, x)
        encoded = self.encoder(maps[-1])  # (2B, encoder_dim, H/16, W/16)
        loss, terms = x.new_zeros(()), {}
        if config.global_weight > 0:
            described = style(encoded) if config.style else encoded.mean(dim=(2, 3))
            z1, z2 = self.projector(described).chunk(2)  # (B, projector_dim) each
            far = nt_xent(z1, z2, temperature=config.temperature, positive_in_denominator=False)
            loss, terms["global_loss"] = loss + config.global_weight * far, far.detach()
        if config.global_weight < 1:
            decoded = self.decoder(encoded, maps[0])  # (2B, decoder_dim, H/4, W/4)
            z1, z2 = (  # (B*R, projector_dim) each
                self.region_projector(pool_regions(part, boxes, config.image_size))
                for part, boxes in zip(decoded.chunk(2), batch.boxes, strict=True)
            )
            near = region_nt_xent(z1, z2, temperature=config.temperature)
            loss, terms["local_loss"] = loss + (1 - config.global_weight) * near, near.detach()
        features = maps[-1].detach()[: len(x) // 2].mean(dim=(2, 3))  # (B, D)
        return SslOutput(loss=loss, terms=terms, embeddings=features)

    def segmentation_parts(self) -> tuple[nn.Module, nn.Module] | None:
        """Encoder and decoder that a segmentation model can start from; None without a decoder."""
        return (self.encoder, self.decoder) if self.config.global_weight < 1 else None


def style(x: Tensor) -> Tensor:
    """Mean and unbiased variance of each channel: (B, D, h, w) -> (B, 2 * D) float32."""
    flat = x.flatten(2).float()
    return torch.cat([flat.mean(dim=2), flat.var(dim=2)], dim=1)
