"""A trained backbone as small as it gets: half-precision tensors that load in float32.

For weights that travel with a source tree, and for slow lines. timm's copy is left out; `rs-models
export` of the result makes it again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .. import backbones
from ..errors import UserError
from ..files import replaced, write_text
from ..preprocessing import recorded
from ..settings import no_progress_bars
from .places import DECODER, decoder_of

_TIMM_KEYS = ("architecture", "num_features", "model_args", "num_classes", "pretrained_cfg")
_KEPT = ("preprocessor_config.json", "run.yaml")
_TOLERANCE = 1e-2  # of features, over their largest: a half has eleven bits


def slim(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Writes a native repository with float16 tensors, `dtype` float32 and no timm weights.

    The segmentation network of its decoder (GLCNet's), where a run or the source has one beside or
    in it, becomes the folder `segmentation` of the output.

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
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    preprocessing = recorded(config)
    halves = _halves(source)
    if preprocessing is None:
        raise UserError(
            f"{source} does not say what it was trained on (rs_models in config.json): give a "
            "backbone that this package exported."
        )
    for key in _TIMM_KEYS:
        config.pop(key, None)
    decoder = decoder_of(source)
    with replaced(output) as partial:
        for file in output.iterdir() if output.is_dir() else ():
            if file.is_file():
                shutil.copyfile(file, partial / file.name)
        _write(source, partial, halves, config)
        _check(source, partial, preprocessing.train_size)
        if decoder is not None:
            (partial / DECODER).mkdir()
            settings = json.loads((decoder / "config.json").read_text(encoding="utf-8"))
            _write(decoder, partial / DECODER, _halves(decoder), settings)
            _check(decoder, partial / DECODER, preprocessing.train_size)
    return output


def _halves(source: Path) -> dict[str, torch.Tensor]:
    weights = load_file(source / "model.safetensors")
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in weights.items()
    }
    for key, value in halves.items():
        if not value.isfinite().all() or (weights[key].any() and not value.any()):
            raise UserError(f"{key} of {source} has values beyond float16's range: keep it whole.")
    return halves


def _write(
    source: Path, target: Path, halves: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    save_file(halves, target / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps({**config, "dtype": "float32"}, indent=2, sort_keys=True)
    write_text(target / "config.json", text + "\n")
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _check(source: Path, partial: Path, side: int) -> None:
    """Loads both as users do and compares what they say of a probe."""
    whole, small = (_said(folder, side) for folder in (source, partial))
    if small.dtype != torch.float32:
        raise RuntimeError(f"The weights load as {small.dtype}, not float32.")
    difference = float((whole - small).abs().max() / whole.abs().max().clamp_min(1e-6))
    if not difference <= _TOLERANCE:
        raise RuntimeError(f"What the half-precision weights say differs by {difference:.2g}.")


def _said(folder: Path, side: int) -> torch.Tensor:
    """Features of a backbone, or scores of a segmentation network, of images of noise."""
    from ..tasks.segmenters import SEGMENTERS

    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    network = next((network for config, network in SEGMENTERS if config.model_type == kind), None)
    generator = torch.Generator().manual_seed(0)
    with no_progress_bars(), torch.no_grad():
        if network is not None:
            whole = network.from_pretrained(folder, use_safetensors=True).eval()
            channels = whole.backbone.config.num_channels
            return whole.logits(torch.randn(2, channels, side, side, generator=generator))
        model = backbones.load(str(folder))
        channels = model.config.num_channels
        return backbones.pooled(model, torch.randn(2, channels, side, side, generator=generator))
