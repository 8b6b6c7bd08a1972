"""Native transformers backbones: build and load them, and read their features.

Everything that users load is a plain `ResNetModel`, `SwinModel` or `ViTModel`. The three differ in
small ways (the shape of the pooled output, windows that do not fit a small image, position
embeddings of another size, a pooler with weights); these differences are handled here and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

from ..bands import resolve_bands
from ..errors import UserError
from .adapt import dilate

# Sizes are those of the papers and of timm's and torchvision's models of the same name, so that
# weights convert both ways.
# name: (block, blocks a stage, channels a stage)
_RESNETS = {
    "resnet18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet34": ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    # Ours, an eighth of a ResNet-18's work: for CPU cores and studies.
    "resnet_mini": ("basic", [1, 1, 1, 1], [32, 64, 128, 256]),
    "resnet_nano": ("basic", [1, 1, 1, 1], [16, 32, 64, 128]),
}
# name: (channels of the first stage, blocks a stage, heads a stage, window in tokens). Windows of 4
# fill the grids of views of 64 pixels (16, 8, 4), where 7 would pad them to twice the tokens.
_SWINS = {
    "swin_tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24], 7),
    "swin_mini": (32, [1, 1, 2, 1], [1, 2, 4, 8], 4),
    "swin_nano": (16, [1, 1, 2, 2], [1, 2, 4, 8], 7),
}
# name: (channels, blocks, heads, patch in pixels)
_VITS = {
    "vit_small_patch16": (384, 12, 6, 16),
    "vit_mini_patch8": (128, 4, 4, 8),
    "vit_nano": (64, 3, 2, 8),
}
BACKBONES = (*_RESNETS, *_SWINS, *_VITS)
NATIVE_TYPES = ("resnet", "swin", "vit")


def backbone_config(
    name: str, *, bands: str | Sequence[str] = "rgb", image_size: int = 224
) -> PreTrainedConfig:
    """Configuration of a backbone by name.

    Args:
        name: One of `BACKBONES`.
        bands: Band names or a group such as "rgb"; their number is the number of input channels.
        image_size: Side of the training images in pixels. It sets the position embeddings of a ViT;
            ResNet and Swin take any size anyway.

    Raises:
        UserError: Unknown name, or an image smaller than one patch.
    """
    num_channels = len(resolve_bands(bands))
    if name in _RESNETS:
        layer_type, depths, hidden_sizes = _RESNETS[name]
        return ResNetConfig(
            num_channels=num_channels,
            layer_type=layer_type,
            depths=list(depths),
            hidden_sizes=list(hidden_sizes),
            # The stride sits in the 3x3 convolution, as in torchvision and timm ("v1.5").
            downsample_in_bottleneck=False,
        )
    if name in _SWINS:
        embed_dim, depths, num_heads, window_size = _SWINS[name]
        return SwinConfig(
            num_channels=num_channels,
            image_size=image_size,
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(num_heads),
            window_size=window_size,
        )
    if name in _VITS:
        hidden_size, layers, heads, patch_size = _VITS[name]
        if image_size < patch_size:
            raise UserError(
                f"Backbone '{name}' cuts patches of {patch_size} pixels but image_size is "
                f"{image_size}: use at least {patch_size}."
            )
        return ViTConfig(
            num_channels=num_channels,
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            layer_norm_eps=1e-6,  # timm's; transformers' default is 1e-12
            pooler_act="linear",  # with the identity of `reset_pooler`
        )
    raise UserError(f"Unknown backbone '{name}': use one of {', '.join(BACKBONES)}.")


def build(
    name: str, *, bands: str | Sequence[str] = "rgb", image_size: int = 224
) -> PreTrainedModel:
    """A randomly initialised native backbone; arguments and errors as `backbone_config`."""
    return from_config(backbone_config(name, bands=bands, image_size=image_size))


def from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A randomly initialised native backbone, dilated where its configuration says so.

    Unlike `AutoModel.from_config` it restores what the class itself does not know: the dilation
    recorded by `dilate` and the identity pooler of a ViT.

    Raises:
        UserError: The configuration is not of a ResNet, Swin or ViT.
    """
    check_native(config.model_type)
    model = reset_pooler(AutoModel.from_config(config))
    dilate_as_recorded(model)
    return model


def reset_pooler(model: PreTrainedModel) -> PreTrainedModel:
    """Makes a ViT's pooler the identity, frozen; other backbones stay as they are.

    Afterwards `pooler_output == last_hidden_state[:, 0]`.

    A ViT saved without a pooler gets a random one from `AutoModel`, and its `pooler_output` is then
    noise. Ours is always there, always the identity, and never trained (`pooled` reads the class
    token itself).
    """
    pooler = getattr(model, "pooler", None)
    if model.config.model_type != "vit":
        return model
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
    return model


def feature_dim(config: PreTrainedConfig) -> int:
    """Width D of `pooled` features for a native configuration."""
    check_native(config.model_type)
    return config.hidden_sizes[-1] if config.model_type == "resnet" else config.hidden_size


def output_stride(config: PreTrainedConfig) -> int:
    """Image side over the side of the `dense` feature map, with a ResNet dilated as recorded."""
    check_native(config.model_type)
    if config.model_type == "vit":
        return config.patch_size
    if config.model_type == "swin":
        return config.patch_size * 2 ** (len(config.depths) - 1)
    halvings = len(config.depths) - 1 + config.downsample_in_first_stage
    return getattr(config, "output_stride", None) or 4 * 2**halvings


def pooled(model: PreTrainedModel, x: Tensor) -> Tensor:
    """One feature vector an image: global average (ResNet, Swin) or class token (ViT).

    Args:
        model: Native backbone.
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        (B, D), in the dtype of the model (float32 outside autocast).
    """
    return _pool(model, _forward(model, x))


def dense(model: PreTrainedModel, x: Tensor) -> Tensor:
    """The last feature map.

    Args:
        model: Native backbone.
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        (B, D, h, w), where h and w are the image's divided by the output stride (patch size for a
        ViT).
    """
    return _map(model, x, _forward(model, x))


def pooled_and_dense(model: PreTrainedModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """What `pooled` and `dense` give, from one forward: (B, D) and (B, D, h, w)."""
    output = _forward(model, x)
    return _pool(model, output), _map(model, x, output)


def _pool(model: PreTrainedModel, output: Any) -> Tensor:
    if model.config.model_type == "vit":
        return output.last_hidden_state[:, 0]  # (B, D)
    return output.pooler_output.flatten(1)  # (B, D), from (B, D, 1, 1) for ResNet


def _map(model: PreTrainedModel, x: Tensor, output: Any) -> Tensor:
    hidden, model_type = output.last_hidden_state, model.config.model_type
    if model_type == "resnet":
        return hidden  # (B, D, h, w)
    if model_type == "vit":
        patch = model.config.patch_size
        hidden = hidden[:, 1:]  # (B, h*w, D), without the class token
        grid = x.shape[-2] // patch, x.shape[-1] // patch
    else:
        grid = _swin_grids(model, x)[-1]
    return hidden.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)


def stages(model: PreTrainedModel, x: Tensor) -> tuple[Tensor, ...]:
    """The feature map after each stage, from one forward.

    Args:
        model: Native ResNet (dilated or not) or Swin.
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        One (B, D_i, h_i, w_i) a stage, D_i as `stage_dims` says; the first has stride 4, and the
        last is that of `dense` (for a Swin after the final norm, the others before any).

    Raises:
        UserError: A ViT, which has one resolution only.
    """
    stage_dims(model.config)  # refuses a ViT
    if model.config.model_type == "resnet":
        return tuple(_forward(model, x, output_hidden_states=True).hidden_states[1:])
    # Before the patches are merged, so that stage i has its own width and not that of the next.
    output = _forward(
        model, x, output_hidden_states=True, output_hidden_states_before_downsampling=True
    )
    last = output.last_hidden_state.transpose(1, 2)  # (B, D, h*w)
    return *output.reshaped_hidden_states[1:-1], last.unflatten(2, _swin_grids(model, x)[-1])


def stage_dims(config: PreTrainedConfig) -> tuple[int, ...]:
    """Width D_i of each map of `stages` for a native configuration.

    Raises:
        UserError: A ViT, which has one resolution only.
    """
    check_native(config.model_type)
    if config.model_type == "resnet":
        return tuple(config.hidden_sizes)
    if config.model_type == "swin":
        return tuple(config.embed_dim * 2**stage for stage in range(len(config.depths)))
    raise UserError("A ViT has no stages, only one feature map: use a ResNet or a Swin.")


def _forward(model: PreTrainedModel, x: Tensor, **outputs: bool) -> Any:
    """Native forward at any image size; `outputs` asks transformers for more than the last map."""
    if x.ndim != 4 or x.shape[1] != model.config.num_channels:
        raise UserError(
            f"The backbone takes images (B, {model.config.num_channels}, H, W) but got "
            f"{tuple(x.shape)}: give it the bands that it was built for, or adapt its stem with "
            "`backbones.restem`."
        )
    model_type = model.config.model_type
    if model_type == "vit":
        return model(x, interpolate_pos_encoding=True, **outputs)
    if model_type == "swin":
        try:
            _fit_windows(model, _swin_grids(model, x))
            return model(x, always_partition=True, **outputs)
        finally:  # a plain call of a larger image afterwards must find its shifts
            _fit_windows(model)
    return model(x, **outputs)


def _swin_grids(model: PreTrainedModel, x: Tensor) -> list[tuple[int, int]]:
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


def check_native(model_type: str) -> None:
    """Refuses what is no ResNet, Swin or ViT."""
    if model_type not in NATIVE_TYPES:
        raise UserError(
            f"Backbones of type '{model_type}' are not supported: use one of {NATIVE_TYPES}."
        )


def dilate_as_recorded(model: PreTrainedModel, output_stride: int | None = None) -> None:
    """Dilates a ResNet as its configuration, or a record of its weights, says."""
    config = model.config
    stride = output_stride or getattr(config, "output_stride", None)
    if config.model_type == "resnet" and stride:
        dilate(model, stride, first_block_dilated=getattr(config, "first_block_dilated", False))
