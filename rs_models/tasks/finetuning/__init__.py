"""Fine-tuning of a backbone on few labels, for four tasks."""

from __future__ import annotations

from .config import PROTOCOLS, FinetuneConfig, FinetuneData
from .run import finetune

__all__ = ["PROTOCOLS", "FinetuneConfig", "FinetuneData", "finetune"]
