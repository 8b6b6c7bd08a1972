"""DINOv2's ViT with registers: Darcet et al., ICLR 2024 (arXiv 2309.16588)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..errors import UserError
from .family import TIMM_ATTENTION, named_by_timm
from .vit import ViT, as_map, check_patch, resized_positions

# name: (channels, blocks, heads, patch in pixels)
_SIZES = {
    "dinov2_small_patch14": (384, 12, 6, 14),
    "dinov2_nano": (64, 3, 2, 8),
}
_REGISTERS = 4
_NAMES = (
    *TIMM_ATTENTION,
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
)
# Of timm's vit_small_patch14_reg4_dinov2.
_TIMM = {
    "patch_size": 14,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "mlp_ratio": 4,
    "qkv_bias": True,
    "reg_tokens": 4,
}


@dataclass(frozen=True)
class Dinov2(ViT):
    """A ViT with registers beside its class token and a scale on each layer; no pooler."""

    def config(self, name: str, num_channels: int, image_size: int) -> PreTrainedConfig:
        """The configuration of one of `sizes`, for images of one size."""
        hidden_size, layers, heads, patch_size = self.sizes[name]
        check_patch(name, patch_size, image_size)
        return Dinov2WithRegistersConfig(
            num_channels=num_channels,
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_register_tokens=_REGISTERS,
        )

    def prepare(self, model: PreTrainedModel, output_stride: int | None = None) -> None:
        """Freezes the mask token, which serves masked modelling alone."""
        token = cast(Any, model).embeddings.mask_token
        with torch.no_grad():
            token.zero_()
        token.requires_grad_(False)

    def drop_unused(self, model: PreTrainedModel) -> None:
        """Leaves the mask token: it is frozen."""

    def forward(self, model: PreTrainedModel, x: Tensor, **outputs: bool) -> Any:
        """Native forward, which fits its position embeddings by itself."""
        return model(x, **outputs)

    def map(self, model: PreTrainedModel, x: Tensor, output: Any) -> Tensor:
        """The patches' tokens as a map."""
        patches = output.last_hidden_state[:, 1 + model.config.num_register_tokens :]
        return as_map(patches, x, model.config.patch_size)

    def classified(self, model: PreTrainedModel, x: Tensor) -> Tensor:
        """Class token and the mean of the patches, (B, 2D)."""
        output = self.forward(model, x)
        patches = output.last_hidden_state[:, 1 + model.config.num_register_tokens :]
        return torch.cat((self.pool(output), patches.mean(1)), dim=1)

    def settle(self, config: Any, weights: dict[str, Tensor], train_size: int) -> None:
        """Resizes the position embeddings to the training size, as training did at every step."""
        key = "embeddings.position_embeddings"
        grid = train_size // config.patch_size
        weights[key] = resized_positions(weights[key], grid, antialias=True)
        config.image_size = train_size

    def timm_settings(self, config: Any) -> dict[str, Any]:
        """Timm's small one, with arguments for other sizes."""
        if config.use_swiglu_ffn:
            raise UserError("The giant DINOv2 of timm is not converted: export with timm=False.")
        given = {
            "patch_size": config.patch_size,
            "embed_dim": config.hidden_size,
            "depth": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "mlp_ratio": config.mlp_ratio,
            "qkv_bias": config.qkv_bias,
            "reg_tokens": config.num_register_tokens,
        }
        return named_by_timm("vit_small_patch14_reg4_dinov2", config.hidden_size, given, _TIMM)

    def native_config(self, timm_model: Any) -> PreTrainedConfig | None:
        """Of a timm ViT with class token, registers and positions of the patches alone."""
        from timm.models.vision_transformer import VisionTransformer

        if (
            type(timm_model) is not VisionTransformer
            or timm_model.cls_token is None
            or not timm_model.num_reg_tokens
            or not timm_model.no_embed_class
        ):
            return None
        block = cast(Any, timm_model.blocks[0])
        return Dinov2WithRegistersConfig(
            num_channels=timm_model.patch_embed.proj.in_channels,
            image_size=timm_model.patch_embed.img_size[0],
            patch_size=timm_model.patch_embed.patch_size[0],
            hidden_size=timm_model.embed_dim,
            num_hidden_layers=len(timm_model.blocks),
            num_attention_heads=block.attn.num_heads,
            mlp_ratio=block.mlp.fc1.out_features // timm_model.embed_dim,
            qkv_bias=block.attn.qkv.bias is not None,
            layer_norm_eps=getattr(timm_model.norm, "eps", 1e-6),
            num_register_tokens=timm_model.num_reg_tokens,
        )

    def to_timm(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Timm gives the class token no position: it goes into the token itself."""
        positions = weights["pos_embed"]
        token = weights["cls_token"] + positions[:, :1]
        return {**weights, "cls_token": token, "pos_embed": positions[:, 1:]}

    def of_timm(self, weights: dict[str, Tensor], native: nn.Module) -> dict[str, Tensor]:
        """The class token's position is zero, its token has it already."""
        positions = weights["pos_embed"]
        none = torch.zeros_like(positions[:, :1])
        return {**weights, "pos_embed": torch.cat((none, positions), dim=1)}


DINOV2 = Dinov2(
    model_type="dinov2_with_registers",
    model_class=Dinov2WithRegistersModel,
    title="DINOv2 with registers",
    long_title="DINOv2 Vision Transformer with registers",
    sizes=_SIZES,
    stem="embeddings.patch_embeddings.projection",
    counts_bands="embeddings.patch_embeddings",
    unused=("embeddings.mask_token",),
    has_stages=False,
    fixed_size=True,
    onnx_fixed=True,  # ONNX has no bicubic resizing with antialiasing of a size that is not known
    timm_names=_NAMES,
    timm_first="patch_embed.proj",
)
