"""Training windows from what people have: scenes and polygons, points or boxes over them."""

from __future__ import annotations

from .run import make_windows
from .settings import Windows, WindowSettings

__all__ = ["WindowSettings", "Windows", "make_windows"]
