"""A read-out that needs no training: all stages of a backbone, at two scales, whitened.

Early stages tell textures that the last one has given up, a larger image shows it finer ones, and
whitening keeps the few directions of largest variance from drowning all others. Nothing sees a
label.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, cat

from .. import backbones
from ..errors import UserError
from .features import Encoder

# Sides at which images are read, in units of the protocol's.
SCALES = (1.0, 1.5)
# Added to the variances before whitening, in units of their mean: directions that hold nothing but
# rounding must not be blown up.
RIDGE = 0.1


def at_all_stages(encoder: Encoder) -> Encoder:
    """The encoder with features of all its stages.

    Those of a native ResNet or Swin are the means of each stage's map, one behind the other; a ViT
    has no stages and gives its class token and the mean of its patches. Of any other network, whose
    stages are not known, the features stay as they are.
    """
    model: Any = encoder.model
    native = getattr(getattr(model, "config", None), "model_type", None)
    if native not in backbones.NATIVE_TYPES:
        return encoder
    try:
        backbones.stage_dims(model.config)
    except UserError:

        def forward(x: Tensor) -> Tensor:
            pooled, dense = backbones.pooled_and_dense(model, x)
            return cat((pooled, dense.mean((2, 3))), dim=1)
    else:

        def forward(x: Tensor) -> Tensor:
            return cat([stage.mean((2, 3)) for stage in backbones.stages(model, x)], dim=1)

    return dataclasses.replace(encoder, forward=forward, readout="stages")


def sides(size: int) -> tuple[int, ...]:
    """Sides in pixels at which images are read for a protocol at one size."""
    return tuple(round(scale * size) for scale in SCALES)


@dataclass(frozen=True)
class Whitening:
    """A linear map after which training features are uncorrelated and of equal variance.

    Attributes:
        mean: (D,) of the training features.
        matrix: (D, R).
    """

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray) -> Whitening:
        """Learns it from training features (N, D), without their labels."""
        exact = x.astype(np.float64)
        # Each feature counts alike, whatever the scale of its stage.
        spread = exact.std(0)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        centred = (exact - exact.mean(0)) * scale
        variance, basis = np.linalg.eigh(centred.T @ centred / len(x))
        shrunk = variance.clip(0) + RIDGE * variance.mean()
        return cls(exact.mean(0), scale[:, None] * basis / np.sqrt(shrunk))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Whitened features (M, R) float32."""
        return ((x - self.mean) @ self.matrix).astype(np.float32)
