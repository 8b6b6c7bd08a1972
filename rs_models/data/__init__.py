"""Where images come from, how they are cached, and which are drawn."""

from __future__ import annotations

from rs_models.data.cache import ImageCache, build_cache
from rs_models.data.sources import load, resolve_revision

__all__ = ["ImageCache", "build_cache", "load", "resolve_revision"]
