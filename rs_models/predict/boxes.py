"""The kind of prediction that is a list of boxes: each is left to the tile that sees it best."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tasks.faster_rcnn import FasterRcnnForObjectDetection
from .scene_run import Kind, RowCollector, SceneRun
from .tiles import Grid
from .vector_files import SUFFIXES
from .vectors import write_boxes

_MOST_COVERED = 0.5  # of two boxes of a class that cover each other more, the better one stays


class Boxes(Kind):
    """Boxes of a detector, in map coordinates."""

    name = "boxes"
    tasks = ("detection",)
    suffixes = SUFFIXES

    def first_row(self, grid: Grid, done: int) -> int:
        """No row of tiles needs the one before."""
        return done

    def collector(self, run: SceneRun) -> RowCollector:
        """Puts the boxes of a row together."""
        return _RowOfBoxes()

    def results(
        self, run: SceneRun, row: int, columns: list[int], output: Any
    ) -> Iterator[np.ndarray]:
        """Boxes (n, 6) of each tile in pixels of the scene: x0 y0 x1 y1 score label."""
        by_tile = boxes_of(output, run.threshold, run.grid.tile)
        for column, boxes in zip(columns, by_tile, strict=True):
            yield in_scene(boxes, run.grid, row, column)

    def write(self, run: SceneRun, output: Path) -> int | None:
        """Of boxes of a class that cover each other the best stays; how many there are."""
        boxes, scores, labels = merged(np.concatenate([*run.rows.all(run.grid.rows)]))
        return write_boxes(boxes, scores, labels, run.scene.raster, output, run.predictor.names)


class _RowOfBoxes(RowCollector):
    """The boxes of one row of tiles."""

    def __init__(self) -> None:
        self.boxes: list[np.ndarray] = []

    def add(self, column: int, result: np.ndarray) -> None:
        self.boxes.append(result)

    def finish(self, row: int, *, wanted: bool) -> np.ndarray | None:
        boxes, self.boxes = self.boxes, []
        return np.concatenate(boxes or [np.zeros((0, 6), np.float32)])


def boxes_of(output: Any, threshold: float, side: int) -> list[dict[str, Tensor]]:
    """Boxes of each tile in pixels, from any of transformers' detectors."""
    return FasterRcnnForObjectDetection.post_process_object_detection(
        output, threshold, [(side, side)] * len(output.logits)
    )


def in_scene(boxes: dict[str, Tensor], grid: Grid, row: int, column: int) -> np.ndarray:
    """Boxes (n, 6) of a tile in pixels of the scene: x0 y0 x1 y1 score label.

    Those whose centre a neighbouring tile sees from further inside are left to it.
    """
    corners = boxes["boxes"].float().cpu().numpy()
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    half = grid.overlap / 2
    low = np.asarray([half if column else -np.inf, half if row else -np.inf])
    high = np.asarray(
        [
            grid.tile - half if column < grid.columns - 1 else np.inf,
            grid.tile - half if row < grid.rows - 1 else np.inf,
        ]
    )
    mine = ((centre >= low) & (centre < high)).all(1)
    shift = np.asarray([column * grid.step, row * grid.step] * 2, np.float32)
    limits = np.asarray([grid.width, grid.height] * 2, np.float32)
    inside = ((centre + shift[:2]) < limits[:2]).all(1)  # not of what is mirrored at the border
    keep = mine & inside
    placed = np.minimum(corners[keep] + shift, limits)
    scores = boxes["scores"].float().cpu().numpy()[keep]
    labels = boxes["labels"].cpu().numpy()[keep]
    return np.column_stack((placed, scores, labels)).astype(np.float32).reshape(-1, 6)


def merged(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), scores and labels that stay of all rows (m, 6)."""
    from torchvision.ops import batched_nms

    boxes, scores = torch.from_numpy(rows[:, :4]), torch.from_numpy(rows[:, 4])
    labels = torch.from_numpy(rows[:, 5]).long()
    keep = batched_nms(boxes, scores, labels, _MOST_COVERED).numpy()
    return rows[keep, :4], rows[keep, 4], rows[keep, 5].astype(int)
