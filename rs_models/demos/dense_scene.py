"""A scene under a frozen backbone: features at every cell, classes from a few points, likeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..evaluation.features import Encoder
from ..evaluation.linear import fit_probe
from ..predict.head import in_turn
from ..predict.linear_head import maps
from .models import encoder, has_dense, normalised
from .uploads import open_tiff, read_picture

LONGEST, SHORTEST = 1024, 640
"""Pixels that the longer side of a scene has at most and at least where it is looked at."""
CELL = 8
"""Pixels to a cell of the features."""
_UNIT = 32  # both sides are whole numbers of it: what every backbone's strides divide
_DIMENSIONS = 128  # of the features that are kept of a cell
_SAMPLE = 6_000  # cells that the directions are found on
# Inverse strength of the regularisation.
_C = 3e-2
_CELLS = 300  # of a class that are learned from


@dataclass(frozen=True)
class DenseScene:
    """A scene with features; nothing of it changes.

    Attributes:
        name: The file's name without its ending.
        picture: (H, W, 3) uint8, as it is looked at.
        features: (h, w, D) float16, one vector a cell.
        size: Height and width of the file in pixels.
        place: Coordinate system and transform of the file, where it has them.
        ground: Square metres of each cell (h, w); None without a place.
    """

    name: str
    picture: np.ndarray
    features: np.ndarray
    size: tuple[int, int]
    place: dict[str, Any]
    ground: np.ndarray | None

    def scores(self, marked: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Logits (h, w, K) of logistic regression on the features of marked cells.

        At most 300 cells a class are learned from, of its marks in turn: those of one large area
        would outweigh all points.

        Args:
            marked: (h, w) number of the mark that a cell belongs to, -1 for none.
            classes: (n,) class number of each mark, of two classes or more.
        """
        rows, columns = np.nonzero(marked >= 0)
        order = np.random.default_rng(0).permutation(len(rows))
        rows, columns = rows[order], columns[order]
        marks = marked[rows, columns]
        y = classes[marks]
        kept = np.concatenate(
            [
                own[in_turn(marks[own], _CELLS)]
                for own in (np.flatnonzero(y == number) for number in np.unique(y))
            ]
        )
        x = self.features[rows[kept], columns[kept]].astype(np.float32)
        probe = fit_probe(x, y[kept], c=_C, num_classes=int(classes.max()) + 1)
        flat = self.features.reshape(-1, self.features.shape[-1]).astype(np.float32)
        return probe.logits(flat).reshape(*self.features.shape[:2], -1)

    def likeness(self, x: float, y: float) -> np.ndarray:
        """Cosine (h, w) of every cell with the one at a point, each from 0 to 1."""
        height, width = self.features.shape[:2]
        row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
        near = self.features[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        wanted = near.astype(np.float32).mean((0, 1))
        flat = self.features.astype(np.float32)
        length = np.linalg.norm(flat, axis=2) * np.linalg.norm(wanted)
        return (flat @ wanted) / np.maximum(length, 1e-6)


def looked_at(model: str, path: str) -> DenseScene:
    """A scene with the features of a backbone.

    Args:
        model: Name of the encoder.
        path: Path of an image or GeoTIFF.

    Raises:
        UserError: No image, or a model whose feature maps are not known.
    """
    frozen = encoder(model)
    stored = read_picture(path)
    height, width = stored.shape[:2]
    picture, features = dense_features(frozen, stored)
    place, ground = _ground(Path(path), features.shape[:2])
    return DenseScene(Path(path).stem, picture, features, (height, width), place, ground)


def dense_features(frozen: Encoder, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture at the size at which it is looked at, and the features of its cells.

    Args:
        frozen: With a native backbone.
        stored: (H', W', 3) uint8.

    Returns:
        (H, W, 3) uint8 and (h, w, D) float16.

    Raises:
        UserError: A model whose feature maps are not known.
    """
    from PIL import Image

    if not has_dense(frozen):
        raise UserError(
            f"{frozen.name} has no feature map that can be read: choose a ResNet, Swin or ViT of "
            "transformers, or a segmentation model."
        )
    longest = max(stored.shape[:2])
    scale = min(LONGEST, max(SHORTEST, longest)) / longest
    sides = [max(2, round(side * scale / _UNIT)) * _UNIT for side in stored.shape[:2]]
    sized = Image.fromarray(stored).resize((sides[1], sides[0]), Image.Resampling.BICUBIC)
    picture = np.array(sized)
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return picture, _compressed(maps(frozen.model, normalised(frozen, images)), sides)


def _compressed(parts: Sequence[Tensor], sides: Sequence[int]) -> np.ndarray:
    """Maps of all stages on one grid, in fewer numbers that keep their differences, (h, w, D).

    A random turn spreads the variance over all of them evenly: a classifier that standardises
    each would else make the weakest direction as loud as the strongest.
    """
    shape = (sides[0] // CELL, sides[1] // CELL)
    grids = [F.interpolate(part, shape, mode="bilinear", align_corners=False) for part in parts]
    flat = torch.cat([_even(grid[0].flatten(1).T) for grid in grids], 1)  # (h*w, D)
    generator = torch.Generator().manual_seed(0)
    some = flat[torch.randperm(len(flat), generator=generator)[:_SAMPLE]]
    count = min(_DIMENSIONS, *some.shape)
    _, directions = torch.linalg.eigh(some.T @ some)
    turn = torch.linalg.qr(torch.randn(count, count, generator=generator))[0]
    kept = flat @ (directions[:, -count:] @ turn)
    return kept.reshape(*shape, count).half().numpy()


def _even(x: Tensor) -> Tensor:
    """Channels of mean 0 and deviation 1, weighted so that each stage counts alike."""
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6) / x.shape[1] ** 0.5


def _ground(path: Path, cells: tuple[int, ...]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Coordinate system and transform of a file, and square metres of each cell."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return {}, None
    from ..predict.place import place_of

    with open_tiff(path) as raster:
        if raster.crs is None:
            return {}, None
        rows = np.linspace(0, raster.height, cells[0] + 1)
        columns = np.linspace(0, raster.width, cells[1] + 1)
        x, y = np.meshgrid(columns, rows)
        boxes = np.stack([x[:-1, :-1], y[:-1, :-1], x[1:, 1:], y[1:, 1:]], -1).reshape(-1, 4)
        ground = place_of(raster).areas.boxes(boxes).reshape(cells)
        return {"crs": raster.crs, "transform": raster.transform}, ground
