"""A map from a few polygons: a linear head on a frozen backbone's features at labelled pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import backbones
from ..data.vectors import read_features
from ..data.windows.settings import WindowSettings
from ..data.windows.shapes import labelled_shapes, placed, touching
from ..errors import UserError
from ..evaluation.linear import LinearProbe, LogisticPath, fit_probe
from .linear_head import LinearSegmenter, features_at
from .model import Predictor
from .run import check_tile
from .scene import Scene
from .tiles import Grid
from .writing import GDAL

# Pixels of a class that the head learns from: neighbours look alike, more of them add little.
_PIXELS = 1_000
# Inverse strengths of the regularisation that are tried, and the one where nothing can be held out.
_C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)
_C = 1e-2
_FOLDS = 3
_SWEEP = 1e-3  # gradient at which a fit that only chooses C may stop


@dataclass(frozen=True)
class Head:
    """A segmentation model that was learned from labels on scenes.

    Attributes:
        predictor: Backbone and head, which `predict` takes.
        pixels: Class -> labelled pixels that it learned from.
        areas: Class -> polygons and points that these lie in.
        c: Inverse strength of the regularisation.
        accuracy: Share of pixels of areas held out in turn that come out right, in percent, each
            class counting alike; None where a class has a single area.
        notes: Sentences about labels that were left out.
    """

    predictor: Predictor
    pixels: dict[str, int]
    areas: dict[str, int]
    c: float
    accuracy: float | None
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What was learned, as plain JSON."""
        names = ("pixels", "areas", "c", "accuracy", "notes")
        return {name: getattr(self, name) for name in names}

    def text(self) -> str:
        """What was learned, for people."""
        counts = ", ".join(
            f"{name} {count:,} pixels of {self.areas[name]} area{'s' * (self.areas[name] > 1)}"
            for name, count in self.pixels.items()
        )
        lines = [f"head: {counts}"]
        if self.accuracy is not None:
            lines.append(f"  {self.accuracy:.1f} % right on areas held out in turn")
        else:
            single = ", ".join(name for name, count in self.areas.items() if count < 2)
            lines.append(f"  how right it is cannot be told: draw a second area of {single}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class _Picks:
    """Labelled pixels of one scene: tile row, tile column, row, column, class, area, (N, 6)."""

    scene: int
    table: np.ndarray


def fit_head(
    embedder: Predictor,
    scenes: Sequence[str | os.PathLike[str]],
    labels: str | os.PathLike[str],
    *,
    field: str = "class",
    point_size: int = 1,
    tile: int | None = None,
    overlap: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Head:
    """Learns classes from polygons and points on scenes, by logistic regression.

    The pixels are standardised and weighted evenly: at most 1,000 a class, drawn from its areas in
    turn. C is chosen on areas held out, not on pixels, whose neighbours would tell it the answer.

    Args:
        embedder: A backbone, from `load_predictor(..., task="embedding")`.
        scenes: Those that the labels lie on, and others.
        labels: Vector file in any coordinate system; later features lie over earlier ones.
        field: Property that names the class.
        point_size: Side in pixels of the square that a point stands for.
        tile: Side of a tile in pixels; None is the embedder's own.
        overlap: Overlap of tiles in pixels; None is a quarter of a tile.
        device: Where to compute; None is a GPU where there is one.
        settings: Arguments of `Scene.open`: bands, sensor, stretch, scale, offset.

    Returns:
        A model of the labels' classes, in natural order.

    Raises:
        UserError: Labels outside of the scenes, of one class or without it, scenes without a place,
            or a model without feature maps.
    """
    if embedder.task != "embedding" or backbones.family_or_none(embedder.model) is None:
        raise UserError(
            f"{embedder.name} has no feature maps that can be read: name a backbone (ResNet, Swin "
            "or ViT of transformers) with --model."
        )
    check_tile(tile)
    if point_size < 1:
        raise UserError(f"The point size is {point_size} pixels: it must be 1 or more.")
    name, paths = os.fspath(labels), [os.fspath(path) for path in scenes]
    features, crs = read_features(name)
    windows = WindowSettings(field=field, point_size=point_size)
    shapes, classes, result = labelled_shapes(features, windows, name, "")
    embedder.to(device)
    reader = _Reader(embedder, tile, overlap, dict(settings or {}))
    picked: list[_Picks] = []
    for number, path in enumerate(paths):
        with reader.open(path) as (scene, grid):
            lying = _placed(scene, shapes, crs, windows)
            picked.append(_Picks(number, _labelled_pixels(scene, lying, grid)))
    kept = _drawn(picked, classes, name, paths)
    vectors: list[np.ndarray] = []
    for picks in kept:
        with reader.open(paths[picks.scene]) as (scene, grid):
            vectors.append(_features(embedder, scene, grid, picks.table))
    table = np.concatenate([picks.table for picks in kept])
    names = [classes[number] for number in np.unique(table[:, 4]).tolist()]
    x, y = np.concatenate(vectors), np.unique(table[:, 4], return_inverse=True)[1].reshape(-1)
    areas = table[:, 5]
    c, accuracy = _chosen_c(x, y, areas)
    probe = fit_probe(x, y, c=c, num_classes=len(names))
    learned = repr([names, c, [[picks.scene, picks.table.tolist()] for picks in kept]])
    notes = [f"{count} {reason}: left out" for reason, count in result.left_out.items()]
    missing = len(shapes) - len({area for picks in picked for area in picks.table[:, 5].tolist()})
    if missing:
        notes.append(
            f"{missing} of {len(shapes)} areas hold no pixel: outside of the scene, on pixels "
            "without data, under later ones, or too small"
        )
    absent = [label for label in classes if label not in names]
    if absent:
        notes.append(f"no pixel is labelled {', '.join(absent)}: not in the map")
    return Head(
        _predictor(embedder, probe, names, os.path.basename(name), learned),
        {label: int((y == number).sum()) for number, label in enumerate(names)},
        {label: len(set(areas[y == number].tolist())) for number, label in enumerate(names)},
        c,
        accuracy,
        tuple(notes),
    )


def _predictor(
    embedder: Predictor, probe: LinearProbe, names: list[str], labels: str, learned: str
) -> Predictor:
    """Backbone and head as a segmentation model; its revision follows from what it learned."""
    model = LinearSegmenter(embedder.model, probe.weight, probe.bias).eval()
    return dataclasses.replace(
        embedder,
        task="segmentation",
        model=model,
        names=names,
        name=f"{embedder.name}, linear head on {labels}",
        revision=f"{embedder.revision}+{hashlib.sha256(learned.encode()).hexdigest()[:16]}",
        stride=1,
        forward=model,
    )


@dataclass(frozen=True)
class _Reader:
    """Opens scenes with the tiles that prediction will have.

    Attributes:
        embedder: The backbone.
        tile: Side of a tile; None is the embedder's own.
        overlap: Overlap of tiles; None is a quarter of a tile.
        settings: Arguments of `Scene.open`.
    """

    embedder: Predictor
    tile: int | None
    overlap: int | None
    settings: dict[str, Any]

    @contextmanager
    def open(self, path: str) -> Iterator[tuple[Scene, Grid]]:
        """An open scene and its tiles."""
        with closing(Scene.open(path, self.embedder.preprocessing, **self.settings)) as scene:
            tile = self.tile or head_tile(self.embedder)
            overlap = tile // 4 if self.overlap is None else self.overlap
            yield scene, Grid(scene.raster.height, scene.raster.width, tile, overlap)


def head_tile(embedder: Predictor) -> int:
    """Side of a tile where none is asked for, the same for learning and for the map."""
    return dataclasses.replace(embedder, task="segmentation", stride=1).default_tile()


def _placed(scene: Scene, shapes: Sequence[Any], crs: Any, windows: WindowSettings) -> Any:
    """Labels in a scene's pixels, and their bounds.

    Raises:
        UserError: A scene without a coordinate system.
    """
    if scene.raster.crs is None:
        raise UserError(
            f"{scene.path} has no coordinate system and geotransform, so labels cannot be placed "
            "on it: give it one, as gdalwarp does from control points."
        )
    return placed(shapes, crs, scene.raster, windows)


def _labelled_pixels(scene: Scene, lying: Any, grid: Grid) -> np.ndarray:
    """Labelled pixels with data, each in the tile that sees it from furthest inside, (N, 6)."""
    import rasterio
    from affine import Affine
    from rasterio.features import rasterize

    shapes, bounds = lying
    rng = np.random.default_rng(0)
    parts = [np.zeros((0, 6), np.int64)]
    rows, columns = _edges(grid.rows, grid, grid.height), _edges(grid.columns, grid, grid.width)
    with rasterio.Env(**GDAL):
        for row, column in _touched(bounds, rows, columns):
            top, left = rows[row], columns[column]
            height, width = rows[row + 1] - top, columns[column + 1] - left
            near = np.flatnonzero(touching(bounds, top, left, max(height, width)))
            burnt = rasterize(
                [(shapes[i].geometry, i + 1) for i in near.tolist()],
                out_shape=(height, width),
                transform=Affine.translation(left, top),
                dtype="int32",
            )
            if not burnt.any():
                continue
            burnt[~scene.valid(top, left, height, width)] = 0
            for area in np.unique(burnt[burnt > 0]).tolist():
                y, x = np.nonzero(burnt == area)
                if len(y) > _PIXELS:
                    some = rng.choice(len(y), _PIXELS, replace=False)
                    y, x = y[some], x[some]
                same = np.full(len(y), 1)
                part = (row * same, column * same, y + top, x + left)
                parts.append(
                    np.column_stack((*part, shapes[area - 1].label * same, (area - 1) * same))
                )
    return np.concatenate(parts)


def _edges(count: int, grid: Grid, length: int) -> list[int]:
    """Where the part of a side begins that each tile sees best, and the side's end."""
    return [0, *(number * grid.step + grid.overlap // 2 for number in range(1, count)), length]


def _touched(bounds: np.ndarray, rows: list[int], columns: list[int]) -> list[tuple[int, int]]:
    """Tiles (row, column) whose own part a label's bounds reach."""
    tiles: set[tuple[int, int]] = set()
    for left, top, right, bottom in bounds:
        if right <= 0 or bottom <= 0 or left >= columns[-1] or top >= rows[-1]:
            continue
        spans = [
            range(
                max(int(np.searchsorted(edges, low, "right")) - 1, 0),
                min(int(np.searchsorted(edges, high, "left")), len(edges) - 1),
            )
            for edges, low, high in ((rows, top, bottom), (columns, left, right))
        ]
        tiles |= {(row, column) for row in spans[0] for column in spans[1]}
    return sorted(tiles)


def _drawn(
    picked: Sequence[_Picks], classes: Sequence[str], labels: str, scenes: Sequence[str]
) -> list[_Picks]:
    """At most `_PIXELS` pixels a class, from its areas in turn.

    Raises:
        UserError: No label on the scenes, or of one class alone.
    """
    where = scenes[0] if len(scenes) == 1 else f"{len(scenes)} scenes (first: {scenes[0]})"
    table = np.concatenate([np.insert(picks.table, 0, picks.scene, axis=1) for picks in picked])
    there = np.unique(table[:, 5])
    if not len(there):
        raise UserError(
            f"No label of {labels} lies on pixels with data of {where}: check its coordinate "
            "system, and that it was drawn on this scene."
        )
    if len(there) < 2:
        raise UserError(
            f"All labels of {labels} that lie on {where} are {classes[there[0]]!r}: draw areas of "
            "two classes or more."
        )
    rng = np.random.default_rng(0)
    table = table[rng.permutation(len(table))]
    kept: list[np.ndarray] = []
    for label in there:
        own = table[table[:, 5] == label]
        kept.append(own[in_turn(own[:, 6], _PIXELS)])
    table = np.concatenate(kept)
    table = table[np.lexsort(table.T[::-1])]
    return [
        _Picks(scene, table[table[:, 0] == scene, 1:]) for scene in np.unique(table[:, 0]).tolist()
    ]


def in_turn(areas: np.ndarray, most: int) -> np.ndarray:
    """Which pixels of a class are kept: one of each area, then another of each, as far as they go.

    Args:
        areas: (N,) number of the area that a pixel lies in.
        most: Pixels to keep.

    Returns:
        (M,) indices; of the pixels of an area the first ones.

    Example:
        >>> import numpy as np
        >>> in_turn(np.array([7, 7, 7, 7, 3]), 3).tolist()
        [0, 4, 1]
    """
    order = np.argsort(areas, kind="stable")
    counts = np.unique(areas[order], return_counts=True)[1]
    turn = np.empty(len(areas), np.int64)  # 0 for the first pixel of each area, then 1, ...
    turn[order] = np.concatenate([np.arange(count) for count in counts])
    return np.argsort(turn, kind="stable")[:most]


def _features(embedder: Predictor, scene: Scene, grid: Grid, table: np.ndarray) -> np.ndarray:
    """Features (N, D) at the pixels of a table, tile by tile as prediction sees them."""
    import rasterio

    parts: list[np.ndarray] = []
    tiles, place = np.unique(table[:, :2], axis=0, return_inverse=True)
    order = np.argsort(place.reshape(-1), kind="stable")
    with rasterio.Env(**GDAL), torch.inference_mode():
        for number, (row, column) in enumerate(tiles.tolist()):
            top, left = row * grid.step, column * grid.step
            pixels, valid = scene.read(top, left, grid.tile, grid.tile)
            x = embedder.prepared(torch.from_numpy(pixels)[None], torch.from_numpy(valid)[None])
            own = torch.from_numpy(table[place.reshape(-1) == number])
            found = features_at(embedder.model, x, own[:, 2] - top, own[:, 3] - left)
            parts.append(found.cpu().numpy())
    features = np.empty((len(table), parts[0].shape[1]), np.float32)
    features[order] = np.concatenate(parts)
    return features


def _chosen_c(x: np.ndarray, y: np.ndarray, areas: np.ndarray) -> tuple[float, float | None]:
    """The C that is best on areas held out in turn, and its accuracy in percent."""
    folds = np.zeros(len(y), int)
    for label in np.unique(y):
        own = np.unique(areas[y == label])
        if len(own) < 2:
            return _C, None
        of = {area: number % _FOLDS for number, area in enumerate(own.tolist())}
        here = y == label
        folds[here] = [of[area] for area in areas[here].tolist()]
    classes = int(y.max()) + 1
    answers = np.zeros((len(_C_GRID), len(y)), int)
    for fold in np.unique(folds):
        path = LogisticPath(x[folds != fold], y[folds != fold], num_classes=classes)
        for number, c in enumerate(_C_GRID):
            probe = path.fit(c, tolerance=_SWEEP)
            answers[number, folds == fold] = probe.predict(x[folds == fold])
    shares = [
        float(np.mean([(given[y == label] == label).mean() for label in range(classes)]))
        for given in answers
    ]
    best = max(range(len(_C_GRID)), key=lambda number: (shares[number], -number))
    return _C_GRID[best], 100 * shares[best]
