"""Tiles from large scenes, guided by a land-cover map: TOV's collection of pretraining images.

scenes -> guide -> plan (balanced or random positions) -> tiles -> Parquet shards
"""

from __future__ import annotations

from .run import CollectConfig, Collected, collect

__all__ = ["CollectConfig", "Collected", "collect"]
