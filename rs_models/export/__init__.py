"""What a trained model is written as: a native repository, a segmentation network, ONNX.

`onnx` is imported by name: it needs `predict`, which a training does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names

if TYPE_CHECKING:
    from .backbone import export
    from .segmentation import export_segmentation

__all__ = ["export", "export_segmentation"]

__getattr__ = names(__name__, {"export": "backbone", "export_segmentation": "segmentation"})
