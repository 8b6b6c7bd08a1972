"""The first convolution of a native backbone, adapted to other bands."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .bands import resolve_bands
from .errors import UserError

logger = logging.getLogger(__name__)


def restem(
    model: PreTrainedModel, have: str | Sequence[str], want: str | Sequence[str]
) -> PreTrainedModel:
    """Adapts the first convolution to other bands, by name and in place.

    A band that the weights know keeps its slice; a band that they do not know gets the mean of all
    known slices (never
    zeros: the network would ignore it). All slices are then scaled by `len(have) / len(want)`, so
    that an image whose bands are equal, as those of real images nearly are, gives the activation
    that it gave before; mere reordering changes nothing.

    In `config.rs_models` the bands are replaced, and the statistics too where they are known for
    every band, else removed: the old ones would be wrong.

    Args:
        model: Native backbone.
        have: Bands of the weights, in channel order.
        want: Bands of the images to come, in channel order.

    Raises:
        UserError: `have` does not fit the stem.
    """
    have, want = resolve_bands(have), resolve_bands(want)
    if len(have) != model.config.num_channels:
        raise UserError(
            f"The stem takes {model.config.num_channels} bands but {len(have)} are named: "
            f"{', '.join(have)}."
        )
    if have == want:
        return model
    unknown = [band for band in want if band not in have]
    if unknown:
        logger.warning(
            "No weights for band %s: its slice starts as the mean of the others.",
            ", ".join(unknown),
        )
    resnet = model.config.model_type == "resnet"
    embeddings: Any = model.get_submodule("embedder" if resnet else "embeddings.patch_embeddings")
    stem = embeddings.embedder.convolution if resnet else embeddings.projection
    old = stem.weight.detach()  # (D, len(have), k, k)
    mean = old.mean(dim=1)
    slices = [old[:, have.index(band)] if band in have else mean for band in want]
    stem.weight = nn.Parameter(torch.stack(slices, dim=1) * (len(have) / len(want)))
    stem.in_channels = len(want)
    model.config.num_channels = len(want)
    if hasattr(embeddings, "num_channels"):
        embeddings.num_channels = len(want)
    if getattr(model.config, "rs_models", None):
        model.config.rs_models = _reorder_statistics(model.config.rs_models, have, want)
    return model


def _reorder_statistics(
    meta: dict[str, Any], have: tuple[str, ...], want: tuple[str, ...]
) -> dict[str, Any]:
    changed = {**meta, "bands": list(want)}
    for key in ("image_mean", "image_std"):
        values = changed.pop(key, None)
        if values is not None and set(want) <= set(have):
            changed[key] = [values[have.index(band)] for band in want]
    return changed
