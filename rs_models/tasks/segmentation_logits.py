"""Any segmentation network of transformers or ours, called at any image size."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

_MULTIPLE = 32  # what networks with merging windows, and UperNet's pyramid, need


def logits_of(model: Any, x: Tensor) -> Tensor:
    """Scores of every class and pixel.

    Args:
        model: A segmentation network; ours take any size, for others the image is padded on the
            right and below to a multiple of 32 pixels by repeating its edge, and their scores are
            brought to the image's size and cut.
        x: Normalised images, (B, C, H, W).

    Returns:
        (B, num_labels, H, W).
    """
    if str(model.config.model_type).startswith("rs_"):
        return model(pixel_values=x).logits
    height, width = x.shape[2:]
    right, below = -width % _MULTIPLE, -height % _MULTIPLE
    if right or below:
        x = F.pad(x, (0, right, 0, below), mode="replicate")
    logits = model(pixel_values=x).logits
    if logits.shape[2:] != x.shape[2:]:
        logits = F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)
    return logits[..., :height, :width]
