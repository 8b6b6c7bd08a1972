"""Native transformers backbones: build, load and adapt them, and read their features.

`families` lists what kinds there are, one file a kind; `native` builds them and reads their
features, `loading` opens weights, `adapt` fits them to other bands and strides, `processor` says
how images are brought to them, `timm_interop` converts between timm's weights and ours, and
`decoders` turns their maps into masks.
"""

from __future__ import annotations

from .adapt import dilate, restem
from .families import BACKBONES, FAMILIES, NATIVE_TYPES, family, family_or_none
from .family import Family
from .loading import load
from .native import (
    backbone_config,
    build,
    classifier_input,
    copy_weights,
    dense,
    feature_dim,
    from_config,
    output_stride,
    pooled,
    pooled_and_dense,
    reset_pooler,
    stage_dims,
    stage_means,
    stage_means_dim,
    stages,
)

__all__ = [
    "BACKBONES",
    "FAMILIES",
    "NATIVE_TYPES",
    "Family",
    "backbone_config",
    "build",
    "classifier_input",
    "copy_weights",
    "dense",
    "dilate",
    "family",
    "family_or_none",
    "feature_dim",
    "from_config",
    "load",
    "output_stride",
    "pooled",
    "pooled_and_dense",
    "reset_pooler",
    "restem",
    "stage_dims",
    "stage_means",
    "stage_means_dim",
    "stages",
]
