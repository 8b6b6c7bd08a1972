"""Weights between native transformers backbones and timm, both ways, with equal features.

The names of a native model are the keys; each has one place in timm's state dict. Queries, keys and
values are three native matrices and one stacked timm matrix.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, ResNetConfig, SwinConfig, ViTConfig

from ..bands import resolve_bands
from ..errors import UserError

# (native pattern, timm replacement), applied in order to the whole name.
_RESNET_NAMES = [
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
]
_TRANSFORMER_NAMES = [
    (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
]
_VIT_NAMES = [
    *_TRANSFORMER_NAMES,
    (r"^layers\.", "blocks."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
]
_SWIN_NAMES = [
    *_TRANSFORMER_NAMES,
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"\.attention\.relative_position_bias\.", ".attn."),
    # timm merges patches at the start of the next stage, transformers at the end of this one.
    (r"^encoder\.layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),
    (r"^encoder\.layers\.", "layers."),
]
_NAMES: dict[str, list[tuple[str, Any]]] = {
    "resnet": _RESNET_NAMES,
    "vit": _VIT_NAMES,
    "swin": _SWIN_NAMES,
}

# timm architectures by the native settings that tell them apart; other sizes are given as arguments
# of the first of the family.
_RESNET_ARCHITECTURES = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
_RESNET_PLANES = (64, 128, 256, 512)
_BOTTLENECK_EXPANSION = 4
_PROBE_TOLERANCE = 1e-3


def timm_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a native backbone under timm's names.

    Args:
        model: Native ResNet, Swin or ViT; a ViT's identity pooler has no counterpart and is left
            out.

    Returns:
        Names to tensors, detached, contiguous, in the model's dtype; loads strictly into the model
        of `timm_config`.
    """
    native = model.state_dict()
    names = _timm_names(model)
    stacked: dict[str, list[Tensor]] = {}
    for key, (name, _) in names.items():  # q, k, v come in this order in the native model
        stacked.setdefault(name, []).append(native[key].detach())
    return {
        name: (torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()
        for name, parts in stacked.items()
    }


def timm_config(config: PreTrainedConfig) -> dict[str, Any]:
    """The keys of timm's config.json that name the architecture of a native configuration.

    Returns:
        `architecture`, `num_features` and, where the sizes are not standard ones, `model_args`.

    Raises:
        UserError: timm cannot build this network.
    """
    if config.model_type == "resnet":
        return _timm_resnet(config)
    return _timm_vit(config) if config.model_type == "vit" else _timm_swin(config)


def from_timm(timm_model: nn.Module, *, name: str = "the timm model") -> PreTrainedModel:
    """Converts a timm model to the native one with equal features.

    Args:
        timm_model: A plain ResNet (7x7 stem, no extras), Swin (v1) or ViT (class token, no extras);
            a classifier is dropped.
        name: How to call it in errors.

    Raises:
        UserError: Another architecture, or one with parts that the native model lacks.
    """
    from .native import from_config, pooled

    config = _native_config(timm_model, name)
    model = from_config(config)
    source = dict(timm_model.state_dict())
    native = model.state_dict()
    names = _timm_names(model)
    missing = sorted({timm_name for timm_name, _ in names.values()} - set(source))
    unused = [
        key
        for key in sorted(set(source) - {timm_name for timm_name, _ in names.values()})
        if _is_weight(key)
    ]
    if missing or unused:
        raise UserError(
            f"{name} does not convert to a native {config.model_type}: missing {missing[:3]}, "
            f"left over {unused[:3]}; "
            "only plain ResNet, Swin and ViT models do."
        )
    for key, (timm_name, part) in names.items():
        tensor = source[timm_name] if part is None else source[timm_name].chunk(3)[part]
        if tensor.shape != native[key].shape:
            raise UserError(
                f"{name} does not convert: {timm_name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(native[key].shape)}."
            )
        native[key] = tensor.float()
    model.load_state_dict(native)
    model.eval()
    # Parts without weights (activations, blur pooling, average pooling in the shortcut) show only
    # in the features.
    probe = torch.randn(
        1, config.num_channels, *_probe_size(timm_model), generator=torch.Generator().manual_seed(0)
    )
    training = timm_model.training
    with torch.no_grad():
        expected = timm_features(timm_model.eval(), probe.to(next(timm_model.parameters())))
        difference = (
            pooled(model, probe) - expected.float().cpu()
        ).abs().max() / expected.abs().max().clamp_min(1.0).cpu()
    timm_model.train(training)
    if not difference < _PROBE_TOLERANCE:
        raise UserError(
            f"{name} does not convert to a native {config.model_type}: features differ by "
            f"{float(difference):.2g}; "
            "only plain ResNet, Swin and ViT models do."
        )
    return model


def load_timm(source: str, revision: str | None = None) -> PreTrainedModel:
    """Loads a pretrained timm model as a native backbone.

    Args:
        source: A folder in timm's layout, the Hub id of a timm repository, or a name with weights
            ("resnet50.a1_in1k").
        revision: Branch, tag or commit on the Hub.

    Returns:
        The converted model; `config.rs_models` holds what timm knows of the preprocessing of an RGB
        model.

    Raises:
        UserError: No such model, no safetensors, or one that does not convert.
    """
    import timm

    settings: dict[str, Any] = {}
    if Path(source).is_dir():
        name = f"local-dir:{source}"
    else:
        if "/" not in source:
            known = timm.models.get_pretrained_cfg(source) if timm.is_model(source) else None
            if known is None or not known.hf_hub_id:
                raise UserError(
                    f"No model '{source}': give a folder, a Hub id '<org>/<name>', or a timm name "
                    "with weights on the Hub."
                )
            source = known.hf_hub_id
        name = f"hf-hub:{source}@{revision}" if revision else f"hf-hub:{source}"
        # Named, else timm may fall back to a pickle.
        settings = {"hf_hub_filename": "model.safetensors"}
    try:
        timm_model = timm.create_model(
            name, pretrained=True, num_classes=0, pretrained_cfg_overlay=settings
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"Cannot load '{source}' with timm: {reason}") from error
    model = from_timm(timm_model, name=f"'{source}'")
    preprocessing: Any = timm_model.pretrained_cfg
    if model.config.num_channels == 3:
        model.config.rs_models = {
            "bands": list(resolve_bands("rgb")),
            "value_range": [0, 255],
            "image_mean": list(preprocessing["mean"]),
            "image_std": list(preprocessing["std"]),
            "train_size": preprocessing["input_size"][-1],
        }
    return model


def timm_features(timm_model: Any, x: Tensor) -> Tensor:
    """Pooled features (B, D) of a timm model, before any classifier, for images (B, C, H, W)."""
    return timm_model.forward_head(timm_model.forward_features(x), pre_logits=True)


def _timm_names(model: PreTrainedModel) -> dict[str, tuple[str, int | None]]:
    """Native name -> (timm name, which third of a stacked query-key-value matrix or None)."""
    names: dict[str, tuple[str, int | None]] = {}
    for key in model.state_dict():
        if key.startswith("pooler."):
            continue
        name = key
        for pattern, replacement in _NAMES[model.config.model_type]:
            name = re.sub(pattern, replacement, name)
        part = re.search(r"\.attention\.([qkv])_proj\.", key)
        names[key] = (name, "qkv".index(part[1]) if part else None)
    return names


def _is_weight(timm_key: str) -> bool:
    """Whether a timm entry must find a place: no classifier, no buffer that windows imply."""
    return not re.match(r"(fc|head|head\.fc)\.(weight|bias)$", timm_key) and not timm_key.endswith(
        ("relative_position_index", "attn_mask")
    )


def _probe_size(timm_model: Any) -> tuple[int, int]:
    patch_embed = getattr(timm_model, "patch_embed", None)
    return tuple(patch_embed.img_size) if patch_embed is not None else (64, 64)


def _native_config(timm_model: Any, name: str) -> PreTrainedConfig:
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    kind = type(timm_model)
    if kind is ResNet and isinstance(timm_model.conv1, nn.Conv2d):
        stages = [timm_model.layer1, timm_model.layer2, timm_model.layer3, timm_model.layer4]
        block = type(stages[0][0])
        if block in (BasicBlock, Bottleneck):
            last = "conv2" if block is BasicBlock else "conv3"
            return ResNetConfig(
                num_channels=timm_model.conv1.in_channels,
                embedding_size=timm_model.conv1.out_channels,
                layer_type="basic" if block is BasicBlock else "bottleneck",
                depths=[len(stage) for stage in stages],
                hidden_sizes=[getattr(stage[-1], last).out_channels for stage in stages],
            )
    if kind is SwinTransformer:
        blocks = [stage.blocks[0] for stage in timm_model.layers]
        return SwinConfig(
            num_channels=timm_model.patch_embed.proj.in_channels,
            image_size=timm_model.patch_embed.img_size[0],
            patch_size=timm_model.patch_embed.patch_size[0],
            embed_dim=timm_model.patch_embed.proj.out_channels,
            depths=[len(stage.blocks) for stage in timm_model.layers],
            num_heads=[block.attn.num_heads for block in blocks],
            window_size=blocks[0].attn.window_size[0],
            mlp_ratio=blocks[0].mlp.fc1.out_features / blocks[0].mlp.fc1.in_features,
            qkv_bias=blocks[0].attn.qkv.bias is not None,
            layer_norm_eps=timm_model.norm.eps,
        )
    if kind is VisionTransformer and timm_model.cls_token is not None and len(timm_model.blocks):
        block = timm_model.blocks[0]
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
    raise UserError(
        f"{name} is a {kind.__name__} that has no native counterpart: use a plain ResNet, Swin "
        "or ViT."
    )


def _timm_resnet(config: PreTrainedConfig) -> dict[str, Any]:
    if (
        config.embedding_size != 64
        or config.downsample_in_first_stage
        or config.downsample_in_bottleneck
    ):
        raise UserError(
            "timm has no ResNet with this stem or with strides in the first 1x1: export with "
            "timm=False."
        )
    expansion = _BOTTLENECK_EXPANSION if config.layer_type == "bottleneck" else 1
    planes = tuple(size // expansion for size in config.hidden_sizes)
    shape = (config.layer_type, tuple(config.depths))
    names = [name for name, known in _RESNET_ARCHITECTURES.items() if known == shape]
    if names and planes == _RESNET_PLANES:
        return {"architecture": names[0], "num_features": config.hidden_sizes[-1]}
    return {
        "architecture": "resnet18" if config.layer_type == "basic" else "resnet50",
        "num_features": config.hidden_sizes[-1],
        "model_args": {"layers": list(config.depths), "channels": list(planes)},
    }


def _timm_vit(config: PreTrainedConfig) -> dict[str, Any]:
    given = {
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.qkv_bias,
    }
    standard = {
        "patch_size": 16,
        "embed_dim": 384,
        "depth": 12,
        "num_heads": 6,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
    }
    return _with_arguments("vit_small_patch16_224", config.hidden_size, given, standard)


def _timm_swin(config: PreTrainedConfig) -> dict[str, Any]:
    if config.use_absolute_embeddings:
        raise UserError("timm's Swin has no absolute position embeddings: export with timm=False.")
    given = {
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": config.window_size,
        "mlp_ratio": float(config.mlp_ratio),
        "qkv_bias": config.qkv_bias,
    }
    standard = {
        "patch_size": 4,
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
    }
    return _with_arguments("swin_tiny_patch4_window7_224", config.hidden_size, given, standard)


def _with_arguments(
    architecture: str, num_features: int, given: dict[str, Any], standard: dict[str, Any]
) -> dict[str, Any]:
    changed = {key: value for key, value in given.items() if value != standard[key]}
    keys: dict[str, Any] = {"architecture": architecture, "num_features": num_features}
    return {**keys, "model_args": changed} if changed else keys
