"""The pretraining loop and what it is made of.

`config` (settings) -> `feeds`, `method` (images, network) -> `stage` -> `loop` -> `checkpoints`,
`metrics`, `report`. `pretrain` is the one entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names
from .config import RunConfig

if TYPE_CHECKING:
    from .loop import pretrain
    from .stopping import TrainingStopped

__all__ = ["RunConfig", "TrainingStopped", "pretrain"]

__getattr__ = names(__name__, {"pretrain": "loop", "TrainingStopped": "stopping"})
