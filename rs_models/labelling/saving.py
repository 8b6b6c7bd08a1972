"""The labels' classifier as an ordinary transformers repository: backbone and head."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import backbones
from ..backbones.processor import processor_settings, processor_size
from ..errors import UserError
from ..export.places import check_replaceable
from ..files import replaced, write_json, write_text
from ..provenance import validate_provenance
from ..settings import no_progress_bars
from .card import MARK, classifier_card
from .classify import Answers
from .index import STAGES, Index


def check_savable(index: Index, output: str | os.PathLike[str]) -> None:
    """Refuses a table whose classifier transformers could not hold, and a place that is taken.

    Args:
        index: The table.
        output: Folder of the classifier.

    Raises:
        UserError: A table of all stages, or a folder that holds anything but such a classifier.
    """
    check_replaceable(output, card=MARK)
    if index.folder is not None and index.folder.resolve() in Path(output).resolve().parents:
        raise UserError(f"{output} lies in the table itself: choose a place outside of it.")
    if index.readout == STAGES:
        raise UserError(
            "The table holds features of all stages, which no classifier of transformers reads: "
            "embed the tiles once more without --stages, and --save from that table."
        )


def save(answers: Answers, index: Index, output: str | os.PathLike[str]) -> Path:
    """Writes the classifier: `pipeline("image-classification")`, `predict` and `push` take it.

    The temperature is folded into the last layer: its probabilities are the calibrated ones.

    Args:
        answers: From `classify`.
        index: The table that they are of; its model is the backbone.
        output: Folder to write; an older classifier of this kind is replaced.

    Raises:
        UserError: A model that is no native backbone, that does not say how it was trained, or
            that is dilated; a table of all stages; a folder that holds anything else.
    """
    from ..tasks import classification

    check_savable(index, output)
    encoder = index.encoder
    backbone: Any = encoder.model
    record = getattr(getattr(backbone, "config", None), "rs_models", None)
    if record is None:
        raise UserError(
            f"{encoder.name or 'The model'} does not say how its images are prepared "
            "(`rs_models` in config.json): only such a backbone can be saved with a head."
        )
    plain = backbones.family(backbone.config).plain_stride
    if plain is not None and backbones.output_stride(backbone.config) != plain:
        raise UserError(
            f"{encoder.name or 'The model'} is dilated, which transformers' classifiers are not: "
            "the head would meet features that it never saw. Take the backbone out of its "
            "checkpoint with 'rs-models export', which writes it undilated, and embed with that."
        )
    names = dict(enumerate(answers.names))
    model: Any = classification.over(backbone, names)
    layer = [module for module in model.classifier.modules() if isinstance(module, nn.Linear)][-1]
    head = answers.head
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight.T / head.temperature))
        layer.bias.copy_(torch.from_numpy(head.bias / head.temperature))
    meta = validate_provenance(record)
    in_memory = {"model": encoder.name or "unnamed", "data": "tiles", "bands": encoder.bands}
    job = index.made_from["job"] if index.folder is not None else in_memory
    model.config.finetuned = {
        "task": "classification",
        "from": job["model"],
        "data": job["data"],
        "protocol": f"labelled-{answers.labelled}",
    }
    with no_progress_bars(), replaced(output) as partial:
        model.save_pretrained(partial)
        size = processor_size(model.config, meta["train_size"])
        write_json(partial / "preprocessor_config.json", processor_settings(meta, size))
        write_text(partial / "README.md", classifier_card(answers, job, type(model).__name__))
    return Path(output)
