"""What the synthetic scenes show: one function a class, drawing on a canvas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .canvas import Canvas
from .objects import car, hall, plane, ship
from .palette import COLOURS, HALLS, ROOFS, VEHICLES


def forest(c: Canvas) -> None:
    """Closed canopy with clearings, sometimes a track."""
    c.paint(np.True_, c.base(c.rng.choice(["grass", "soil"])), tone=0.0)
    ground_noise(c, 0.1)
    clearing = c.noise(22, 2) > c.rng.uniform(1.0, 2.4)
    spacing = c.rng.uniform(2.6, 5.0)
    c.trees(spacing, jitter=1.0, radius=(0.5 * spacing, 0.85 * spacing), where=~clearing)
    if c.rng.uniform() < 0.3:
        c.paint(np.abs(wavy(c, 4)) < 1.0, c.base("soil"))


def orchard(c: Canvas) -> None:
    """Trees of one size in rows."""
    c.paint(np.True_, c.base(c.rng.choice(["grass", "soil"])))
    ground_noise(c, 0.08)
    spacing = c.rng.uniform(4.2, 7.0)
    radius = spacing * c.rng.uniform(0.3, 0.42)
    gap = np.abs(c.u - c.rng.uniform(-20, 20)) < c.rng.uniform(0, 3)
    c.trees(
        spacing,
        jitter=0.12,
        radius=(0.85 * radius, 1.1 * radius),
        where=~gap,
        density=c.rng.uniform(0.85, 1.0),
    )
    if c.rng.uniform() < 0.5:
        c.paint(gap, c.base("soil"))


def farmland(c: Canvas) -> None:
    """Parcels of different crops with furrows, divided by tracks."""
    rng = c.rng
    width = rng.uniform(14, 28)
    columns = np.floor(c.u / width + 100).astype(np.int32)
    # Every column of parcels has its own depth and offset, so that borders do not run through.
    depth = rng.uniform(12, 34, 256).astype(np.float32)[columns]
    place = c.v / depth + rng.uniform(0, 1, 256).astype(np.float32)[columns] + 100
    parcel = (columns * 31 + place.astype(np.int32) * 7) & 255
    crops = c.choices("crop", COLOURS["crop"], 0.05)
    bare = c.choices("soil", COLOURS["soil"][:2], 0.05)
    of_parcel = np.where(
        rng.uniform(size=256) < 0.25, rng.choice(bare, 256), rng.choice(crops, 256)
    )
    c.paint(np.True_, of_parcel[parcel])
    # Furrows: fine stripes along or across, as strong as the crop is young.
    wavelength = rng.uniform(1.6, 4.0, 256).astype(np.float32)[parcel]
    direction = np.where((rng.uniform(size=256) < 0.7)[parcel], c.u, c.v)
    strength = rng.uniform(0.0, 0.2, 256).astype(np.float32)[parcel]
    c.tone += strength * np.sin(2 * np.pi * direction / wavelength) + 0.05 * c.noise(9, 3)
    edge = np.minimum(
        np.abs(c.u / width - np.round(c.u / width)) * width, np.abs(place - np.round(place)) * depth
    )
    c.paint(edge < rng.uniform(0.25, 0.8), c.base(rng.choice(["soil", "grass"])), tone=0.08)
    if rng.uniform() < 0.4:
        c.trees(
            3.5,
            jitter=1.0,
            radius=(1.2, 2.2),
            where=np.abs(c.v - rng.uniform(-25, 25)) < 1.8,
            density=0.7,
        )


def meadow(c: Canvas) -> None:
    """Grass with soft patches, a path and a few trees."""
    c.paint(np.True_, c.base("grass"))
    ground_noise(c, 0.07)
    c.tone += 0.09 * c.noise(2.5, 3)
    if c.rng.uniform() < 0.4:  # mown in strips
        c.tone += 0.05 * np.sign(np.sin(c.u * c.rng.uniform(0.5, 1.2)))
    c.paint(c.noise(16, 3) > c.rng.uniform(1.6, 2.6), c.base("soil"))
    if c.rng.uniform() < 0.6:
        c.paint(np.abs(wavy(c, 8)) < c.rng.uniform(0.4, 0.9), c.base("soil"), tone=0.1)
    c.trees(9, jitter=1.0, radius=(1.0, 2.6), density=c.rng.uniform(0.0, 0.2))


def desert(c: Canvas) -> None:
    """Dunes or bare ground with scattered shrubs."""
    rng = c.rng
    c.paint(np.True_, c.base(rng.choice(["sand", "soil"])))
    warp = c.noise(24, 3)
    wavelength = rng.uniform(6, 16)
    phase = (c.u / wavelength + rng.uniform(0.25, 0.6) * warp) % 1
    crest = np.minimum(phase / 0.75, (1 - phase) / 0.25)  # a gentle windward and a steep lee side
    c.height += crest * np.float32(wavelength * rng.uniform(0.03, 0.12)) * (1 + 0.4 * c.noise(20))
    c.tone += 0.06 * c.noise(3, 3) + 0.05 * warp
    c.trees(5, jitter=1.0, radius=(0.5, 1.0), density=rng.uniform(0.0, 0.12))


def river(c: Canvas) -> None:
    """A winding river between banks."""
    rng = c.rng
    land(c)
    distance = np.abs(wavy(c, rng.uniform(5, 12))) + 0.8 * c.noise(6, 2)
    width = rng.uniform(4, 11)
    c.paint(distance < width + rng.uniform(0.5, 4), c.base(rng.choice(["sand", "soil"])))
    ground_noise(c, 0.05)
    water(c, distance < width)


def beach(c: Canvas) -> None:
    """Land, a strip of sand, surf and sea."""
    rng = c.rng
    land(c)
    line = (
        c.v
        + rng.uniform(1, 3) * np.sin(c.u / rng.uniform(8, 16) + rng.uniform(0, 6))
        + 0.6 * c.noise(10, 3)
    )
    shore = rng.uniform(-9, 9)
    c.paint(line > shore - rng.uniform(8, 18), c.base("sand"))
    ground_noise(c, 0.05)
    sea = line - shore
    water(c, sea > 0)
    c.tone += np.where(
        sea > 0, 0.35 * np.exp(-np.maximum(sea, 0) / 7), 0
    )  # shallow water is bright
    foam = (np.abs(sea - rng.uniform(0.2, 1.0) - 0.5 * c.noise(4, 2)) < 0.7) | (
        np.abs(sea - rng.uniform(4, 8) - c.noise(7, 2)) < 0.45
    )
    c.tone[foam & (sea > 0)] += 1.1


def residential(c: Canvas) -> None:
    """Houses with gable roofs on lots along streets, garden trees and parked cars."""
    rng = c.rng
    c.paint(np.True_, c.base(rng.choice(["grass", "grass", "soil"])))
    ground_noise(c, 0.12)
    lot, deep = rng.uniform(9, 12), rng.uniform(13, 17)
    block = 2 * deep + 5  # two rows of lots and a street
    c.trees(6.5, jitter=1.0, radius=(1.0, 2.2), density=rng.uniform(0.2, 0.7))
    from_street = c.v - np.round(c.v / block) * block
    across = c.u - np.round(c.u / (5 * lot)) * 5 * lot
    street = c.base("asphalt")
    c.paint((np.abs(from_street) < 2.2) | (np.abs(across) < 1.8), street)
    c.paint((np.abs(np.abs(from_street) - 2.7) < 0.4), c.base("concrete"))
    roofs = c.choices("building", ROOFS)
    style = rng.choice(roofs, 2 if rng.uniform() < 0.5 else 4)
    reach = c.half
    for row in np.arange(np.floor(-reach / block), np.ceil(reach / block) + 1) * block:
        for side in (-1, 1):
            for column in np.arange(np.floor(-reach / lot), np.ceil(reach / lot) + 1):
                u, v = (column + 0.5) * lot, row + side * (2.8 + 0.45 * deep)
                if rng.uniform() < 0.08 or max(map(abs, c.pixel(u, v))) > 1.15 * c.side:
                    continue
                u, v = u + rng.uniform(-0.8, 0.8), v + rng.uniform(-0.8, 0.8)
                length, width = rng.uniform(0.62, 0.8) * lot, rng.uniform(4.8, 6.5)
                turn = 0.0 if rng.uniform() < 0.75 else np.pi / 2
                c.block(
                    u,
                    v,
                    length,
                    width,
                    material=int(rng.choice(style)),
                    height=rng.uniform(2, 3.5),
                    gable=rng.uniform(0.6, 1.6),
                    turn=turn,
                    tone=rng.normal(0, 0.06),
                    category="house",
                )
                if rng.uniform() < 0.3:
                    car(c, u + rng.uniform(-3, 3), row + side * 1.4, 0.0)


def industrial(c: Canvas) -> None:
    """Large halls with roof lights on pavement, loading yards and lorries."""
    rng = c.rng
    c.paint(np.True_, c.base(rng.choice(["concrete", "asphalt"])))
    ground_noise(c, 0.06)
    c.paint(c.noise(20, 2) > rng.uniform(0.8, 2), c.base("grass"))
    halls = c.choices("building", HALLS)
    width, depth = rng.uniform(22, 34), rng.uniform(16, 26)
    c.paint(np.abs(c.v - np.round(c.v / depth) * depth) < 1.5, c.base("asphalt"))
    for i in range(-3, 4):
        for j in range(-4, 4):
            if rng.uniform() < 0.12:
                continue
            u, v = (i + 0.5) * width + rng.uniform(-1.5, 1.5), (j + 0.5) * depth
            if c.window(u, v, width) is None:
                continue
            length, across = rng.uniform(0.6, 0.88) * width, rng.uniform(0.5, 0.76) * depth
            hall(c, u, v, length, across, int(rng.choice(halls)))
            if rng.uniform() < 0.5:
                car(
                    c,
                    u + rng.uniform(-8, 8),
                    v + across / 2 + 1.8,
                    rng.choice([0.0, np.pi / 2]),
                    length=5.5,
                )


def parking(c: Canvas) -> None:
    """Rows of stalls with cars, lanes between them, islands with trees."""
    rng = c.rng
    c.paint(np.True_, c.base("asphalt"))
    ground_noise(c, 0.05)
    stall, depth, lane = rng.uniform(2.3, 2.9), rng.uniform(4.4, 5.2), rng.uniform(5, 7)
    pitch = 2 * depth + lane
    white = c.add("pavement", np.array([0.82, 0.82, 0.80, 0.55]))
    from_row = c.v - np.round(c.v / pitch) * pitch  # stalls on both sides of each row's middle line
    stalls = np.abs(from_row) < depth
    line = np.abs(c.u / stall - np.round(c.u / stall)) * stall < 0.14
    c.paint(stalls & (line | (np.abs(from_row) < 0.14)), white)
    # Stalls: one table entry each, looked up for all pixels at once. Half-rows are odd above a
    # row's middle line.
    column = np.floor(c.u / stall).astype(np.int32)
    half_row = 2 * np.round(c.v / pitch).astype(np.int32) + (from_row > 0)
    place = (column & 63, half_row & 63)
    taken = rng.uniform(size=(64, 64)) < rng.uniform(0.35, 0.95)
    if rng.uniform() < 0.5:  # every eighth stall is an island with trees
        taken[::8] = False
        island = stalls & (column % 8 == 0)
        c.paint(island, c.base("grass"))
        c.trees(4.5, jitter=0.6, radius=(1.2, 1.9), where=island)
    length, width = rng.uniform(3.5, 3.9), 1.75
    colours = rng.choice(c.vehicles, (64, 64))
    shift = rng.normal(0, 0.15, (64, 64))
    along = np.abs(from_row) - depth / 2 - shift[place]
    across = c.u - (column + 0.5) * stall
    c.paint(
        taken[place] & (np.abs(along) < length / 2) & (np.abs(across) < width / 2),
        colours[place],
        height=1.2,
    )
    for i in range(int(-c.half / stall) - 1, int(c.half / stall) + 2):
        for j in range(2 * int(-c.half / pitch) - 2, 2 * int(c.half / pitch) + 4):
            if taken[i & 63, j & 63]:
                side = 1 if j % 2 else -1
                middle = (j // 2) * pitch + side * (depth / 2 + shift[i & 63, j & 63])
                c.box((i + 0.5) * stall, middle, width, length, 0.0, "car")


def airport(c: Canvas) -> None:
    """A runway with markings, a taxiway, an apron with planes."""
    rng = c.rng
    c.paint(np.True_, c.base(rng.choice(["grass", "grass", "soil"])))
    ground_noise(c, 0.1)
    tarmac = c.base("asphalt")
    white = c.add("pavement", np.array([0.85, 0.85, 0.82, 0.55]))
    middle, half = rng.uniform(-14, 6), rng.uniform(4, 6.5)
    across = c.v - middle
    c.paint(np.abs(across) < half, tarmac)
    c.tone += np.where(
        np.abs(across) < half, 0.05 * np.sin(c.u / 9) - 0.08 * np.exp(-((across / 2) ** 2)), 0
    )
    c.paint((np.abs(across) < 0.25) & ((c.u / 6) % 1 < 0.6), white)
    c.paint(np.abs(np.abs(across) - half + 0.5) < 0.18, white)
    end = rng.uniform(-26, 26)
    bars = (np.abs(c.u - end) < 3) & (np.abs(across) < half - 1) & ((across / 1.3) % 1 < 0.55)
    c.paint(bars, white)
    taxi = middle + half + rng.uniform(6, 10)
    c.paint(np.abs(c.v - taxi) < 1.8, c.base("concrete"))
    link = rng.uniform(-18, 18)
    c.paint(
        (np.abs(c.u - link - (c.v - middle) * 0.5) < 1.8) & (c.v > middle) & (c.v < taxi),
        c.base("concrete"),
    )
    yellow = c.add("pavement", np.array([0.72, 0.62, 0.25, 0.5]))
    c.paint(np.abs(c.v - taxi) < 0.16, yellow)
    apron = taxi + 4
    c.paint(c.v > apron, c.base("concrete"))
    joint = np.minimum(np.abs(c.u % 4 - 2), np.abs(c.v % 4 - 2)) < 0.12
    c.tone[joint & (c.v > apron)] -= 0.08
    first = rng.uniform(0, 12)
    span = rng.uniform(9, 13)
    turn = rng.choice([-1, 1]) * np.pi / 2
    for u in np.arange(-48, 48, span * 1.25) + first:
        if rng.uniform() < 0.8:
            plane(c, u, apron + 0.75 * span, span, turn)


def harbor(c: Canvas) -> None:
    """A basin with piers, ships at their sides, a quay with sheds."""
    rng = c.rng
    c.paint(np.True_, c.base("water"))
    c.tone += 0.05 * c.noise(4, 3)
    quay = rng.uniform(-16, -4)
    paved = c.base("concrete")
    c.paint(c.v < quay, paved, height=1.0)
    pier, gap = rng.uniform(1.6, 3.2), rng.uniform(14, 20)
    offset = rng.uniform(0, gap)
    longest = rng.uniform(22, 40)
    hulls = c.choices("vehicle", (*VEHICLES, (0.93, 0.93, 0.92, 0.6)))
    for u in np.arange(-60, 60, gap) + offset:
        c.block(u, quay + longest / 2 - 0.5, pier, longest, material=paved, height=1.0, tone=-0.05)
        length = rng.uniform(6, 15)
        for side in (-1, 1):
            v = quay + 1.5 + length / 2
            while v + length / 2 < quay + longest + 1:
                if rng.uniform() < 0.75:
                    width = max(1.8, length * rng.uniform(0.22, 0.3))
                    turn = rng.choice([-1, 1]) * np.pi / 2
                    ship(
                        c,
                        u + side * (pier / 2 + width / 2 + 0.4),
                        v,
                        length,
                        width,
                        turn,
                        int(rng.choice(hulls)),
                    )
                v += length + rng.uniform(0.8, 2.5)
    halls = c.choices("building", HALLS)
    for u in np.arange(-48, 48, 17) + rng.uniform(0, 17):
        hall(
            c,
            u,
            quay - rng.uniform(7, 9),
            rng.uniform(9, 14),
            rng.uniform(5, 8),
            int(rng.choice(halls)),
        )
        car(c, u + 8, quay - 2, 0.0, length=4.5)


def land(c: Canvas) -> None:
    """Ground for scenes about water: grass, soil, woods, or fields."""
    kind = c.rng.integers(3)
    if kind == 0:
        farmland(c)
        return
    c.paint(np.True_, c.base(c.rng.choice(["grass", "soil"])))
    ground_noise(c, 0.12)
    if kind == 1:
        c.trees(4, jitter=1.0, radius=(1.8, 3.2), where=c.noise(18, 2) > c.rng.uniform(-1.2, 0.8))


def water(c: Canvas, where: np.ndarray) -> None:
    """Flat water with faint ripples."""
    c.paint(where, c.base("water"))
    c.tone += np.where(where, 0.05 * c.noise(3, 3), 0)


def ground_noise(c: Canvas, strength: float) -> None:
    """Varies the brightness of the ground at all scales."""
    c.tone += strength * c.noise(16, 5)


def wavy(c: Canvas, amplitude: float) -> np.ndarray:
    """The signed distance (roughly) from a winding line through the scene."""
    rng = c.rng
    bend = np.sin(c.u / rng.uniform(7, 16) + rng.uniform(0, 6)) + 0.4 * np.sin(
        c.u / 5 + rng.uniform(0, 6)
    )
    return c.v - rng.uniform(-10, 10) - amplitude * bend


SCENES: dict[str, Callable[[Canvas], None]] = {
    "airport": airport,
    "beach": beach,
    "desert": desert,
    "farmland": farmland,
    "forest": forest,
    "harbor": harbor,
    "industrial": industrial,
    "meadow": meadow,
    "orchard": orchard,
    "parking": parking,
    "residential": residential,
    "river": river,
}
"""Scene classes by name, in label order."""
