"""Swin Transformer: Liu et al., ICCV 2021 (arXiv 2103.14030), version 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, SwinConfig, SwinModel

from ..errors import UserError
from .family import TIMM_ATTENTION, Family, listed, named_by_timm

# name: (channels of the first stage, blocks a stage, heads a stage, window in tokens). Windows of 4
# fill the grids of views of 64 pixels (16, 8, 4), where 7 would pad them to twice the tokens.
_SIZES = {
    "swin_tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24], 7),
    "swin_mini": (32, [1, 1, 2, 1], [1, 2, 4, 8], 4),
    "swin_nano": (16, [1, 1, 2, 2], [1, 2, 4, 8], 7),
}
_NAMES = (
    *TIMM_ATTENTION,
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"\.attention\.relative_position_bias\.", ".attn."),
    # timm merges patches at the start of the next stage, transformers at the end of this one.
    (r"^encoder\.layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),
    (r"^encoder\.layers\.", "layers."),
)
# Of timm's swin_tiny_patch4_window7_224.
_TIMM = {
    "patch_size": 4,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
}


@dataclass(frozen=True)
class Swin(Family):
    """Attention in windows, merged patches from stage to stage."""

    def config(self, name: str, num_channels: int, image_size: int) -> PreTrainedConfig:
        """The configuration of one of `sizes`; any image size fits."""
        embed_dim, depths, num_heads, window_size = self.sizes[name]
        return SwinConfig(
            num_channels=num_channels,
            image_size=image_size,
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(num_heads),
            window_size=window_size,
        )

    def output_stride(self, config: Any) -> int:
        """32 for patches of 4 and four stages."""
        return config.patch_size * 2 ** (len(config.depths) - 1)

    def stage_dims(self, config: Any) -> tuple[int, ...]:
        """Channels of each stage, before they are merged."""
        return tuple(config.embed_dim * 2**stage for stage in range(len(config.depths)))

    def processor_size(self, config: Any, train_size: int) -> int:
        """At least what fills one window of the last stage (224 pixels for Swin-T).

        A plain `SwinModel` cannot take less; rs_models' own calls can (see `forward`).
        """
        return max(train_size, self.output_stride(config) * config.window_size)

    def forward(self, model: PreTrainedModel, x: Tensor, **outputs: bool) -> Any:
        """Native forward whose windows fit any image."""
        try:
            _fit_windows(model, _grids(model, x))
            return model(x, always_partition=True, **outputs)
        finally:  # a plain call of a larger image afterwards must find its shifts
            _fit_windows(model)

    def map(self, model: PreTrainedModel, x: Tensor, output: Any) -> Tensor:
        """The tokens of the last stage as a map."""
        return output.last_hidden_state.transpose(1, 2).unflatten(2, _grids(model, x)[-1])

    def stages(self, model: PreTrainedModel, x: Tensor) -> tuple[Tensor, ...]:
        """Maps before patches are merged, so that stage i has its own width; the last normed."""
        output = self.forward(
            model, x, output_hidden_states=True, output_hidden_states_before_downsampling=True
        )
        return *output.reshaped_hidden_states[1:-1], self.map(model, x, output)

    def settle(self, config: Any, weights: dict[str, Tensor], train_size: int) -> None:
        """Notes the size that plain calls take."""
        config.image_size = self.processor_size(config, train_size)

    def describe(self, config: Mapping[str, Any]) -> str:
        """Blocks and channels."""
        return (
            f"{self.long_title} of {listed(config['depths'])} blocks, {config['embed_dim']} "
            "channels"
        )

    def timm_settings(self, config: Any) -> dict[str, Any]:
        """Timm's tiny Swin, with arguments for other sizes."""
        if config.use_absolute_embeddings:
            raise UserError(
                "The Swin of timm has no absolute position embeddings: export with timm=False."
            )
        given = {
            "patch_size": config.patch_size,
            "embed_dim": config.embed_dim,
            "depths": list(config.depths),
            "num_heads": list(config.num_heads),
            "window_size": config.window_size,
            "mlp_ratio": float(config.mlp_ratio),
            "qkv_bias": config.qkv_bias,
        }
        return named_by_timm("swin_tiny_patch4_window7_224", config.hidden_size, given, _TIMM)

    def native_config(self, timm_model: Any) -> PreTrainedConfig | None:
        """Of timm's Swin, version 1."""
        from timm.models.swin_transformer import SwinTransformer

        if type(timm_model) is not SwinTransformer:
            return None
        network: Any = timm_model
        blocks = [stage.blocks[0] for stage in network.layers]
        return SwinConfig(
            num_channels=network.patch_embed.proj.in_channels,
            image_size=network.patch_embed.img_size[0],
            patch_size=network.patch_embed.patch_size[0],
            embed_dim=network.patch_embed.proj.out_channels,
            depths=[len(stage.blocks) for stage in network.layers],
            num_heads=[block.attn.num_heads for block in blocks],
            window_size=blocks[0].attn.window_size[0],
            mlp_ratio=blocks[0].mlp.fc1.out_features / blocks[0].mlp.fc1.in_features,
            qkv_bias=blocks[0].attn.qkv.bias is not None,
            layer_norm_eps=network.norm.eps,
        )


def _grids(model: PreTrainedModel, x: Tensor) -> list[tuple[int, int]]:
    """Height and width of the token grid in each stage, rounded up as Swin pads."""
    patch = model.config.patch_size
    height, width = -(-x.shape[-2] // patch), -(-x.shape[-1] // patch)
    grids = [(height, width)]
    for _ in model.config.depths[1:]:
        height, width = (height + 1) // 2, (width + 1) // 2
        grids.append((height, width))
    return grids


def _fit_windows(model: PreTrainedModel, grids: list[tuple[int, int]] | None = None) -> None:
    """Sets each block's window and shift for token grids; without them, as the model is built.

    A plain `SwinModel` call shrinks its windows for good when an image is smaller than a window and
    fails from then on. `always_partition=True` avoids that but also shifts the windows of a stage
    that is one window wide, which a plain call (and timm) does not: at 224 pixels the features
    differ. So shifts are switched off there first, and both agree.
    """
    window = model.config.window_size
    layers: Any = model.get_submodule("encoder.layers")
    for stage, grid in zip(layers, grids or (None,) * len(layers), strict=True):
        shifted = grid is None or min(grid) > window
        for index, block in enumerate(stage.blocks):
            block.window_size = window
            block.shift_size = window // 2 if index % 2 and shifted else 0


SWIN = Swin(
    model_type="swin",
    model_class=SwinModel,
    title="Swin",
    long_title="Swin Transformer",
    sizes=_SIZES,
    stem="embeddings.patch_embeddings.projection",
    counts_bands="embeddings.patch_embeddings",
    fixed_size=True,
    onnx_fixed=True,  # its windows are cut in Python
    maps_prefix="swin.",
    timm_names=_NAMES,
    timm_first="patch_embed.proj",
)
