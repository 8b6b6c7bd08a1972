"""From a trained method to the repository that users load, without rs_models.

One folder holds the native model, the same weights for timm, the preprocessing they were trained
with and where they come from (`rs_models` in config.json).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .. import backbones
from ..backbones.processor import IMAGE_PROCESSOR, processor_settings, processor_size
from ..backbones.timm_interop import timm_config, timm_features, timm_state_dict
from ..errors import UserError
from ..files import replaced, write_json
from ..provenance import validate_provenance
from ..settings import no_progress_bars

TIMM_WEIGHTS = "timm.safetensors"
_TOLERANCE = 1e-4


def export(
    source: nn.Module,
    output: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    timm: bool = True,
) -> Path:
    """Writes a native repository: model, processor, provenance and (with `timm`) timm's weights.

    The folder is written beside, checked by loading it again and comparing features, then renamed
    into place; an older one is replaced. The source stays as it is, whatever its dtype and device;
    the files are float32.

    A network that was trained dilated is written undilated, as everybody who loads it without us
    gets it, and `output_stride` says so; `backbones.dilate` dilates it again.

    A ViT trained at another size than its position embeddings' gets them interpolated to
    `train_size`, as they were in training, so that a plain call works there.

    Args:
        source: A method (its `.exported` backbone is taken) or a native backbone.
        output: Folder to write.
        provenance: The `rs_models` dict of config.json, see `validate_provenance`.
        timm: Whether to add timm's keys and weights.

    Returns:
        The folder.

    Raises:
        UserError: Provenance that is incomplete or contradicts the source, weights that are not
            finite, or an architecture that timm lacks.
        RuntimeError: The written files do not give the features of the source.
    """
    meta = validate_provenance(provenance)
    backbone = _checked_backbone(source, meta)
    # Models are built on the way; the caller's random numbers must not move with them.
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        return _export(backbone, Path(output), meta, timm=timm)


def _export(backbone: PreTrainedModel, output: Path, meta: dict[str, Any], *, timm: bool) -> Path:
    model = _float32_copy(backbone, meta["train_size"])
    if backbones.family(model).strides:
        meta["output_stride"] = backbones.output_stride(model.config)
    size = processor_size(model.config, meta["train_size"])
    processor = processor_settings(meta, size)
    model.config.rs_models = meta
    # Also in config.json: for a local folder with timm's keys AutoImageProcessor looks there first.
    model.config.image_processor_type = IMAGE_PROCESSOR
    for key in ("architecture", "num_features", "model_args", "num_classes", "pretrained_cfg"):
        if hasattr(model.config, key):
            delattr(model.config, key)
    if timm:
        _add_timm_keys(model.config, meta, size)

    with replaced(output) as partial:
        model.save_pretrained(partial)
        if timm:
            save_file(timm_state_dict(model), partial / TIMM_WEIGHTS, metadata={"format": "pt"})
        write_json(partial / "preprocessor_config.json", processor)
        _check_written(partial, model, size, timm=timm)
    return output


def _checked_backbone(source: nn.Module, meta: Mapping[str, Any]) -> PreTrainedModel:
    """The native backbone of the source; refuses provenance that the source contradicts."""
    backbone = getattr(source, "exported", source)
    kind = backbones.family_or_none(backbone)
    if kind is None or not isinstance(backbone, kind.model_class):
        names = ", ".join(kind.model_class.__name__ for kind in backbones.FAMILIES)
        raise UserError(f"Cannot export a {type(backbone).__name__}: give one of {names}.")
    if len(meta["bands"]) != backbone.config.num_channels:
        raise UserError(
            f"Provenance names {len(meta['bands'])} bands but the backbone takes "
            f"{backbone.config.num_channels}."
        )
    stride = backbones.output_stride(backbone.config)
    if kind.strides and meta["output_stride"] != stride:
        raise UserError(
            f"Provenance says output_stride {meta['output_stride']} but the backbone has {stride}."
        )
    if source is not backbone:
        for key in ("bands", "value_range", "image_mean", "image_std"):
            used = list(getattr(source.config, key, meta[key]))
            if used != meta[key]:
                raise UserError(
                    f"Provenance says {key} {meta[key]} but the method was trained with {used}."
                )
    return backbone


def _float32_copy(backbone: PreTrainedModel, train_size: int) -> PreTrainedModel:
    """A float32 CPU copy in evaluation mode, whose configuration suits calls at `train_size`."""
    kind = backbones.family(backbone)
    weights = {
        key: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype)
        for key, value in backbone.state_dict().items()
        if kind.is_used(key)
    }
    for key, value in weights.items():
        if not value.isfinite().all():
            raise UserError(
                f"Weight {key} holds NaN or infinite values: the training diverged, so nothing was "
                "exported."
            )
    config = copy.deepcopy(backbone.config)
    config.dtype = torch.float32
    # Of a dilated network the undilated one is written: `AutoModel`, timm and pipelines know no
    # dilation, and features must be those that were measured. The weights are the same.
    for key in ("output_stride", "first_block_dilated"):
        if hasattr(config, key):
            delattr(config, key)
    kind.settle(config, weights, train_size)
    model = backbones.from_config(config)
    result = model.load_state_dict(weights, strict=False)
    left = [*filter(kind.is_used, result.missing_keys), *result.unexpected_keys]
    if left:
        raise UserError(
            f"The backbone's weights do not fit its configuration: {', '.join(left[:3])}."
        )
    return model.eval()


def _add_timm_keys(config: PreTrainedConfig, meta: Mapping[str, Any], size: int) -> None:
    """Adds what `timm.create_model("hf-hub:...")` reads; `model_type` keeps transformers native."""
    num_bands = len(meta["bands"])
    kind = backbones.family(config)
    for key, value in timm_config(config).items():
        setattr(config, key, value)
    config.num_classes = 0
    config.pretrained_cfg = {
        "hf_hub_filename": TIMM_WEIGHTS,
        "input_size": [num_bands, size, size],
        # ViT and Swin are built for this size, as their weights are.
        "fixed_input_size": kind.fixed_size,
        "num_classes": 0,
        "mean": meta["image_mean"],
        "std": meta["image_std"],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        # timm before 1.0.29 adapts this layer of any model without 3 bands, and starts it at random
        # where it cannot.
        "first_conv": kind.timm_first if num_bands == 3 else None,
        "classifier": kind.timm_classifier,
    }


def _check_written(folder: Path, model: PreTrainedModel, size: int, *, timm: bool) -> None:
    """Loads the files as users do and compares a probe's features with the model's."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, model.config.num_channels, size, size, generator=generator)
    plain, info = AutoModel.from_pretrained(  # nosec B615: a folder of ours
        folder, use_safetensors=True, output_loading_info=True
    )
    if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise RuntimeError(f"The exported weights do not load cleanly: {info}")
    if plain.dtype != torch.float32:
        raise RuntimeError(f"The exported weights load as {plain.dtype}, not float32.")
    with torch.no_grad():
        features = plain.eval()(probe).pooler_output.flatten(1)  # (2, D)
        _compare(
            "the native weights",
            backbones.pooled(backbones.load(str(folder)), probe),
            backbones.pooled(model, probe),
        )
        _compare("a plain AutoModel", features, backbones.pooled(model, probe))
        if timm:
            _compare("the timm weights", timm_features(_timm_model(folder), probe), features)


def _timm_model(folder: Path) -> Any:
    """The timm model that `hf-hub:` would build from these files."""
    import timm

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(
        settings["architecture"],
        pretrained_cfg=settings["pretrained_cfg"],
        **settings.get("model_args", {}),
    )
    model.load_state_dict(load_file(folder / TIMM_WEIGHTS))
    return model.eval()


def _compare(what: str, found: Tensor, expected: Tensor) -> None:
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))
    if not difference <= _TOLERANCE:
        raise RuntimeError(f"Features of {what} differ from the source's by {difference:.2g}.")
