"""Where a model looks: a ViT's attention, or which places are like the whole image."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from .. import backbones
from ..evaluation.features import Encoder
from .models import has_dense, normalised
from .pictures import heat

_SWITCH = threading.Lock()


def attention(picture: np.ndarray, encoder: Encoder) -> list[tuple[np.ndarray, str]]:
    """Where a model looks on a square picture.

    Args:
        picture: (S, S, 3) uint8.
        encoder: With a native backbone, else nothing is returned.

    Returns:
        Of a ViT the last layer's attention of the class token, the mean and each of up to three
        heads; else one map of the cosine of each place with the pooled feature.
    """
    if not has_dense(encoder):
        return []
    model: Any = encoder.model
    x = normalised(encoder, torch.from_numpy(picture).permute(2, 0, 1)[None])
    if not backbones.family(model).attends:
        with torch.inference_mode():
            whole, places = backbones.pooled_and_dense(model, x)
        like = torch.cosine_similarity(places[0], whole[0][:, None, None], dim=0)
        return [(heat(picture, like.numpy()), "How like each place is to the whole image")]
    with _SWITCH:  # models are shared by the page's threads
        before = model.config._attn_implementation
        try:
            model.set_attn_implementation("eager")  # the others do not return their weights
            with torch.inference_mode():
                output = model(x, output_attentions=True, interpolate_pos_encoding=True)
        finally:
            model.set_attn_implementation(before)
    side = picture.shape[0] // model.config.patch_size
    heads = output.attentions[-1][0, :, 0, 1:].unflatten(1, (side, side)).numpy()  # (heads, h, w)
    shown = [(heat(picture, heads.mean(0)), "Attention of the class token, mean of the heads")]
    return shown + [
        (heat(picture, head), f"Attention, head {n + 1}") for n, head in enumerate(heads[:3])
    ]
