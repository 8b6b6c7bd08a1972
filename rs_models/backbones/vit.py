"""Vision Transformer: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929), with a class token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, ViTConfig, ViTModel

from ..errors import UserError
from .family import TIMM_ATTENTION, Family, named_by_timm

# name: (channels, blocks, heads, patch in pixels)
_SIZES = {
    "vit_small_patch16": (384, 12, 6, 16),
    "vit_mini_patch8": (128, 4, 4, 8),
    "vit_nano": (64, 3, 2, 8),
}
_NAMES = (
    *TIMM_ATTENTION,
    (r"^layers\.", "blocks."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
)
# Of timm's vit_small_patch16_224.
_TIMM = {
    "patch_size": 16,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
}


@dataclass(frozen=True)
class ViT(Family):
    """One resolution, a class token, position embeddings for one size, a pooler that is no use."""

    def config(self, name: str, num_channels: int, image_size: int) -> PreTrainedConfig:
        """The configuration of one of `sizes`, for images of one size."""
        hidden_size, layers, heads, patch_size = self.sizes[name]
        check_patch(name, patch_size, image_size)
        return ViTConfig(
            num_channels=num_channels,
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            layer_norm_eps=1e-6,  # timm's; transformers' default is 1e-12
            pooler_act="linear",  # with the identity of `prepare`
        )

    def prepare(self, model: PreTrainedModel, output_stride: int | None = None) -> None:
        """Makes the pooler the identity, frozen, so that it gives the class token.

        A ViT saved without a pooler gets a random one from `AutoModel`, and its `pooler_output` is
        then noise. Ours is always there, always the identity, and never trained (`pool` reads the
        class token itself).
        """
        pooler: Any = getattr(model, "pooler", None)
        width = model.config.hidden_size
        if pooler is None:
            raise UserError(
                "This ViT was built without a pooler: build it with add_pooling_layer=True."
            )
        if pooler.dense.out_features != width:
            reference = pooler.dense.weight
            pooler.dense = nn.Linear(width, width, device=reference.device, dtype=reference.dtype)
        with torch.no_grad():
            pooler.dense.weight.copy_(torch.eye(width))
            pooler.dense.bias.zero_()
        pooler.activation = nn.Identity()
        pooler.requires_grad_(False)
        model.config.pooler_act = "linear"
        model.config.pooler_output_size = width

    def drop_unused(self, model: PreTrainedModel) -> None:
        """Takes the pooler away."""
        cast(Any, model).pooler = None

    def output_stride(self, config: Any) -> int:
        """The patch's side."""
        return config.patch_size

    def forward(self, model: PreTrainedModel, x: Tensor, **outputs: bool) -> Any:
        """Native forward with position embeddings for any image size."""
        return model(x, interpolate_pos_encoding=True, **outputs)

    def pool(self, output: Any) -> Tensor:
        """The class token."""
        return output.last_hidden_state[:, 0]  # (B, D)

    def map(self, model: PreTrainedModel, x: Tensor, output: Any) -> Tensor:
        """The patches' tokens as a map."""
        return as_map(output.last_hidden_state[:, 1:], x, model.config.patch_size)

    def settle(self, config: Any, weights: dict[str, Tensor], train_size: int) -> None:
        """Resizes the position embeddings to the training size, as training did at every step."""
        key = "embeddings.position_embeddings"
        weights[key] = resized_positions(weights[key], train_size // config.patch_size)
        config.image_size = train_size

    def describe(self, config: Mapping[str, Any]) -> str:
        """Blocks, channels and patches."""
        return (
            f"{self.long_title} of {config['num_hidden_layers']} blocks, {config['hidden_size']} "
            f"channels, patches of {config['patch_size']} pixels"
        )

    def timm_settings(self, config: Any) -> dict[str, Any]:
        """Timm's small ViT, with arguments for other sizes."""
        given = {
            "patch_size": config.patch_size,
            "embed_dim": config.hidden_size,
            "depth": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "mlp_ratio": config.intermediate_size / config.hidden_size,
            "qkv_bias": config.qkv_bias,
        }
        return named_by_timm("vit_small_patch16_224", config.hidden_size, given, _TIMM)

    def native_config(self, timm_model: Any) -> PreTrainedConfig | None:
        """Of a timm ViT with a class token; what else it may have shows in left-over weights."""
        from timm.models.vision_transformer import VisionTransformer

        if (
            type(timm_model) is not VisionTransformer
            or timm_model.cls_token is None
            or timm_model.num_reg_tokens
            or not len(timm_model.blocks)
        ):
            return None
        block = cast(Any, timm_model.blocks[0])
        return ViTConfig(
            num_channels=timm_model.patch_embed.proj.in_channels,
            image_size=timm_model.patch_embed.img_size[0],
            patch_size=timm_model.patch_embed.patch_size[0],
            hidden_size=timm_model.embed_dim,
            num_hidden_layers=len(timm_model.blocks),
            num_attention_heads=block.attn.num_heads,
            intermediate_size=block.mlp.fc1.out_features,
            qkv_bias=block.attn.qkv.bias is not None,
            layer_norm_eps=getattr(timm_model.norm, "eps", 1e-6),
            pooler_act="linear",
        )


def check_patch(name: str, patch_size: int, image_size: int) -> None:
    """Refuses images smaller than one patch."""
    if image_size < patch_size:
        raise UserError(
            f"Backbone '{name}' cuts patches of {patch_size} pixels but image_size is "
            f"{image_size}: use at least {patch_size}."
        )


def as_map(tokens: Tensor, x: Tensor, patch: int) -> Tensor:
    """Tokens (B, h*w, D) of patches of an image (B, C, H, W) as a map (B, D, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, (x.shape[-2] // patch, x.shape[-1] // patch))


def resized_positions(positions: Tensor, grid: int, *, antialias: bool = False) -> Tensor:
    """Position embeddings (1, 1 + h*w, D) for another square grid, as transformers resizes them."""
    side = round((positions.shape[1] - 1) ** 0.5)
    if side == grid:
        return positions
    patches = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    patches = F.interpolate(
        patches, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias
    )
    return torch.cat((positions[:, :1], patches.flatten(2).transpose(1, 2)), dim=1)


VIT = ViT(
    model_type="vit",
    model_class=ViTModel,
    title="ViT",
    long_title="Vision Transformer",
    sizes=_SIZES,
    stem="embeddings.patch_embeddings.projection",
    counts_bands="embeddings.patch_embeddings",
    unused=("pooler.",),
    has_stages=False,
    attends=True,
    fixed_size=True,
    timm_names=_NAMES,
    timm_first="patch_embed.proj",
)
