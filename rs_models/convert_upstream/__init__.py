"""The authors' released checkpoints -> the native repository that `export` writes.

A file is only read as tensors, never as code; its layout is found from its keys; either every
tensor of the backbone finds its place or nothing is written. Where the file came from (name,
sha256, repository, what was left out) goes into `rs_models_source` of config.json. The weights
themselves lie on drives that need an account, so the tests use dictionaries made from the official
key lists.

`files` (tensors only) -> `keys` (layout by the tables of `layouts`) -> `networks` (backbone) ->
`defaults` (provenance) -> `segmentation` (GLCNet's) -> `report`. `convert` is the one entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names
from .layouts import LAYOUTS, UPSTREAM, Layout, Upstream

if TYPE_CHECKING:
    from .files import read_checkpoint
    from .report import Conversion
    from .run import convert
    from .segmentation import SEGMENTATION

__all__ = [
    "LAYOUTS",
    "SEGMENTATION",
    "UPSTREAM",
    "Conversion",
    "Layout",
    "Upstream",
    "convert",
    "read_checkpoint",
]

__getattr__ = names(
    __name__,
    {
        "Conversion": "report",
        "SEGMENTATION": "segmentation",
        "convert": "run",
        "read_checkpoint": "files",
    },
)
