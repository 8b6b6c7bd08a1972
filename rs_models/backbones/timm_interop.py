"""Weights between native transformers backbones and timm, both ways, with equal features.

The names of a native model are the keys; each has one place in timm's state dict. Queries, keys and
values are three native matrices and one stacked timm matrix.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..bands import resolve_bands
from ..errors import UserError, load_error
from .families import FAMILIES, TITLES, family
from .native import from_config, pooled

_PROBE_TOLERANCE = 1e-3


def timm_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a native backbone under timm's names.

    Args:
        model: Native backbone; what its features do not depend on (a ViT's identity pooler) has
            no counterpart and is left out.

    Returns:
        Names to tensors, detached, contiguous, in the model's dtype; loads strictly into the model
        of `timm_config`.
    """
    native = model.state_dict()
    names = _timm_names(model)
    stacked: dict[str, list[Tensor]] = {}
    for key, (name, _) in names.items():  # q, k, v come in this order in the native model
        stacked.setdefault(name, []).append(native[key].detach())
    weights = {
        name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in stacked.items()
    }
    return {name: weight.contiguous() for name, weight in family(model).to_timm(weights).items()}


def timm_config(config: PreTrainedConfig) -> dict[str, Any]:
    """The keys of timm's config.json that name the architecture of a native configuration.

    Returns:
        `architecture`, `num_features` and, where the sizes are not standard ones, `model_args`.

    Raises:
        UserError: timm cannot build this network.
    """
    return family(config).timm_settings(config)


def from_timm(timm_model: nn.Module, *, name: str = "the timm model") -> PreTrainedModel:
    """Converts a timm model to the native one with equal features.

    Args:
        timm_model: A plain ResNet (7x7 stem, no extras), Swin (v1), ViT (class token, no extras)
            or another of a family that we know; a classifier is dropped.
        name: How to call it in errors.

    Raises:
        UserError: Another architecture, or one with parts that the native model lacks.
    """
    config = _native_config(timm_model, name)
    model = from_config(config)
    source = family(model).of_timm(dict(timm_model.state_dict()), model)
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
            f"only plain {TITLES} models do."
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
            f"only plain {TITLES} models do."
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
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise load_error(f"Cannot load '{source}' with timm", error) from error
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
    kind = family(model)
    for key in filter(kind.is_used, model.state_dict()):
        part = re.search(r"\.attention\.([qkv])_proj\.", key)
        names[key] = (kind.timm_name(key), "qkv".index(part[1]) if part else None)
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
    for kind in FAMILIES:
        config = kind.native_config(timm_model)
        if config is not None:
            return config
    raise UserError(
        f"{name} is a {type(timm_model).__name__} that has no native counterpart: use a plain "
        f"{TITLES} model."
    )
