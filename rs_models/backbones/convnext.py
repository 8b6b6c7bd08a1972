"""ConvNeXt: Liu et al., CVPR 2022 (arXiv 2201.03545), and V2: Woo et al., CVPR 2023 (2301.00808).

V2 differs by a response norm in each block, in place of the layer scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2Model,
    PreTrainedConfig,
)

from .family import Family, listed, named_by_timm

# name: (blocks a stage, channels a stage)
_SIZES = {
    "convnext_tiny": ([3, 3, 9, 3], [96, 192, 384, 768]),
    "convnext_nano": ([1, 1, 1, 1], [16, 32, 64, 128]),
}
_SIZES_V2 = {
    "convnextv2_tiny": ([3, 3, 9, 3], [96, 192, 384, 768]),
    "convnextv2_nano": ([1, 1, 1, 1], [16, 32, 64, 128]),
}
_NAMES = (
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^layernorm\.", "head.norm."),
    (r"^encoder\.stages\.", "stages."),
    (r"\.downsampling_layer\.", ".downsample."),
    (r"\.layers\.", ".blocks."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv1\.", ".mlp.fc1."),
    (r"\.pwconv2\.", ".mlp.fc2."),
    (r"\.grn\.", ".mlp.grn."),
    (r"\.layer_scale_parameter$", ".gamma"),
)
# Of timm's convnext_tiny and convnextv2_tiny.
_TIMM = {"depths": [3, 3, 9, 3], "dims": [96, 192, 384, 768], "patch_size": 4}
_EPS = 1e-6  # timm's and the papers'; transformers' default of the last norm is 1e-12


@dataclass(frozen=True)
class ConvNeXt(Family):
    """Convolutions in four stages, a norm after the global average."""

    config_class: Any = ConvNextConfig  # or that of V2
    timm_tiny: str = "convnext_tiny"
    response_norm: bool = False

    def config(self, name: str, num_channels: int, image_size: int) -> PreTrainedConfig:
        """The configuration of one of `sizes`; any image size fits."""
        depths, widths = self.sizes[name]
        return self.config_class(
            num_channels=num_channels,
            image_size=image_size,
            depths=list(depths),
            hidden_sizes=list(widths),
            layer_norm_eps=_EPS,
        )

    def feature_dim(self, config: Any) -> int:
        """Channels of the last stage."""
        return config.hidden_sizes[-1]

    def output_stride(self, config: Any) -> int:
        """32 for patches of 4 and four stages."""
        return config.patch_size * 2 ** (len(config.depths) - 1)

    def stage_dims(self, config: Any) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(config.hidden_sizes)

    def stages(self, model: Any, x: Tensor) -> tuple[Tensor, ...]:
        """Each stage's map, before any norm."""
        hidden = self.forward(model, x, output_hidden_states=True).hidden_states
        return tuple(hidden[-len(model.config.depths) :])

    def describe(self, config: Mapping[str, Any]) -> str:
        """Blocks and channels."""
        widths, depths = config["hidden_sizes"], config["depths"]
        return f"{self.long_title} of {listed(depths)} blocks with {listed(widths)} channels"

    def timm_settings(self, config: Any) -> dict[str, Any]:
        """Timm's tiny one, with arguments for other sizes."""
        given = {
            "depths": list(config.depths),
            "dims": list(config.hidden_sizes),
            "patch_size": config.patch_size,
        }
        return named_by_timm(self.timm_tiny, config.hidden_sizes[-1], given, _TIMM)

    def native_config(self, timm_model: Any) -> PreTrainedConfig | None:
        """Of timm's ConvNeXt with linear layers in its blocks and a patch stem."""
        from timm.models.convnext import ConvNeXt as TimmConvNeXt

        if type(timm_model) is not TimmConvNeXt:
            return None
        network: Any = timm_model
        block = network.stages[0].blocks[0]
        stem = network.stem[0]
        if (
            hasattr(block.mlp, "grn") != self.response_norm
            or block.use_conv_mlp
            or len(network.stem) != 2
            or stem.kernel_size != stem.stride
        ):
            return None
        return self.config_class(
            num_channels=stem.in_channels,
            patch_size=stem.stride[0],
            depths=[len(stage.blocks) for stage in network.stages],
            hidden_sizes=[stage.blocks[-1].conv_dw.out_channels for stage in network.stages],
            layer_norm_eps=network.head.norm.eps,
        )

    def to_timm(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The response norm's weights are vectors in timm, (1, 1, 1, D) in transformers."""
        return {
            key: weight.flatten() if ".grn." in key else weight for key, weight in weights.items()
        }

    def of_timm(self, weights: dict[str, Tensor], native: nn.Module) -> dict[str, Tensor]:
        """The reverse of `to_timm`."""
        return {
            key: weight[None, None, None] if ".grn." in key else weight
            for key, weight in weights.items()
        }


_SHARED: dict[str, Any] = {
    "stem": "embeddings.patch_embeddings",
    "counts_bands": "embeddings",
    "timm_names": _NAMES,
    "timm_first": "stem.0",
    "timm_classifier": "head.fc",
}
CONVNEXT = ConvNeXt(
    model_type="convnext",
    model_class=ConvNextModel,
    title="ConvNeXt",
    long_title="ConvNeXt",
    sizes=_SIZES,
    **_SHARED,
)
CONVNEXT_V2 = ConvNeXt(
    model_type="convnextv2",
    model_class=ConvNextV2Model,
    title="ConvNeXt V2",
    long_title="ConvNeXt V2",
    sizes=_SIZES_V2,
    config_class=ConvNextV2Config,
    timm_tiny="convnextv2_tiny",
    response_norm=True,
    **_SHARED,
)
