"""Which positions are read, in which order: drawn once, from the seed alone."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UserError
from ..values import stated_values
from .guard import refused_hosts
from .guide import Guide
from .scenes import GDAL, Scene, check_alike, open_scene, unread

logger = logging.getLogger(__name__)

_MOST_POSITIONS = 20_000_000  # positions are held in memory, about 100 bytes each
_METRES_A_DEGREE = 111_320.0  # of latitude
_FINE = 4  # guide cells along a tile, which its majority is taken of


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile that may be read.

    Attributes:
        scene: Index of the scene.
        row: Row of the tile's upper left pixel.
        column: Column of the tile's upper left pixel.
        label: Guidance class, from 0.
        purity: Share of the tile that the class covers.
    """

    scene: int
    row: int
    column: int
    label: int
    purity: float


def draw(
    scenes: Sequence[Scene],
    guide: Guide | None,
    *,
    tile: int,
    sampling: str,
    seed: int,
    min_purity: float,
    bands: Sequence[int] | None = None,
    any_resolution: bool = False,
) -> tuple[list[Candidate], list[str]]:
    """All positions in the order in which they are tried.

    Positions lie on each scene's grid of tiles, so that none overlap; a tile's class is the most
    frequent one of the guide in it.

    Args:
        scenes: Rasters that tiles are drawn from.
        guide: Says what is where; None makes all one class, `unguided`.
        tile: Side in pixels.
        sampling: "balanced" tries class by class in turn, "random" as they come.
        seed: Seed of the order.
        min_purity: Smallest share of a tile that its class covers.
        bands: Numbers of the bands to keep; None is the first three.
        any_resolution: Whether the scenes' pixels may differ in size.

    Returns:
        Candidates, and the names of the classes that there are positions of.

    Raises:
        UserError: No position anywhere, scenes that are not alike, or one that cannot be opened or
            lacks a CRS.
        ServiceError: A server that does not answer.
    """
    told: dict[str, str] = {}
    profiles = [_profile(scene, told) for scene in scenes]
    for note in told.values():
        logger.warning(note)
    check_alike(list(zip(scenes, profiles, strict=True)), bands, any_resolution)
    cells = sum((p.height // tile) * (p.width // tile) for p in profiles)
    if cells > _MOST_POSITIONS:
        raise UserError(
            f"The scenes have {cells:,} places for a tile, and at most {_MOST_POSITIONS:,} can be "
            "drawn from: take larger tiles or fewer scenes."
        )
    found: list[tuple[int, int, int, int, float]] = []
    for number, profile in enumerate(profiles):
        found += [(number, *position) for position in _positions(profile, guide, tile, min_purity)]
    if not found:
        where = "that the guide knows" if guide is not None else f"of {tile} pixels"
        raise UserError(f"The {len(scenes)} scenes have no place for a tile {where}.")
    names = guide.names if guide is not None else ["unguided"]
    there = sorted({position[3] for position in found})
    kept = [names[label] for label in there]
    renumbered = {label: place for place, label in enumerate(there)}
    candidates = [
        Candidate(scene, row, column, renumbered[label], purity)
        for scene, row, column, label, purity in found
    ]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(candidates))
    if sampling == "random":
        return [candidates[i] for i in order], kept
    queues = [[i for i in order if candidates[i].label == label] for label in range(len(kept))]
    turns = [
        queue[turn]
        for turn in range(max(map(len, queues)))
        for queue in queues
        if turn < len(queue)
    ]
    return [candidates[i] for i in turns], kept


@dataclass(frozen=True)
class Profile:
    """What a scene's header says.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        count: Number of bands.
        dtype: Type of the stored values.
        transform: From pixels to `crs`.
        crs: Coordinate system.
        metres: Side of a pixel in metres, roughly; 0 where it is not known.
    """

    height: int
    width: int
    count: int
    dtype: str
    transform: Any
    crs: Any
    metres: float


def _profile(scene: Scene, told: dict[str, str]) -> Profile:
    """A scene's header; bands in files of their own are looked at one by one.

    Args:
        scene: What is looked at.
        told: Kind of what becomes of values -> the sentence about the first scene of the kind.

    Raises:
        UserError: A scene that cannot be read, has no place, or whose bands differ in their grid.
        ServiceError: A server that does not answer.
    """
    import rasterio

    profiles: list[Profile] = []
    for number, (address, href) in enumerate(
        zip(scene.addresses, scene.parts or (scene.href,), strict=True)
    ):
        with rasterio.Env(**GDAL):
            before = refused_hosts()
            try:
                opened = open_scene(address, href)
            except UserError as error:
                if scene.remote:
                    raise unread(href, error, before) from error
                raise UserError(f"The scene {href} cannot be read: {error}") from error
            with opened as raster:
                profiles.append(_header(raster))
                catalogued = scene.scales[number] if scene.scales else None
                values = stated_values(raster, range(1, raster.count + 1), href, catalogued)
        for note in values.notes:
            told.setdefault(note.partition(": ")[2], note)
        if profiles[-1].crs is None:
            raise UserError(
                f"The scene {href} does not say where it lies (no CRS): give it one, as gdalwarp "
                "does from its control points."
            )
    if not scene.parts:
        return profiles[0]
    fine = min(profiles, key=lambda profile: profile.metres)
    place = scene.parts[profiles.index(fine)]
    for href, profile in zip(scene.parts, profiles, strict=True):
        if profile.crs != fine.crs or not _same_ground(profile, fine):
            raise UserError(
                f"{href} has {profile.width} x {profile.height} pixels of {profile.metres:g} m, "
                f"{place} {fine.width} x {fine.height} of {fine.metres:g} m, and they do not cover "
                "the same ground: name bands of one grid."
            )
        if profile.count != 1:
            raise UserError(f"{href} has {profile.count} bands: name assets of one band each.")
        if profile.metres > fine.metres:
            note = f"pixels of {profile.metres:g} m are repeated to {fine.metres:g} m."
            told.setdefault(note, f"{href}: {note}")
    return dataclasses.replace(fine, count=len(profiles))


def _header(raster: Any) -> Profile:
    transform, crs = raster.transform, raster.crs
    types = " and ".join(sorted(set(raster.dtypes)))
    size = raster.height, raster.width, raster.count
    return Profile(*size, types, transform, crs, _metres(transform, crs))


def _same_ground(one: Profile, other: Profile) -> bool:
    """Whether two grids begin and end together, within half a pixel of the coarser one."""
    corners = [
        np.array([p.transform @ (0, 0), p.transform @ (p.width, p.height)]) for p in (one, other)
    ]
    half = max(abs(p.transform.a) for p in (one, other)) / 2
    return bool((np.abs(corners[0] - corners[1]) <= half).all())


def _metres(transform: Any, crs: Any) -> float:
    side = float(abs(transform.a * transform.e - transform.b * transform.d) ** 0.5)
    if crs is None:
        return 0.0
    if crs.is_geographic:
        return side * _METRES_A_DEGREE
    try:
        return side * float(crs.linear_units_factor[1])
    except (ValueError, TypeError, IndexError, RuntimeError):
        return side


def _positions(
    profile: Profile, guide: Guide | None, tile: int, min_purity: float
) -> list[tuple[int, int, int, float]]:
    """(row, column, label, purity) of each tile of a scene that has a class."""
    rows, columns = profile.height // tile, profile.width // tile
    transform, crs = profile.transform, profile.crs
    if not rows or not columns:
        return []
    if guide is None:
        return [(r * tile, c * tile, 0, 1.0) for r in range(rows) for c in range(columns)]
    from affine import Affine

    step = tile / _FINE
    fine = guide.classes(
        transform @ Affine.scale(step), crs, rows * _FINE, columns * _FINE
    ).reshape(rows, _FINE, columns, _FINE)
    cells = fine.transpose(0, 2, 1, 3).reshape(rows, columns, -1)  # (rows, columns, 16)
    counts = np.stack([(cells == label).sum(-1) for label in range(len(guide.names))], -1)
    best, share = counts.argmax(-1), counts.max(-1) / cells.shape[-1]
    usable = (share > 0) & (share >= min_purity)
    return [
        (int(r) * tile, int(c) * tile, int(best[r, c]), float(share[r, c]))
        for r, c in np.argwhere(usable)
    ]
