"""Where images come from, how they are cached, and which are drawn."""

from __future__ import annotations

from .cache import ImageCache, build_cache
from .sources import load, resolve_revision

__all__ = ["ImageCache", "build_cache", "load", "resolve_revision"]
