"""The drawing board of the synthetic scenes: materials, heights, noise, and light.

A scene is drawn as three planes at twice the final resolution: `material` (an index into a
palette that gives colour, near infrared and land cover together), `tone` (relative brightness)
and `height`. Light turns them into an image: slopes are shaded, things with height cast shadows,
and the exposure is set by the scene as a camera would.

World coordinates are in units of 1/64 of the image side before zoom, with the origin in the middle;
the whole world is turned by a random angle, so that nothing is aligned with the pixel grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from .palette import COLOURS, COVER_OF, LAND_COVER, OBJECTS, VEHICLES

SUPERSAMPLING = 2  # fine pixels per pixel and axis; `render` averages 2 x 2


@dataclass
class Canvas:
    """One scene while it is drawn.

    Attributes:
        rng: The scene's random generator.
        size: Side of the finished image in pixels.
        zoom: Pixels per unit relative to size / 64; larger shows less ground.
        angle: Turn of the world against the image, in radians.
    """

    rng: np.random.Generator
    size: int
    zoom: float
    angle: float
    objects: list[tuple[list[float], int]] = field(default_factory=list)
    _palette: list[tuple[float, ...]] = field(default_factory=list)
    _covers: list[int] = field(default_factory=list)
    _base: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lays out the coordinates and a blank ground."""
        self.side = self.size * SUPERSAMPLING
        self.unit = self.side / 64 * self.zoom  # fine pixels per unit
        self.half = (
            self.side / 2 / self.unit * 1.4143
        )  # the image lies within this distance of the origin
        axis = ((np.arange(self.side) + 0.5 - self.side / 2) / self.unit).astype(np.float32)
        self._cos, self._sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        self.u = axis[None, :] * self._cos + axis[:, None] * self._sin  # (side, side)
        self.v = axis[:, None] * self._cos - axis[None, :] * self._sin
        self.material = np.zeros((self.side, self.side), dtype=np.uint8)
        self.tone = np.zeros((self.side, self.side), dtype=np.float32)
        self.height = np.zeros((self.side, self.side), dtype=np.float32)

    # Materials

    def base(self, name: str) -> int:
        """The palette index of a material in this scene: a mixture of two of its colours."""
        if name not in self._base:
            choices = np.array(COLOURS[name])
            first, second = self.rng.integers(len(choices), size=2)
            mix = self.rng.uniform()
            self._base[name] = self.add(
                COVER_OF.get(name, name), choices[first] * mix + choices[second] * (1 - mix)
            )
        return self._base[name]

    def add(self, cover: str, colour: np.ndarray) -> int:
        """Adds a colour (red, green, blue, near infrared) and returns its palette index."""
        self._palette.append(tuple(colour))
        self._covers.append(LAND_COVER.index(cover))
        return len(self._palette) - 1

    def choices(
        self, cover: str, colours: tuple[tuple[float, ...], ...], spread: float = 0.06
    ) -> np.ndarray:
        """Adds several colours, each varied a little, and returns their palette indices."""
        varied = np.clip(
            np.array(colours) + self.rng.normal(0, spread, (len(colours), 1)), 0.03, 0.97
        )
        return np.array([self.add(cover, colour) for colour in varied], dtype=np.uint8)

    @cached_property
    def vehicles(self) -> np.ndarray:
        """Palette indices of vehicle colours."""
        return self.choices("vehicle", VEHICLES)

    # Fields over the whole image

    def noise(self, wavelength: float, octaves: int = 1) -> np.ndarray:
        """Smooth noise, (side, side), standard deviation about 1.

        Args:
            wavelength: Wavelength of the coarsest octave, in units.
            octaves: Number of octaves; each has half the wavelength and 0.6 of the weight of the
                one before.
        """
        total = np.zeros((self.side, self.side), dtype=np.float32)
        weight, power = 1.0, 0.0
        for octave in range(octaves):
            cells = int(np.clip(self.side / self.unit / wavelength * 2**octave, 1, self.side)) + 2
            weights = _interpolation(self.side, cells)
            grid = self.rng.standard_normal((cells, cells), dtype=np.float32)
            total += weight * (weights @ grid @ weights.T)
            power += 0.4 * weight**2  # linear interpolation leaves about 0.4 of the variance
            weight *= 0.6
        return total / np.float32(np.sqrt(power))

    # Painting

    def paint(
        self,
        where: np.ndarray | np.bool,
        material: int | np.ndarray,
        height: float | np.ndarray = 0.0,
        tone: float = 0.0,
    ) -> None:
        """Replaces the ground where a (side, side) mask is true."""
        np.copyto(self.material, np.asarray(material, dtype=np.uint8), where=where)
        np.copyto(self.height, np.asarray(height, dtype=np.float32), where=where)
        np.copyto(self.tone, np.float32(tone), where=where)

    def trees(
        self,
        spacing: float,
        *,
        jitter: float,
        radius: tuple[float, float],
        where: np.ndarray | None = None,
        density: float = 1.0,
    ) -> None:
        """Grows crowns on a grid.

        Args:
            spacing: Spacing of the grid, in units.
            jitter: 0 keeps the grid, 1 moves crowns by up to half the spacing.
            radius: Smallest and largest radius of a crown, in units.
            where: Mask of the ground to plant; crowns whose middle lies outside are kept too, but
                cut at its border.
            density: Part of the grid that carries a crown.
        """
        rng = self.rng
        table = rng.uniform(-0.5, 0.5, (2, 64, 64)).astype(np.float32) * np.float32(
            jitter * spacing
        )
        radii = rng.uniform(*radius, (64, 64)).astype(np.float32)
        radii[rng.uniform(size=(64, 64)) > density] = 1e-3
        tones = rng.normal(0, 0.13, (64, 64)).astype(np.float32)
        column, row = np.floor(self.u / spacing), np.floor(self.v / spacing)
        du = self.u - (column + 0.5) * spacing
        dv = self.v - (row + 0.5) * spacing
        column, row = column.astype(np.int32), row.astype(np.int32)
        best = np.zeros_like(self.u)
        tone = np.zeros_like(self.u)
        reach = (-1, 0, 1) if jitter * spacing / 2 + radius[1] > spacing / 2 else (0,)
        for i in reach:
            for j in reach:
                index = ((column + i) & 63) * 64 + ((row + j) & 63)
                x = du - i * spacing - table[0].take(index)
                y = dv - j * spacing - table[1].take(index)
                r = radii.take(index)
                dome = r - (x * x + y * y) / r  # a paraboloid of height r
                higher = dome > best
                np.copyto(best, dome, where=higher)
                np.copyto(tone, tones.take(index), where=higher)
        crown = best > 0 if where is None else (best > 0) & where
        rough = 1 + 0.25 * self.noise(1.2)
        np.copyto(self.material, np.uint8(self.base("tree")), where=crown)
        np.copyto(self.height, 1.0 + best * rough, where=crown)
        np.copyto(self.tone, tone, where=crown)

    def window(
        self, u: float, v: float, reach: float
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
        """The pixels around a point and their offsets from it; None when outside."""
        x, y = self.pixel(u, v)
        r = reach * self.unit + 1
        left, right = max(0, int(x - r)), min(self.side, int(x + r) + 1)
        top, bottom = max(0, int(y - r)), min(self.side, int(y + r) + 1)
        if left >= right or top >= bottom:
            return None
        view = (slice(top, bottom), slice(left, right))
        return view, self.u[view] - np.float32(u), self.v[view] - np.float32(v)

    def block(
        self,
        u: float,
        v: float,
        length: float,
        width: float,
        *,
        material: int,
        height: float,
        gable: float = 0.0,
        turn: float = 0.0,
        tone: float = 0.0,
        category: str | None = None,
    ) -> None:
        """Puts a rectangular thing on the ground: a house, a hall, a car.

        Args:
            u: Middle along u.
            v: Middle along v.
            length: Length along the thing's own axis, in units.
            width: Width across that axis, in units.
            material: Palette index of the thing.
            height: Height of the eaves, in units.
            gable: Rise of the ridge above the eaves.
            turn: Turn of the thing's axis against u, in radians.
            tone: Relative brightness.
            category: Category of the box that is recorded; None records none.
        """
        found = self.window(u, v, (length + width) / 2)
        if found is None:
            return
        view, du, dv = found
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        along, across = du * cos + dv * sin, dv * cos - du * sin
        inside = (np.abs(along) < length / 2) & (np.abs(across) < width / 2)
        self.material[view][inside] = material
        self.tone[view][inside] = tone
        roof = (
            height + gable * (1 - np.abs(across) / (width / 2))
            if gable
            else np.full_like(du, height)
        )
        self.height[view][inside] = roof[inside]
        if category is not None:
            self.box(u, v, length, width, turn, category)

    def pixel(self, u: float, v: float) -> tuple[float, float]:
        """The fine pixel coordinates (x, y) of a point of the world."""
        x = (u * self._cos - v * self._sin) * self.unit + self.side / 2
        y = (u * self._sin + v * self._cos) * self.unit + self.side / 2
        return float(x), float(y)

    def box(
        self, u: float, v: float, length: float, width: float, turn: float, category: str
    ) -> None:
        """Records the upright box around a turned rectangle, if half of it is visible.

        The box is cut at the image's border.
        """
        x, y = self.pixel(u, v)
        cos, sin = abs(math.cos(self.angle + turn)), abs(math.sin(self.angle + turn))
        scale = self.unit / SUPERSAMPLING
        half_x, half_y = (
            (length * cos + width * sin) / 2 * scale,
            (length * sin + width * cos) / 2 * scale,
        )
        x, y = x / SUPERSAMPLING, y / SUPERSAMPLING
        left, right = max(0.0, x - half_x), min(float(self.size), x + half_x)
        top, bottom = max(0.0, y - half_y), min(float(self.size), y + half_y)
        if (
            right - left >= 1
            and bottom - top >= 1
            and (right - left) * (bottom - top) > 2 * half_x * half_y
        ):
            self.objects.append(([left, top, right - left, bottom - top], OBJECTS.index(category)))

    # Light

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Lights the scene.

        Returns:
            Image (size, size, 4), uint8 (red, green, blue, near infrared), and land cover (size,
            size), uint8.
        """
        rng = self.rng
        sun = rng.uniform(0, 2 * np.pi)
        slope = rng.uniform(0.7, 1.6)  # tangent of the sun's elevation
        brightness = (
            (1 + np.maximum(self.tone, -0.45) + 0.05 * self.noise(0.8))
            * self._shade(sun)
            * self._shadow(sun, slope)
        )
        image = (
            np.array(self._palette, dtype=np.float32)[self.material] * brightness[..., None]
        )  # (side, side, 4)
        image = (image[0::2, 0::2] + image[0::2, 1::2] + image[1::2, 0::2] + image[1::2, 1::2]) / 4
        image = self._expose(image)
        image += rng.normal(0, rng.uniform(0.004, 0.016), image.shape)
        cover = np.array(self._covers, dtype=np.uint8)[
            self.material[::SUPERSAMPLING, ::SUPERSAMPLING]
        ]
        return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), cover

    def _shade(self, sun: float) -> np.ndarray:
        """The brightness of slopes towards and away from the sun, 1 on flat ground."""
        dy, dx = np.gradient(self.height * self.unit)
        return 1 + 0.35 * np.tanh(
            (dx * np.float32(np.cos(sun)) + dy * np.float32(np.sin(sun))) * -0.8
        )

    def _shadow(self, sun: float, slope: float) -> np.ndarray:
        """The brightness under cast shadows, 1 in the sun."""
        deepest = np.zeros_like(self.height)
        reach = min(float(self.height.max()) / slope * self.unit, self.side / 3)
        for distance in np.arange(1.0, reach + 1, 1.5 if reach < 12 else 2.0):
            dx, dy = round(-np.cos(sun) * distance), round(-np.sin(sun) * distance)
            deepest = np.maximum(
                deepest, _shifted(self.height, dx, dy) - np.float32(distance / self.unit * slope)
            )
        dark = np.clip((deepest - self.height) * 2, 0, 1)
        return 1 - np.float32(self.rng.uniform(0.4, 0.6)) * dark

    def _expose(self, image: np.ndarray) -> np.ndarray:
        """Sets brightness, contrast and colour cast, whatever the scene shows."""
        rng = self.rng
        mean = image.mean((0, 1))
        deviation = image[..., :3].std() + 0.02
        contrast = np.clip((rng.uniform(0.08, 0.19) / deviation) ** 0.9, 0.5, 2.0)
        warmth = rng.normal(0, 0.025)
        cast = np.append(rng.normal(0, 0.01, 3) + np.array([warmth, 0, -warmth]), 0.0)
        grey = mean[:3].mean()
        # Most of the mean colour is replaced by the camera's; the rest keeps vegetation greenish
        # and sand warm.
        target = rng.uniform(0.3, 0.55) + np.append(0.5 * (mean[:3] - grey), mean[3] - grey) + cast
        return (image - mean) * np.float32(contrast) + target.astype(np.float32)


@lru_cache(maxsize=256)
def _interpolation(side: int, cells: int) -> np.ndarray:
    """The (side, cells) matrix that interpolates linearly between `cells` values."""
    position = (np.arange(side) + 0.5) / side * (cells - 1)
    low = np.minimum(position.astype(int), cells - 2)
    weights = np.zeros((side, cells), dtype=np.float32)
    rows = np.arange(side)
    weights[rows, low] = 1 - (position - low)
    weights[rows, low + 1] = position - low
    return weights


def _shifted(plane: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The plane moved by (dx, dy), zero where nothing came from."""
    height, width = plane.shape
    moved = np.zeros_like(plane)
    if abs(dx) < width and abs(dy) < height:
        moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = plane[
            max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
        ]
    return moved
