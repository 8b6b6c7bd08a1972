"""A frozen backbone's feature maps under a linear classifier: a segmentation network in seconds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import backbones

_CELL = 4  # pixels of a place of the grid that all maps are brought to


class LinearSegmenter(nn.Module):
    """A frozen backbone's maps, brought to one grid, under a linear classifier.

    Args:
        backbone: Native.
        weight: (D, K) over all maps' channels.
        bias: (K,).
    """

    def __init__(self, backbone: Any, weight: Tensor, bias: Tensor) -> None:
        """Keeps what it was made of."""
        super().__init__()
        self.backbone = backbone
        self.register_buffer("weight", weight.T[:, :, None, None].contiguous())
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) -> logits (B, K, H, W)."""
        weight: Any = self.weight
        height, width = x.shape[-2:]
        x = _padded(self.backbone, x)
        # Linear maps commute with the resize, so the wide maps stay at their own size.
        shape = tuple(-(-side // _CELL) for side in x.shape[-2:])
        start, logits = 0, None
        for part in maps(self.backbone, x):
            own = F.conv2d(part, weight[:, start : start + part.shape[1]])
            own = F.interpolate(own, shape, mode="bilinear", align_corners=False)
            logits = own if logits is None else logits + own
            start += part.shape[1]
        assert logits is not None
        bias: Any = self.bias
        logits = logits + bias[:, None, None]
        logits = F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def maps(backbone: Any, x: Tensor) -> tuple[Tensor, ...]:
    """The feature maps that the classifier reads: every stage's, or a ViT's last one."""
    if not backbones.family(backbone).has_stages:
        return (backbones.dense(backbone, x),)
    return backbones.stages(backbone, x)


def features_at(backbone: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Features of all maps at pixels of one image, (N, D).

    Args:
        backbone: Native.
        x: A normalised image, (1, C, H, W).
        rows: (N,) of the pixels.
        columns: (N,).
    """
    x = _padded(backbone, x)
    height, width = x.shape[-2:]
    # Centres of the pixels, from -1 to 1 between the image's edges.
    places = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    grid = places.to(x)[None, None]  # (1, 1, N, 2)
    parts = [
        F.grid_sample(part, grid.to(part), padding_mode="border", align_corners=False)
        for part in maps(backbone, x)
    ]
    return torch.cat(parts, 1)[0, :, 0].T.float()


def _padded(backbone: Any, x: Tensor) -> Tensor:
    """Images whose sides the backbone can take, their last rows and columns repeated."""
    stride = backbones.output_stride(backbone.config)
    below, right = (-side % stride for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
