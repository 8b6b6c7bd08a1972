"""Things that stand in the synthetic scenes: halls, planes, ships and cars."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas


def hall(c: Canvas, u: float, v: float, length: float, width: float, material: int) -> None:
    """A flat or low-pitched hall with roof lights and vents."""
    rng = c.rng
    found = c.window(u, v, (length + width) / 2)
    if found is None:
        return
    height = rng.uniform(3, 6)
    c.block(u, v, length, width, material=material, height=height, gable=rng.choice([0.0, 0.6]))
    view, du, dv = found
    inside = (np.abs(du) < length / 2 - 0.6) & (np.abs(dv) < width / 2 - 0.6)
    period = rng.uniform(2.5, 5)
    stripes = (du / period) % 1 < 0.3
    if rng.uniform() < 0.6:
        c.tone[view][inside & stripes] -= rng.choice([-0.12, 0.12, 0.2])
    else:
        vents = stripes & ((dv / period) % 1 < 0.3)
        c.height[view][inside & vents] += 0.5
        c.tone[view][inside & vents] -= 0.25


def plane(c: Canvas, u: float, v: float, span: float, turn: float) -> None:
    """A plane: fuselage, swept wings and a tail."""
    found = c.window(u, v, 0.75 * span)
    if found is None:
        return
    view, du, dv = found
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = du * cos + dv * sin, np.abs(dv * cos - du * sin)
    body = (along / (0.5 * span)) ** 2 + (across / (0.075 * span)) ** 2 < 1
    wing = (
        np.abs(along + 0.45 * across - 0.06 * span) < 0.075 * span * (1.5 - across / (0.5 * span))
    ) & (across < 0.48 * span)
    tail = (np.abs(along + 0.6 * across + 0.4 * span) < 0.05 * span) & (across < 0.18 * span)
    shape = body | wing | tail
    c.material[view][shape] = c.add(
        "vehicle", np.array([0.9, 0.9, 0.9, 0.6]) * c.rng.uniform(0.85, 1.05)
    )
    c.tone[view][shape] = 0
    c.height[view][shape] = np.where(body, 2.2, 1.4)[shape]
    c.box(u, v, span, 0.96 * span, turn, "plane")


def ship(
    c: Canvas, u: float, v: float, length: float, width: float, turn: float, material: int
) -> None:
    """A hull with a pointed bow, a deck house aft."""
    found = c.window(u, v, 0.6 * length)
    if found is None:
        return
    view, du, dv = found
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = du * cos + dv * sin, np.abs(dv * cos - du * sin)
    bow = np.clip((length / 2 - along) / (0.35 * length), 0, 1)
    hull = (np.abs(along) < length / 2) & (across < width / 2 * np.sqrt(bow))
    c.material[view][hull] = material
    c.height[view][hull] = 1.6
    c.tone[view][hull] = np.where(across < 0.3 * width, -0.12, 0.0)[hull]
    house = hull & (np.abs(along + 0.25 * length) < 0.12 * length) & (across < 0.36 * width)
    c.height[view][house] = 3.2
    c.tone[view][house] = 0.25
    c.box(u, v, length, width, turn, "ship")


def car(
    c: Canvas, u: float, v: float, turn: float, *, length: float = 3.7, material: int | None = None
) -> None:
    """A car, or a lorry when longer."""
    if material is None:
        material = int(c.rng.choice(c.vehicles))
    c.block(u, v, length, 1.75, material=material, height=1.2, turn=turn, category="car")
