"""From a scene and a model to a map: tiles read ahead, computed, blended, kept row by row."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from ..errors import UserError
from .model import KINDS, Predictor, load_predictor
from .scene import Scene
from .tiles import Grid
from .vectors import write_boxes, write_polygons
from .work import Work
from .writing import GDAL, Partial, write_cog


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
        model
        if isinstance(model, Predictor)
        else load_predictor(model, task=_task(kind), precision=precision)
    )
    predictor.to(device)
    kind = _kind(kind, predictor)
    output = _output(Path(output), kind)
    if polygons and kind != "classes":
        raise UserError(f"Polygons are made of classes, not of {kind}.")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: it must be 1 or more.")
    found = Scene.open(str(scene), predictor.preprocessing, bands=bands, skip_corrupt=skip_corrupt)
    with rasterio.Env(**GDAL), closing(found) as opened:
        grid = _grid(opened, predictor, tile, overlap)
        job = _job(opened, predictor, grid, kind, batch_size, threshold)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Partial(output, job)
        if not resume:
            partial.remove()
            partial = Partial(output, job)
        elif partial.started_anew and progress:
            print(f"{output}: what was unfinished is of another job; starting anew.")
        work = Work(predictor, opened, grid, partial, kind, batch_size, threshold, progress)
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
            count = write_boxes(boxes, scores, labels, opened.raster, output, predictor.names)
            made = dataclasses.replace(made, boxes=count)
        else:
            _write_raster(partial, opened, grid, predictor, kind)
        if polygons:
            path = output.with_suffix(".geojson")
            count = write_polygons(output, path, predictor.names, min_area=min_area)
            made = dataclasses.replace(made, polygons=count)
        partial.remove()
        return made


def _task(kind: str | None) -> str | None:
    """Task to load a model for: only embeddings are not what its config says."""
    return "embedding" if kind == "embeddings" else None


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
