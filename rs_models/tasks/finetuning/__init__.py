"""Fine-tuning of a backbone on few labels, for four tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import names
from .config import PROTOCOLS, FinetuneConfig, FinetuneData

if TYPE_CHECKING:
    from .run import finetune

__all__ = ["PROTOCOLS", "FinetuneConfig", "FinetuneData", "finetune"]

__getattr__ = names(__name__, {"finetune": "run"})
