"""Segmentation networks: a native backbone under the decoders of GLCNet and TOV.

`import rs_models` registers both networks, so `AutoModelForSemanticSegmentation.from_pretrained`
restores them. To fine-tune a segmentation checkpoint on other classes:
`from_pretrained(path, num_labels=7, ignore_mismatched_sizes=True)` replaces the output layer only.

Both take images of any size, normalised as the backbone expects (`config.backbone_config.rs_models`
says how, where the backbone is one of ours).
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from typing import Any, ClassVar, cast

import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from .. import backbones
from ..backbones.decoders import (
    AsppEncoder,
    DeepLabV3PlusDecoder,
    FcnDecoder,
    init_decoder_weights,
    resize,
)
from ..backbones.nested import NestedBackboneConfig, OverBackbone
from ..data.names import IGNORE
from ..errors import UserError


@strict
class SegmentationConfig(NestedBackboneConfig):
    """Settings of both networks; the classes are transformers' `num_labels` or `id2label`.

    Args:
        backbone_config: Config of the native backbone; a ResNet-50 over RGB when none is given.
        output_stride: Image side over the side of the backbone's last map: 8, 16 or 32, reached by
            dilation. None is the paper's for a ResNet; a Swin or ViT keeps its own.
        first_block_dilated: Whether the first block of a dilated stage is dilated too (GLCNet) or
            keeps the dilation of the stage before (torchvision).
        norm_momentum: Share of the new batch in the running statistics of the decoder's BatchNorm.
            GLCNet's code has 0.9, which makes evaluation depend on the last few batches; torch's
            default is ours.
        loss_ignore_index: Label of pixels without a class; the loss leaves them out.
    """

    paper_output_stride: ClassVar[int] = 32

    output_stride: int | None = None
    first_block_dilated: bool = False
    norm_momentum: float = 0.1
    loss_ignore_index: int = IGNORE

    def settle(self) -> None:
        """Records the dilation where `backbones.from_config` looks."""
        if backbones.family(self.native).strides:
            self.output_stride = self.output_stride or self.paper_output_stride
            self.native.output_stride = self.output_stride
            self.native.first_block_dilated = self.first_block_dilated

    def validate_output_stride(self) -> None:
        """Only a ResNet can be dilated, and only to strides that its stages reach."""
        kind = backbones.family_or_none(self.backbone_config)
        allowed = (None, *(kind.strides if kind else (8, 16, 32)))
        if self.output_stride not in allowed:
            raise ValueError(
                f"The setting output_stride is {self.output_stride}; it must be 8, 16 or 32 for a "
                "ResNet, and left out for other backbones."
            )

    def validate_labels(self) -> None:
        """One class leaves nothing to learn: its cross entropy is always 0."""
        if self.id2label is not None and len(self.id2label) < 2:
            raise ValueError(
                f"The setting num_labels is {len(self.id2label)}; segmentation needs at least 2."
            )


@strict
class DeepLabV3PlusConfig(SegmentationConfig):
    """Settings of GLCNet's fine-tuning network.

    Args:
        decoder_channels: Channels of ASPP and of the decoder.
        low_level_channels: Channels that the backbone's first map is reduced to.
        atrous_rates: Dilations of ASPP.
        encoder_dropout: Dropout after ASPP.
        decoder_dropout: Dropout after the first and the second convolution of the decoder.
    """

    model_type = "rs_deeplabv3plus"
    paper_output_stride: ClassVar[int] = 16

    # All constants: GeoX-Lab/G-RSIM, T-SS-GLCNet, fine-tuning network.
    first_block_dilated: bool = True
    decoder_channels: int = 256
    low_level_channels: int = 48
    atrous_rates: list[int] | tuple[int, ...] = (6, 12, 18)
    encoder_dropout: float = 0.5
    decoder_dropout: list[float] | tuple[float, ...] = (0.5, 0.1)

    def validate_decoder_dropout(self) -> None:
        """The decoder has two places for dropout."""
        if len(self.decoder_dropout) != 2:
            raise ValueError(
                f"The setting decoder_dropout has {len(self.decoder_dropout)} values, not 2."
            )


@strict
class FcnConfig(SegmentationConfig):
    """Settings of TOV's segmentation network (`FCN_d8`), those of every network here."""

    model_type = "rs_fcn"
    # GeoX-Lab/G-RSIM, TOV_v1: stages 3 and 4 dilated, as torchvision does it.
    paper_output_stride: ClassVar[int] = 8


class SegmentationModel(OverBackbone, PreTrainedModel):
    """A native backbone and a decoder; a subclass builds the decoder and defines `logits`."""

    config_class = SegmentationConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: SegmentationConfig) -> None:
        """Builds the native backbone; a subclass adds its decoder and calls `post_init()`."""
        super().__init__(config)
        self.backbone = backbones.from_config(config.native)
        backbones.family(config.native).drop_unused(self.backbone)

    def logits(self, pixel_values: Tensor) -> Tensor:
        """Scores of every class and pixel, (B, C, H, W) -> (B, num_labels, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} defines its own logits.")

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None
    ) -> SemanticSegmenterOutput:
        """Scores, and the loss where labels are given.

        Args:
            pixel_values: Normalised images, (B, C, H, W).
            labels: Class of each pixel, (B, H, W), integers; `config.loss_ignore_index` where there
                is none.

        Returns:
            `logits` (B, num_labels, H, W) at the images' size, and `loss`: cross entropy, mean over
            the labelled pixels of the batch, 0 when there is none.

        Raises:
            UserError: Labels of another size than the images, or images with other bands than the
                backbone's.
        """
        logits = self.logits(pixel_values)
        if labels is None:
            return SemanticSegmenterOutput(logits=cast(Any, logits))
        if labels.shape != (len(logits), *logits.shape[2:]):
            raise UserError(
                f"Labels {tuple(labels.shape)} do not fit images {tuple(pixel_values.shape)}: give "
                "(B, H, W), one class a pixel."
            )
        ignored = self.config.loss_ignore_index
        total = F.cross_entropy(logits, labels.long(), ignore_index=ignored, reduction="sum")
        # Not torch's mean, which is NaN for a batch without any labelled pixel.
        loss = total / (labels != ignored).sum().clamp_min(1)
        return SemanticSegmenterOutput(loss=loss, logits=cast(Any, logits))

    def _init_weights(self, module: nn.Module) -> None:
        """Initial values of the decoder; the backbone has transformers' own."""
        init_decoder_weights(module)


class DeepLabV3PlusForSemanticSegmentation(SegmentationModel):
    """DeepLabV3+ as GLCNet fine-tunes it: backbone, ASPP, decoder over stage 1."""

    config_class = DeepLabV3PlusConfig

    def __init__(self, config: DeepLabV3PlusConfig) -> None:
        """Builds backbone, ASPP and decoder."""
        super().__init__(config)
        low_channels, *_, last_channels = backbones.stage_dims(config.native)
        first, second = config.decoder_dropout
        self.encoder = AsppEncoder(
            last_channels,
            config.decoder_channels,
            config.atrous_rates,
            config.encoder_dropout,
            norm_momentum=config.norm_momentum,
        )
        self.decoder = DeepLabV3PlusDecoder(
            low_channels,
            cast(int, config.num_labels),
            channels=config.decoder_channels,
            low_channels_out=config.low_level_channels,
            dropout=(first, second),
            norm_momentum=config.norm_momentum,
        )
        self.post_init()

    def logits(self, pixel_values: Tensor) -> Tensor:
        """Scores of every class and pixel, (B, C, H, W) -> (B, num_labels, H, W)."""
        low_level, *_, last = backbones.stages(self.backbone, pixel_values)
        scores = self.decoder(self.encoder(last), low_level)  # (B, num_labels, H/4, W/4)
        return resize(scores, pixel_values.shape[2:], align_corners=True)


class FcnForSemanticSegmentation(SegmentationModel):
    """The FCN that TOV fine-tunes; it takes a ViT too, since it needs one feature map only."""

    config_class = FcnConfig

    def __init__(self, config: FcnConfig) -> None:
        """Builds backbone and decoder."""
        super().__init__(config)
        self.decoder = FcnDecoder(
            backbones.feature_dim(config.native),
            cast(int, config.num_labels),
            norm_momentum=config.norm_momentum,
        )
        self.post_init()

    def logits(self, pixel_values: Tensor) -> Tensor:
        """Scores of every class and pixel, (B, C, H, W) -> (B, num_labels, H, W)."""
        scores = self.decoder(backbones.dense(self.backbone, pixel_values))
        return resize(scores, pixel_values.shape[2:], align_corners=False)


# The networks that `import rs_models` registers.
SEGMENTERS: tuple[tuple[type[SegmentationConfig], type[SegmentationModel]], ...] = (
    (DeepLabV3PlusConfig, DeepLabV3PlusForSemanticSegmentation),
    (FcnConfig, FcnForSemanticSegmentation),
)


def from_pretraining_decoder(
    backbone: PreTrainedModel,
    encoder: AsppEncoder,
    decoder: DeepLabV3PlusDecoder,
    *,
    num_labels: int = 2,
    **settings: Any,
) -> DeepLabV3PlusForSemanticSegmentation:
    """The segmentation network that starts from everything GLCNet has pretrained.

    Args:
        backbone: Native ResNet or Swin, dilated as it was trained; what its config holds
            (`rs_models` included) goes into `config.backbone_config`.
        encoder: The pretrained ASPP.
        decoder: The pretrained decoder. Its output layer, to features, is dropped for a random one
            to classes; the released fine-tuning drops the whole decoder by default.
        num_labels: Number of classes.
        **settings: Further fields of `DeepLabV3PlusConfig`; sizes, dilation and BatchNorm momentum
            are those of the modules.

    Returns:
        A float32 network on the CPU, in evaluation mode, with copies of the weights.
    """
    native = backbone.config
    if backbones.family(native).strides:
        settings["output_stride"] = backbones.output_stride(native)
        settings["first_block_dilated"] = getattr(native, "first_block_dilated", False)
    config = DeepLabV3PlusConfig(
        # transformers would build the backbone alone in a half precision recorded here.
        backbone_config={**native.to_dict(), "dtype": "float32"},
        decoder_channels=encoder.channels,
        low_level_channels=decoder.low_channels_out,
        atrous_rates=encoder.rates,
        **{"norm_momentum": encoder.norm_momentum, "num_labels": num_labels, **settings},
    )
    model = DeepLabV3PlusForSemanticSegmentation(config)
    model.load_backbone(backbone)
    model.encoder.load_state_dict(encoder.state_dict())
    output = {f"output.{key}": value for key, value in model.decoder.output.state_dict().items()}
    model.decoder.load_state_dict({**decoder.state_dict(), **output})
    return model.eval()
