"""A trained backbone as small as it gets: half-precision tensors that load in float32.

For weights that travel with a source tree, and for slow lines. timm's copy is left out; `rs-models
export` of the result makes it again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .. import backbones
from ..errors import UserError
from ..files import replaced, write_text
from ..preprocessing import recorded

_TIMM_KEYS = ("architecture", "num_features", "model_args", "num_classes", "pretrained_cfg")
_KEPT = ("preprocessor_config.json", "run.yaml")
_TOLERANCE = 1e-2  # of features, over their largest: a half has eleven bits


def slim(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Writes a native repository with float16 tensors, `dtype` float32 and no timm weights.

    Args:
        source: Exported backbone with model.safetensors.
        output: Folder to write; an older one is replaced, files that are only there are kept.

    Returns:
        The folder.

    Raises:
        UserError: No exported backbone, one without provenance, or values that a half cannot hold.
    """
    source, output = Path(source), Path(output)
    if not (source / "model.safetensors").is_file():
        raise UserError(f"{source} holds no exported backbone: model.safetensors is missing.")
    weights = load_file(source / "model.safetensors")
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in weights.items()
    }
    for key, value in halves.items():
        if not value.isfinite().all() or (weights[key].any() and not value.any()):
            raise UserError(f"{key} of {source} has values beyond float16's range: keep it whole.")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    preprocessing = recorded(config)
    if preprocessing is None:
        raise UserError(
            f"{source} does not say what it was trained on (rs_models in config.json): give a "
            "backbone that this package exported."
        )
    for key in _TIMM_KEYS:
        config.pop(key, None)
    config["dtype"] = "float32"
    with replaced(output) as partial:
        for file in output.iterdir() if output.is_dir() else ():
            if file.is_file():
                shutil.copyfile(file, partial / file.name)
        save_file(halves, partial / "model.safetensors", metadata={"format": "pt"})
        write_text(partial / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
        for name in _KEPT:
            if (source / name).is_file():
                shutil.copyfile(source / name, partial / name)
        _check(source, partial, preprocessing.train_size)
    return output


def _check(source: Path, partial: Path, side: int) -> None:
    """Loads both as users do and compares the features of a probe."""
    models = [backbones.load(str(folder)) for folder in (source, partial)]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, models[0].config.num_channels, side, side, generator=generator)
    with torch.no_grad():
        whole, small = (backbones.pooled(model, probe) for model in models)
    if small.dtype != torch.float32:
        raise RuntimeError(f"The weights load as {small.dtype}, not float32.")
    difference = float((whole - small).abs().max() / whole.abs().max().clamp_min(1e-6))
    if not difference <= _TOLERANCE:
        raise RuntimeError(f"Features of the half-precision weights differ by {difference:.2g}.")
