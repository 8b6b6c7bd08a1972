"""Where images come from, how they are cached, and which are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names

if TYPE_CHECKING:
    from .cache import ImageCache, build_cache
    from .sources import load, resolve_revision

__all__ = ["ImageCache", "build_cache", "load", "resolve_revision"]

__getattr__ = names(
    __name__,
    {
        "ImageCache": "cache",
        "build_cache": "cache",
        "load": "sources",
        "resolve_revision": "sources",
    },
)
