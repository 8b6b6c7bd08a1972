"""The labels' classifier as an ordinary transformers repository: backbone and head."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones.processor import processor_settings, processor_size
from ..errors import UserError
from ..files import replaced, write_json
from ..provenance import validate_provenance
from ..settings import no_progress_bars
from .classify import Answers
from .index import Index


def save(answers: Answers, index: Index, output: str | os.PathLike[str]) -> Path:
    """Writes the classifier: `pipeline("image-classification")`, `predict` and `push` take it.

    The temperature is folded into the last layer: its probabilities are the calibrated ones.

    Args:
        answers: From `classify`.
        index: The table that they are of; its model is the backbone.
        output: Folder to write; an older one is replaced.

    Raises:
        UserError: A model that is no native backbone, or that does not say how it was trained.
    """
    from ..tasks import classification

    encoder = index.encoder
    backbone: Any = encoder.model
    record = getattr(getattr(backbone, "config", None), "rs_models", None)
    if record is None:
        raise UserError(
            f"{encoder.name or 'The model'} does not say how its images are prepared "
            "(`rs_models` in config.json): only such a backbone can be saved with a head."
        )
    names = dict(enumerate(answers.names))
    model: Any = classification.over(backbone, names)
    layer = [module for module in model.classifier.modules() if isinstance(module, nn.Linear)][-1]
    head = answers.head
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight.T / head.temperature))
        layer.bias.copy_(torch.from_numpy(head.bias / head.temperature))
    meta = validate_provenance(record)
    with no_progress_bars(), replaced(output) as partial:
        model.save_pretrained(partial)
        size = processor_size(model.config, meta["train_size"])
        write_json(partial / "preprocessor_config.json", processor_settings(meta, size))
    return Path(output)
