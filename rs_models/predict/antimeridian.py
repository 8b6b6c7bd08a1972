"""Polygons of longitude and latitude cut at 180 degrees, as RFC 7946 (3.1.9) wants them."""

from __future__ import annotations

from typing import Any

import numpy as np


def crosses(longitudes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which rings reach over 180 degrees: (R,) bool.

    Args:
        longitudes: (N,) of all rings' corners.
        starts: (R,) where each ring begins.
    """
    jumps = np.abs(np.diff(longitudes, append=longitudes[-1:])) > 180
    jumps[starts[1:] - 1] = False  # from one ring to the next
    beyond = np.abs(longitudes) > 180
    return np.logical_or.reduceat(jumps | beyond, starts)


def cut(rings: list[np.ndarray]) -> Any:
    """A shapely Polygon or MultiPolygon within -180 to 180 degrees.

    Args:
        rings: The outer ring and the holes, (N, 2) longitude and latitude, closed; a ring around a
            pole is taken to hold it.
    """
    shell = _within(rings[0])
    for hole in rings[1:]:
        shell = shell.difference(_within(hole))
    return shell


def _within(ring: np.ndarray) -> Any:
    """What a ring holds, in as many parts as it needs."""
    import shapely
    from shapely.affinity import translate

    longitudes = np.unwrap(ring[:, 0], period=360)
    outline = np.column_stack((longitudes, ring[:, 1]))
    if abs(longitudes[-1] - longitudes[0]) > 180:  # once around: up to the pole and back
        pole = np.copysign(90.0, ring[:, 1].mean())
        up, down = [longitudes[-1], pole], [longitudes[0], pole]
        outline = np.vstack((outline, up, down, outline[:1]))
    whole = shapely.make_valid(shapely.Polygon(outline))
    west, _, east, _ = whole.bounds
    parts = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360))):
        window = shapely.box(-180 + 360 * turn, -90, 180 + 360 * turn, 90)
        parts += _polygons(translate(whole.intersection(window), -360 * turn))
    return shapely.union_all(parts)


def _polygons(geometry: Any) -> list[Any]:
    """The polygons of a geometry, without the points and lines that a cut leaves."""
    if geometry.geom_type == "Polygon":
        return [] if geometry.is_empty else [geometry]
    return [part for inner in getattr(geometry, "geoms", []) for part in _polygons(inner)]
