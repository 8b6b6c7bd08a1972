"""Native transformers backbones: build, load and adapt them, and read their features.

`native` builds them and reads their features, `loading` opens weights, `adapt` fits them to other
bands and strides, `processor` says how images are brought to them, `timm_interop` converts between
timm's weights and ours, and `decoders` turns their maps into masks.
"""

from __future__ import annotations

from .adapt import dilate, restem
from .loading import load
from .native import (
    BACKBONES,
    NATIVE_TYPES,
    backbone_config,
    build,
    dense,
    feature_dim,
    from_config,
    output_stride,
    pooled,
    pooled_and_dense,
    reset_pooler,
    stage_dims,
    stages,
)

__all__ = [
    "BACKBONES",
    "NATIVE_TYPES",
    "backbone_config",
    "build",
    "dense",
    "dilate",
    "feature_dim",
    "from_config",
    "load",
    "output_stride",
    "pooled",
    "pooled_and_dense",
    "reset_pooler",
    "restem",
    "stage_dims",
    "stages",
]
