"""Which positions are read, in which order: drawn once, from the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ServiceError, UserError
from .guide import Guide
from .scenes import Scene

_FINE = 4  # guide cells along a tile, which its majority is taken of


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile that may be read.

    Attributes:
        scene: Index.
        row: Of its upper left pixel.
        column: Likewise.
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
) -> tuple[list[Candidate], list[str]]:
    """All positions in the order in which they are tried.

    Positions lie on each scene's grid of tiles, so that none overlap; a tile's class is the most
    frequent one of the guide in it.

    Args:
        scenes: Rasters.
        guide: Says what is where; None makes all one class, `unguided`.
        tile: Side in pixels.
        sampling: "balanced" tries class by class in turn, "random" as they come.
        seed: Of the order.
        min_purity: Smallest share of a tile that its class covers.

    Returns:
        Candidates, and the names of the classes that there are positions of.

    Raises:
        UserError: No position anywhere, or a scene that cannot be opened or lacks a CRS.
        ServiceError: A server that does not answer.
    """
    found: list[tuple[int, int, int, int, float]] = []
    for number, scene in enumerate(scenes):
        found += [(number, *position) for position in _positions(scene, guide, tile, min_purity)]
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


def _positions(
    scene: Scene, guide: Guide | None, tile: int, min_purity: float
) -> list[tuple[int, int, int, float]]:
    """(row, column, label, purity) of each tile of a scene that has a class."""
    import rasterio
    from rasterio.errors import RasterioError

    from .scenes import GDAL

    try:
        with rasterio.Env(**GDAL), rasterio.open(scene.address) as raster:
            rows, columns = raster.height // tile, raster.width // tile
            transform, crs = raster.transform, raster.crs
    except RasterioError as error:
        if scene.address != scene.href:
            raise ServiceError(f"{scene.href} does not answer ({error}): try later.") from error
        raise UserError(f"The scene {scene.href} cannot be read: {error}.") from error
    if crs is None:
        raise UserError(f"The scene {scene.href} does not say where it lies (no CRS).")
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
