"""Procedural aerial scenes with labels, land-cover masks and object boxes: data without a network.

Every scene is drawn from its own seed, with random orientation, ground scale, season, sun, exposure
and haze. Classes differ by texture and shape; their colours overlap by design, so that image
statistics alone do not tell them apart.
"""

from __future__ import annotations

from .draw import CLASSES, ROWS, VERSION, draw_scene, load_synthetic, parse_name
from .palette import LAND_COVER, OBJECTS

__all__ = [
    "CLASSES",
    "LAND_COVER",
    "OBJECTS",
    "ROWS",
    "VERSION",
    "draw_scene",
    "load_synthetic",
    "parse_name",
]
