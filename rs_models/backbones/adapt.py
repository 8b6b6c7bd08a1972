"""Native backbones adapted in place: to other bands, and to a finer feature map."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..bands import resolve_bands
from ..errors import UserError

logger = logging.getLogger(__name__)


def restem(
    model: PreTrainedModel, have: str | Sequence[str], want: str | Sequence[str]
) -> PreTrainedModel:
    """Adapts the first convolution to other bands, by name and in place.

    A band that the weights know keeps its slice; a band that they do not know gets the mean of all
    known slices (never zeros: the network would ignore it). All slices are then scaled by
    `len(have) / len(want)`, so that an image whose bands are equal, as those of real images nearly
    are, gives the activation that it gave before: exactly when bands are only added, on average
    over the filters when some are dropped. Mere reordering changes nothing.

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


def dilate(
    model: PreTrainedModel, output_stride: int, *, first_block_dilated: bool = False
) -> PreTrainedModel:
    """Turns the strides of a ResNet's last stages into dilations, in place.

    The weights and their names stay. The setting is recorded in `model.config` (`output_stride`,
    `first_block_dilated`), so that `from_config` and `load` restore it; plain `AutoModel` ignores
    it and gives the undilated network.

    Args:
        model: A native ResNet.
        output_stride: Image side over feature side: 8, 16, or 32 (undilated).
        first_block_dilated: Whether the first block of a dilated stage is dilated too (GLCNet), or
            keeps the dilation of the stage before (torchvision, timm).

    Raises:
        UserError: Not a ResNet, or another stride.
    """
    if model.config.model_type != "resnet":
        raise UserError(
            f"Only a ResNet can be dilated, not '{model.config.model_type}': drop output_stride."
        )
    if output_stride not in (8, 16, 32):
        raise UserError(f"output_stride is {output_stride}: use 8, 16 or 32.")
    # The stride of a block sits in its first convolution, or in the 3x3 of a bottleneck ("v1.5").
    in_first = model.config.layer_type == "basic" or model.config.downsample_in_bottleneck
    reached, dilation = 4, 1
    stages: Any = model.get_submodule("encoder.stages")
    for index, stage in enumerate(stages):
        stride = 2 if index or model.config.downsample_in_first_stage else 1
        before = dilation
        if reached * stride > output_stride:
            dilation, stride = dilation * stride, 1
        reached *= stride
        for block_index, block in enumerate(stage.layers):
            convolutions = [layer.convolution for layer in block.layer]
            spatial = [conv for conv in convolutions if conv.kernel_size == (3, 3)]
            for conv in spatial:
                # Only the first 3x3 convolution of a stage may keep the dilation of the stage
                # before.
                kept = block_index == 0 and conv is spatial[0] and not first_block_dilated
                rate = before if kept else dilation
                conv.dilation = conv.padding = (rate, rate)
            if block_index == 0:
                convolutions[0 if in_first else 1].stride = (stride, stride)
                if hasattr(block.shortcut, "convolution"):
                    block.shortcut.convolution.stride = (stride, stride)
    model.config.output_stride = output_stride
    model.config.first_block_dilated = first_block_dilated
    return model
