"""The backbone in a file: its sizes, read from the weights, and the native model with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, ResNetConfig, SwinConfig, ViTConfig

from ..backbones.timm_interop import from_timm, timm_config
from ..errors import UserError
from .keys import check_fit, get, listed
from .layouts import IMPLIED, MARKS, OPTIONAL, SEQUENTIAL

# Heads by width of DINO's ViTs (tiny, small, base); the weights do not tell their number.
_VIT_HEADS = {192: 3, 384: 6, 768: 12}


def build(own: Mapping[str, Tensor], file: Path, heads: int | None) -> PreTrainedModel:
    """The native model with these weights, which bear torchvision's or timm's names.

    It goes by way of timm's model of the same sizes, whose features are compared with the native
    one's: two implementations agree on what the weights mean.
    """
    import timm

    kind = next((kind for kind, marks in MARKS.items() if any(m in own for m in marks)), None)
    if kind is None:
        raise UserError(f"{file} has no backbone left once its heads are set aside.")
    if kind == "resnet":
        own = _resnet_names(own)
        config: PreTrainedConfig = _resnet_config(own, file)
    elif kind == "vit":
        config = _vit_config(own, file, heads)
    else:
        own = _swin_names(own)
        config = _swin_config(own, file)
    settings = timm_config(config)
    arguments = dict(settings.get("model_args", {}))
    if kind != "resnet":
        arguments["img_size"] = config.image_size
    model = timm.create_model(
        settings["architecture"], num_classes=0, in_chans=config.num_channels, **arguments
    )
    expected = model.state_dict()
    needed = [key for key in expected if not OPTIONAL.search(key) and not IMPLIED.search(key)]
    missing = [key for key in needed if key not in own]
    left = [key for key in own if key not in expected]
    if missing or left:
        raise UserError(
            f"{file} does not fill a {kind}: missing {listed(missing)}, unmatched {listed(left)}; "
            "a part of a backbone is never loaded."
        )
    for key, value in own.items():
        check_fit(key, value, expected[key], file, f"a {kind}")
    model.load_state_dict({**expected, **own})
    return from_timm(model, name=str(file))


def _resnet_names(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of a Sequential become torchvision's names of the layers.

    One whose name is taken stays, to be refused as left over.
    """
    if any(key.startswith("layer") for key in own):
        return dict(own)
    named = {}
    for key, value in own.items():
        head, dot, rest = key.partition(".")
        plain = SEQUENTIAL.get(head, head) + dot + rest
        named[key if plain in own else plain] = value
    return named


def _resnet_config(own: Mapping[str, Tensor], file: Path) -> ResNetConfig:
    """Sizes of a ResNet under torchvision's names."""
    stem = _shape(own, "conv1.weight", file)
    if stem[2:] != (7, 7):
        raise UserError(
            f"The first convolution of {file} is {stem[2]}x{stem[3]}: only ResNets with the 7x7 "
            "stem have a native counterpart."
        )
    last = "conv3" if any(key.endswith(".conv3.weight") for key in own) else "conv2"
    depths, sizes = [], []
    for stage in range(1, 5):
        depths.append(_count(own, rf"layer{stage}\.(\d+)\."))
        # Of any block: should another one's be missing, it is listed with all that are.
        names = [f"layer{stage}.{block}.{last}.weight" for block in range(depths[-1])]
        sizes.append(_shape(own, next((n for n in names if n in own), names[0]), file)[0])
    return ResNetConfig(
        num_channels=stem[1],
        embedding_size=stem[0],
        layer_type="bottleneck" if last == "conv3" else "basic",
        depths=depths,
        hidden_sizes=sizes,
    )


def _vit_config(own: Mapping[str, Tensor], file: Path, heads: int | None) -> ViTConfig:
    """Sizes of a ViT under timm's names, which are DINO's too."""
    width, channels, patch, _ = _shape(own, "patch_embed.proj.weight", file)
    heads = heads or _VIT_HEADS.get(width)
    if heads is None or width % heads:
        raise UserError(
            f"The weights of a ViT {width} channels wide do not tell its attention heads: say "
            "--heads N, a divisor of the width."
        )
    grid = round((_shape(own, "pos_embed", file)[1] - 1) ** 0.5)
    return ViTConfig(
        num_channels=channels,
        image_size=grid * patch,
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=_count(own, r"blocks\.(\d+)\."),
        num_attention_heads=heads,
        intermediate_size=_shape(own, "blocks.0.mlp.fc1.weight", file)[0],
        qkv_bias="blocks.0.attn.qkv.bias" in own,
        layer_norm_eps=1e-6,  # DINO's and timm's
    )


def _swin_names(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official Swin merges patches at the end of a stage, timm at the start of the next."""
    at_end = any(key.startswith("layers.0.downsample.") for key in own)

    def moved(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + at_end}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", moved, k): v for k, v in own.items()}


def _swin_config(own: Mapping[str, Tensor], file: Path) -> SwinConfig:
    """Sizes of a Swin (v1) under timm's names."""
    width, channels, patch, _ = _shape(own, "patch_embed.proj.weight", file)
    depths, num_heads, side = [], [], 0
    for stage in range(_count(own, r"layers\.(\d+)\.")):
        depths.append(_count(own, rf"layers\.{stage}\.blocks\.(\d+)\."))
        table = f"layers.{stage}.blocks.0.attn.relative_position_bias_table"
        offsets, heads = _shape(own, table, file)
        num_heads.append(heads)
        side = round(offsets**0.5)  # 2 * window - 1
    return SwinConfig(
        num_channels=channels,
        image_size=224,
        patch_size=patch,
        embed_dim=width,
        depths=depths,
        num_heads=num_heads,
        window_size=(side + 1) // 2,
        mlp_ratio=_shape(own, "layers.0.blocks.0.mlp.fc1.weight", file)[0] / width,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in own,
    )


def _count(own: Mapping[str, Tensor], numbered: str) -> int:
    """One more than the highest number that the pattern finds at the start of a name."""
    return 1 + max((int(m[1]) for key in own if (m := re.match(numbered, key))), default=0)


def _shape(own: Mapping[str, Tensor], key: str, file: Path) -> tuple[int, ...]:
    return tuple(get(own, key, file).shape)
