"""The segmentation network that a method's decoder makes, as a repository."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..backbones.processor import processor_settings
from ..files import replaced, write_json
from ..provenance import validate_provenance
from ..settings import no_progress_bars


def export_segmentation(
    source: Any, output: str | os.PathLike[str], *, provenance: Mapping[str, Any]
) -> Path | None:
    """Writes the segmentation model that a method's decoder makes, with untrained classes.

    `DeepLabV3PlusForSemanticSegmentation.from_pretrained(output, num_labels=...,
    ignore_mismatched_sizes=True)` starts from it.

    Args:
        source: A method; only GLCNet has a decoder.
        output: Folder to write; an older one is replaced.
        provenance: The `rs_models` dict of config.json, see `validate_provenance`.

    Returns:
        The folder; None where the method has no decoder.
    """
    parts = source.segmentation_parts() if hasattr(source, "segmentation_parts") else None
    if parts is None:
        return None
    from ..tasks.segmenters import from_pretraining_decoder

    meta = validate_provenance(provenance)
    output = Path(output)
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        model = from_pretraining_decoder(source.exported, *parts)
        model.config.rs_models = meta
        with replaced(output) as partial:
            model.save_pretrained(partial)
            settings = processor_settings(meta, meta["train_size"])
            write_json(partial / "preprocessor_config.json", settings)
    return output
