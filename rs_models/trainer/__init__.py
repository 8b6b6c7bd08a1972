"""The pretraining loop and what it is made of.

`config` (settings) -> `setup` (data, method) -> `batches` -> `loop` -> `checkpoints`, `metrics`,
`report`. `pretrain` is the one entry.
"""

from __future__ import annotations

from .config import RunConfig
from .loop import pretrain
from .stopping import TrainingStopped

__all__ = ["RunConfig", "TrainingStopped", "pretrain"]
