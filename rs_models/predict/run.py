"""From a scene and a model to a map: tiles read ahead, computed, blended, kept row by row."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from .model import KINDS, Predictor, boxes_of, load_predictor
from .scene import Scene
from .tiles import Blender, Grid
from .vectors import write_boxes, write_polygons
from .writing import NODATA, Partial, write_cog

_AHEAD = 3  # batches that are read while one is computed


@dataclass(frozen=True)
class Prediction:
    """What was made of a scene.

    Attributes:
        scene: Path of it.
        output: File written.
        kind: classes, probabilities, embeddings or boxes.
        tiles: Of the scene.
        computed: Tiles that this call computed; the rest was there, or holds no data.
        boxes: Found, else None.
        polygons: Written, else None.
        corrupt_blocks: Left out, see `skip_corrupt`.
    """

    scene: str
    output: str
    kind: str
    tiles: int
    computed: int
    boxes: int | None = None
    polygons: int | None = None
    corrupt_blocks: int = 0


def predict(
    scene: str | os.PathLike[str],
    model: str | Predictor,
    output: str | os.PathLike[str],
    *,
    kind: str | None = None,
    bands: str | Sequence[str] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    batch_size: int = 8,
    threshold: float = 0.5,
    polygons: bool = False,
    min_area: float = 0.0,
    device: str | None = None,
    precision: str = "no",
    resume: bool = True,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> Prediction:
    """Applies a model to a georeferenced image of any size.

    What holds no data stays so. Memory is that of one row of tiles; what is finished is kept beside
    the output until all is, so that a second call goes on after a stop.

    Args:
        scene: GeoTIFF, VRT, or what else GDAL reads; uint8, or uint16 reflectance.
        model: From `load_predictor`, or the name of one.
        output: GeoTIFF to write; for boxes a GeoJSON file.
        kind: "classes" (one band of class numbers) or "probabilities" (a float band a class) of a
            segmentation or classification model, "embeddings" (a float band a feature, one pixel a
            cell of the backbone's output stride) of a backbone, "boxes" of a detector. None is the
            first that the model can.
        bands: Names of the file's bands in order, where it does not name them.
        tile: Side of a tile in pixels; None is 512, or the training size of models that give one
            answer an image.
        overlap: Of neighbouring tiles in pixels; None is a quarter of a tile.
        batch_size: Tiles at a time.
        threshold: Least score of a box.
        polygons: Also write `<output>.geojson` with the polygons of a class map.
        min_area: Square metres below which a polygon is left out.
        device: Where to compute; None is a GPU where there is one.
        precision: "no" (float32) or "bf16", for a model given by name.
        resume: Go on with an unfinished output; False starts anew.
        skip_corrupt: Take blocks that cannot be read as nodata and count them, instead of stopping.
        progress: Show a progress bar.

    Returns:
        What was made.

    Raises:
        UserError: A scene, bands, model or settings that do not fit, a corrupt block, or no room.
    """
    predictor = (
        model if isinstance(model, Predictor) else load_predictor(model, precision=precision)
    )
    predictor.to(device)
    kind = _kind(kind, predictor)
    output = _output(Path(output), kind)
    if polygons and kind != "classes":
        raise UserError(f"Polygons are made of classes, not of {kind}.")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: it must be 1 or more.")
    opened = Scene.open(str(scene), predictor.preprocessing, bands=bands, skip_corrupt=skip_corrupt)
    try:
        grid = _grid(opened, predictor, tile, overlap)
        job = _job(opened, predictor, grid, kind, batch_size, threshold)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Partial(output, job)
        if not resume:
            partial.remove()
            partial = Partial(output, job)
        elif partial.started_anew and progress:
            print(f"{output}: what was unfinished is of another job; starting anew.")
        work = _Work(predictor, opened, grid, partial, kind, batch_size, threshold, progress)
        computed = work.run()
        made = Prediction(
            scene=str(scene),
            output=str(output),
            kind=kind,
            tiles=grid.rows * grid.columns,
            computed=computed,
            corrupt_blocks=len(opened.corrupt),
        )
        if kind == "boxes":
            boxes, scores, labels = _merged(partial, grid)
            found = write_boxes(boxes, scores, labels, opened.raster, output, predictor.names)
            made = dataclasses.replace(made, boxes=found)
        else:
            _write_raster(partial, opened, grid, predictor, kind)
        if polygons:
            path = output.with_suffix(".geojson")
            count = write_polygons(output, path, predictor.names, min_area=min_area)
            made = dataclasses.replace(made, polygons=count)
        partial.remove()
        return made
    finally:
        opened.close()


def _kind(kind: str | None, predictor: Predictor) -> str:
    can = KINDS[predictor.task]
    if kind is None:
        return can[0]
    if kind not in can:
        raise UserError(
            f"{predictor.name} is for {predictor.task} and gives {' or '.join(can)}, not {kind}."
        )
    return kind


def _output(path: Path, kind: str) -> Path:
    wanted = (".geojson", ".json") if kind == "boxes" else (".tif", ".tiff")
    if path.suffix.lower() not in wanted:
        raise UserError(f"The output {path} should end in {wanted[0]}: it holds {kind}.")
    return path


def _grid(scene: Scene, predictor: Predictor, tile: int | None, overlap: int | None) -> Grid:
    tile = tile or predictor.default_tile()
    stride = predictor.cell(tile)
    overlap = tile // 4 // stride * stride if overlap is None else overlap
    return Grid(scene.raster.height, scene.raster.width, tile, overlap, stride)


def _job(
    scene: Scene, predictor: Predictor, grid: Grid, kind: str, batch_size: int, threshold: float
) -> dict[str, Any]:
    """What an unfinished output must agree with."""
    stat = os.stat(scene.path) if os.path.exists(scene.path) else None
    return {
        "format": 1,
        "scene": [scene.path, stat.st_size, stat.st_mtime_ns] if stat else [scene.path],
        "bands": scene.indexes,
        "model": [predictor.name, predictor.revision, predictor.precision],
        "grid": dataclasses.asdict(grid),
        "kind": kind,
        "batch_size": batch_size,  # another one may round otherwise
        "threshold": threshold if kind == "boxes" else None,
        "skip_corrupt": scene.skip_corrupt,
    }


@dataclass
class _Batch:
    """Neighbouring tiles of one row."""

    row: int
    columns: range
    pixels: np.ndarray  # (B, C, tile, tile)
    valid: np.ndarray  # (B, tile, tile)


@dataclass
class _Work:
    """One scene through one model."""

    predictor: Predictor
    scene: Scene
    grid: Grid
    partial: Partial
    kind: str
    batch_size: int
    threshold: float
    progress: bool

    def run(self) -> int:
        """Computes what is not there yet; how many tiles it were."""
        from tqdm.auto import tqdm

        grid = self.grid
        done = self.partial.done(grid.rows)
        # The last finished row of tiles still reaches into the next band of rows.
        first = max(0, done - 1) if done < grid.rows and grid.overlap else done
        if self.kind == "boxes":
            first = done
        computed = 0
        blender: Blender | None = None
        bar = tqdm(
            total=grid.rows * grid.columns,
            initial=done * grid.columns,
            desc="predicting",
            unit="tile",
            disable=not self.progress,
        )
        row_boxes: list[np.ndarray] = []
        for batch in self._batches(first):
            results = self._results(batch)
            for column, result in results:
                computed += 1
                if self.kind == "boxes":
                    row_boxes.append(result)
                    continue
                if blender is None:
                    blender = Blender(grid, len(result))
                blender.add(column, result)
            if batch.row >= done:
                bar.update(len(batch.columns))
            if batch.columns.stop == grid.columns:
                if self.kind == "boxes":
                    kept = row_boxes or [np.zeros((0, 6), np.float32)]
                    self.partial.put(batch.row, np.concatenate(kept))
                    row_boxes = []
                    continue
                band = blender.finish(batch.row) if blender is not None else None
                if batch.row >= done:
                    self.partial.put(batch.row, self._encoded(band, batch.row))
        bar.close()
        return computed

    def _batches(self, first_row: int) -> Iterator[_Batch]:
        """Batches in order, a few of them read ahead in a thread."""
        grid = self.grid
        spans = [
            (row, range(column, min(column + self.batch_size, grid.columns)))
            for row in range(first_row, grid.rows)
            for column in range(0, grid.columns, self.batch_size)
        ]
        reading = self.scene.another()  # a raster must not be shared by threads
        waiting: deque[Future[_Batch]] = deque()
        try:
            with ThreadPoolExecutor(1) as pool:
                try:
                    for span in spans:
                        waiting.append(pool.submit(self._read, reading, *span))
                        if len(waiting) > _AHEAD:
                            yield waiting.popleft().result()
                    while waiting:
                        yield waiting.popleft().result()
                finally:
                    for future in waiting:
                        future.cancel()
        finally:
            reading.close()

    def _read(self, scene: Scene, row: int, columns: range) -> _Batch:
        grid = self.grid
        top, left = row * grid.step, columns.start * grid.step
        width = (len(columns) - 1) * grid.step + grid.tile
        pixels, valid = scene.read(top, left, grid.tile, width)
        starts = [i * grid.step for i in range(len(columns))]
        return _Batch(
            row,
            columns,
            np.stack([pixels[:, :, start : start + grid.tile] for start in starts]),
            np.stack([valid[:, start : start + grid.tile] for start in starts]),
        )

    def _results(self, batch: _Batch) -> Iterator[tuple[int, np.ndarray]]:
        """Column and weighted result (K, side, side), or boxes (n, 6), of each tile with data."""
        grid, predictor = self.grid, self.predictor
        there = np.asarray(batch.valid.any(axis=(1, 2)))
        if not there.any():
            return
        valid = torch.from_numpy(batch.valid[there])
        found = predictor(predictor.prepared(torch.from_numpy(batch.pixels[there]), valid))
        columns = [column for column, known in zip(batch.columns, there, strict=True) if known]
        if self.kind == "boxes":
            for column, boxes in zip(
                columns, boxes_of(found, self.threshold, grid.tile), strict=True
            ):
                yield column, self._in_scene(boxes, batch.row, column)
            return
        side = grid.tile // grid.stride
        if found.shape[2:] != (side, side):
            found = torch.nn.functional.interpolate(found, (side, side), mode="nearest")
        weights = torch.from_numpy(grid.weights()).to(found.device)
        weighted = (found * weights).cpu().numpy()
        yield from zip(columns, weighted, strict=True)

    def _in_scene(self, boxes: dict[str, torch.Tensor], row: int, column: int) -> np.ndarray:
        """Boxes (n, 6) in pixels of the scene: x0 y0 x1 y1 score label.

        Those whose centre a neighbouring tile sees from further inside are left to it.
        """
        grid = self.grid
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

    def _encoded(self, band: np.ndarray | None, row: int) -> np.ndarray:
        """What a file holds of a band of rows: classes, or values, with nodata put in."""
        grid = self.grid
        first, last = grid.band(row)
        valid = self._valid(first, last)
        classes = self.kind == "classes"
        count = len(self.predictor.names)
        if classes:
            none, kind = (NODATA, np.uint8) if count < NODATA else (65535, np.uint16)
            if band is None:
                return np.full((1, *valid.shape), none, kind)
            found = band.argmax(0).astype(kind)
            found[~valid] = none
            return found[None]
        if band is None:
            width = count or _width(self.predictor)
            return np.full((width, *valid.shape), np.nan, np.float32)
        band[:, ~valid] = np.nan
        return band.astype(np.float32)

    def _valid(self, first: int, last: int) -> np.ndarray:
        """Cells that hold data, (rows, columns): those where any pixel does."""
        grid, stride = self.grid, self.grid.stride
        columns = grid.cells[1]
        top, bottom = first * stride, min(last * stride, grid.height)
        valid = self.scene.valid(top, 0, bottom - top, grid.width)
        below, right = -len(valid) % stride, -grid.width % stride
        valid = np.pad(valid, ((0, below), (0, right)))
        cells = valid.reshape(len(valid) // stride, stride, columns, stride)
        return np.asarray(cells.any(axis=(1, 3)))


def _width(predictor: Predictor) -> int:
    """Number of features, asked of the model itself."""
    side = predictor.default_tile()
    channels = len(predictor.preprocessing.bands)
    blank = torch.zeros(1, channels, side, side, device=predictor.device)
    return int(predictor(blank).shape[1])


def _write_raster(
    partial: Partial, scene: Scene, grid: Grid, predictor: Predictor, kind: str
) -> None:
    first = partial.get(0)
    names = predictor.names or [f"feature {number}" for number in range(len(first))]
    tags = {
        "kind": kind,
        "model": predictor.name,
        "model_revision": predictor.revision,
        "software": "rs_models",
    }
    if kind == "classes":
        tags |= {f"class_{number}": name for number, name in enumerate(predictor.names)}
    write_cog(
        partial,
        scene.raster,
        grid,
        dtype=str(first.dtype),
        count=len(first),
        names=names,
        tags=tags,
        categorical=kind == "classes",
    )


def _merged(partial: Partial, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All boxes of a scene: of those of a class that cover each other the best stays."""
    from torchvision.ops import batched_nms

    found = np.concatenate([partial.get(row) for row in range(grid.rows)])
    boxes, scores = torch.from_numpy(found[:, :4]), torch.from_numpy(found[:, 4])
    labels = torch.from_numpy(found[:, 5]).long()
    keep = batched_nms(boxes, scores, labels, 0.5).numpy()
    return found[keep, :4], found[keep, 4], found[keep, 5].astype(int)
