"""From a scene and a model to a map: tiles read ahead, computed, blended, kept row by row."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import check_writable
from ..rasters import open_raster
from .boxes import Boxes
from .maps import ClassMap, EmbeddingMap, ProbabilityMap
from .model import Predictor, load_predictor
from .place import hectares, place_of
from .scene import Scene
from .scene_run import Kind, SceneRun
from .styles import write_style, write_table
from .tiles import Grid
from .vector_files import SUFFIXES, check_suffix, is_ours
from .vectors import write_polygons
from .writing import GDAL, FinishedRows, finished_rows, shortened, told_by_name

# The first that a model's task can give is what it gives when nothing else is asked for.
KINDS: tuple[Kind, ...] = (ClassMap(), ProbabilityMap(), EmbeddingMap(), Boxes())
# A side of more takes tens of gigabytes in any network.
LARGEST_TILE = 8192
# Bytes of a file's name, with room for `.aux.xml` and what is in the making.
LONGEST_NAME = 215


@dataclass(frozen=True)
class Prediction:
    """What was made of a scene.

    Attributes:
        scene: Path of the scene.
        output: File written.
        kind: classes, probabilities, embeddings or boxes.
        tiles: Number of tiles of the scene.
        computed: Tiles that this call computed; the rest was there, or holds no data.
        boxes: Number of boxes found; None for other kinds.
        polygons: Number of polygons written; None where none were asked for.
        corrupt_blocks: Number of corrupt blocks left out, see `skip_corrupt`.
        hectares: Ground of each class that occurs in a map of classes; None where the scene has no
            place on Earth.
        polygons_file: File of the polygons.
        notes: Sentences about positions and values that one must know of.
        seconds: How long it took.
    """

    scene: str
    output: str
    kind: str
    tiles: int
    computed: int
    boxes: int | None = None
    polygons: int | None = None
    corrupt_blocks: int = 0
    hectares: dict[str, float] | None = None
    polygons_file: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


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
    polygons: bool | str | os.PathLike[str] = False,
    min_area: float = 0.0,
    device: str | None = None,
    precision: str = "no",
    resume: bool = True,
    skip_corrupt: bool = False,
    sensor: str | None = None,
    stretch: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    progress: bool = True,
) -> Prediction:
    """Applies a model to a georeferenced image of any size.

    What holds no data stays so. Memory is that of one row of tiles; what is finished is kept beside
    the output until all is, so that a second call goes on after a stop.

    Args:
        scene: GeoTIFF, VRT, or what else GDAL reads; uint8, or uint16 reflectance.
        model: From `load_predictor`, or the name of one.
        output: GeoTIFF to write; for boxes a file of polygons (.geojson, .gpkg, .fgb, .parquet,
            .shp).
        kind: "classes" (one band of class numbers) or "probabilities" (a float band a class) of a
            segmentation or classification model, "embeddings" (a float band a feature, one pixel a
            cell of the backbone's output stride) of a backbone, "boxes" of a detector. None is the
            first that the model can.
        bands: Names of the file's bands in order, where it does not name them.
        tile: Side of a tile in pixels; None is 512, or the training size of models that give one
            answer an image.
        overlap: Overlap of neighbouring tiles in pixels; None is a quarter of a tile.
        batch_size: Tiles at a time.
        threshold: Least score of a box.
        polygons: Also write the polygons of a class map: True for `<output>.geojson`, a suffix
            (".gpkg", ".fgb", ".parquet", ".shp") for another format beside the output, or a file.
        min_area: Square metres below which a polygon is left out.
        device: Where to compute; None is a GPU where there is one.
        precision: "no" (float32) or "bf16", for a model given by name.
        resume: Go on with an unfinished output; False starts anew.
        skip_corrupt: Take blocks that cannot be read as nodata and count them, instead of stopping.
        sensor: "sentinel-2" or "landsat-4" to "landsat-9", where bands are numbered and the file
            does not say whose numbers they are.
        stretch: "min,max" or "percentile" (the 2nd to the 98th of each band): values that become
            black and white, for scenes that a model of 8-bit images could not take.
        scale: Reflectance of a stored unit, in place of what the file says.
        offset: Reflectance of a stored 0, in place of what the file says.
        progress: Show a progress bar.

    Returns:
        What was made.

    Raises:
        UserError: A scene, bands, model or settings that do not fit, a corrupt block, or no room.
    """
    import rasterio

    begin = time.monotonic()
    predictor = (
        model
        if isinstance(model, Predictor)
        else load_predictor(model, task=task_for(kind), precision=precision)
    )
    predictor.to(device)
    chosen = kind_of(kind, predictor)
    output = _output(Path(output), chosen)
    polygons_file = _polygons_file(polygons, output, chosen)
    _check(batch_size, threshold, min_area, tile)
    opening = Scene.open(
        str(scene),
        predictor.preprocessing,
        bands=bands,
        skip_corrupt=skip_corrupt,
        sensor=sensor,
        stretch=stretch,
        scale=scale,
        offset=offset,
    )
    with rasterio.Env(**GDAL), closing(opening) as opened, told_by_name(output):
        grid = _grid(opened, predictor, tile, overlap)
        refuse_inputs(opened, output, *([polygons_file] if polygons_file else []))
        job = _job(opened, predictor, grid, chosen, batch_size, threshold)
        output.parent.mkdir(parents=True, exist_ok=True)
        with finished_rows(output, job, resume=resume) as rows:
            if rows.renewed and progress:
                print(f"{output}: what was unfinished is of another job; starting anew.")
            _check_room(output, grid, chosen.bytes_a_cell(predictor), rows)
            run = SceneRun(predictor, opened, grid, chosen, rows, batch_size, threshold, progress)
            computed = run.compute()
            count = chosen.write(run, output)
            extras: dict[str, Any] = {}
            if isinstance(chosen, ClassMap):
                extras["hectares"] = _beside(output, predictor.names)
            if polygons_file:
                extras["polygons_file"] = str(polygons_file)
                extras["polygons"] = write_polygons(
                    output, polygons_file, predictor.names, min_area=min_area
                )
        return Prediction(
            scene=str(scene),
            output=str(output),
            kind=chosen.name,
            tiles=grid.rows * grid.columns,
            computed=computed,
            boxes=count,
            corrupt_blocks=len(opened.corrupt),
            notes=_notes(opened),
            seconds=round(time.monotonic() - begin, 2),
            **extras,
        )


def refuse_inputs(scene: Scene, *outputs: Path) -> None:
    """Refuses to write over the scene or what it refers to, by whatever path or link.

    Raises:
        UserError: Naming the output and the input.
    """
    for output in outputs:
        for source in scene.sources():
            if same_file(output, source):
                raise UserError(
                    f"The output {output} is {source}, which the scene {scene.path} is read from: "
                    "choose another output."
                )


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file, links included."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.abspath(one) == os.path.abspath(other)


def task_for(kind: str | None) -> str | None:
    """Task to load a model for: only embeddings are not what its config says."""
    return "embedding" if kind == EmbeddingMap.name else None


def kind_of(name: str | None, predictor: Predictor) -> Kind:
    """The kind of prediction by name; None is the first that the model can give.

    Raises:
        UserError: One that the model cannot give.
    """
    possible = [kind for kind in KINDS if predictor.task in kind.tasks]
    for kind in possible:
        if name in (None, kind.name):
            return kind
    raise UserError(
        f"{predictor.name} is for {predictor.task} and gives "
        f"{' or '.join(kind.name for kind in possible)}, not {name}."
    )


def _output(path: Path, kind: Kind) -> Path:
    if path.suffix.lower() not in kind.suffixes:
        raise UserError(
            f"The output {shortened(path)} should end in {kind.suffixes[0]}: it holds {kind.name}."
        )
    if os.path.isdir(path):  # a name that is too long is told where it is written
        raise UserError(f"The output {path} is a folder: name a file.")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UserError(
            f"The output {shortened(path)} cannot be written (File name too long): at most "
            f"{LONGEST_NAME} bytes, for the files beside it have longer names."
        )
    return path


def polygons_place(polygons: bool | str | os.PathLike[str], output: Path) -> Path:
    """The file that polygons go to: as named, or beside the map."""
    named = ".geojson" if isinstance(polygons, bool) else os.fspath(polygons)
    return output.with_suffix(named) if named.lower() in SUFFIXES else Path(named)


def _polygons_file(
    polygons: bool | str | os.PathLike[str], output: Path, kind: Kind
) -> Path | None:
    """Where polygons go; None where none are wanted."""
    if polygons is False:
        return None
    if not isinstance(kind, ClassMap):
        raise UserError(f"Polygons are made of classes, not of {kind.name}.")
    file = polygons_place(polygons, output)
    check_writable(file)
    check_suffix(file)
    if os.path.lexists(file) and not is_ours(file):
        raise UserError(
            f"{file} was not written by rs_models and would be replaced by the polygons: move it, "
            "or name another file for them."
        )
    return file


def _beside(class_map: Path, names: list[str]) -> dict[str, float] | None:
    """Hectares of each class, None without a place on Earth, and the files that show them."""
    with open_raster(class_map, max_bytes=None) as raster:
        ground = hectares(raster, names) if place_of(raster).lonlat is not None else None
    write_table(class_map, names, ground or {})
    write_style(class_map, names)
    return ground


def _notes(scene: Scene) -> tuple[str, ...]:
    """What must be known of a scene's positions, bands and values."""
    note = place_of(scene.raster).note
    return (*([f"{scene.path}: {note}."] if note else []), *scene.values.notes)


def _check_room(output: Path, grid: Grid, bytes_a_cell: int, rows: FinishedRows) -> None:
    """Refuses a map whose unfinished rows would fill the disk, whatever its scene's header says."""
    height, width = grid.cells
    share = 1 - rows.done(grid.rows) / grid.rows
    needed, free = height * width * bytes_a_cell * share, shutil.disk_usage(rows.folder).free
    if needed > free:
        raise UserError(
            f"{output} needs {needed / 1e9:,.1f} GB for {grid.width:,} x {grid.height:,} pixels "
            f"until it is whole, and {free / 1e9:,.1f} GB are free: cut the scene, or make room."
        )


def _check(batch_size: int, threshold: float, min_area: float, tile: int | None) -> None:
    if batch_size < 1:
        raise UserError(f"The setting batch_size is {batch_size}: it must be 1 or more.")
    if not 0 <= threshold <= 1:
        raise UserError(f"The threshold is {threshold}: it must be from 0 to 1.")
    if not 0 <= min_area < float("inf"):
        raise UserError(f"The setting min_area is {min_area}: it must be square metres, 0 or more.")
    check_tile(tile)


def check_tile(tile: int | None) -> None:
    """Refuses a side of tiles that no network could take."""
    if tile is not None and not 1 <= tile <= LARGEST_TILE:
        raise UserError(f"The tile is {tile} pixels: it must be from 1 to {LARGEST_TILE}.")


def _grid(scene: Scene, predictor: Predictor, tile: int | None, overlap: int | None) -> Grid:
    tile = tile or predictor.default_tile()
    stride = predictor.cell(tile)
    overlap = tile // 4 // stride * stride if overlap is None else overlap
    return Grid(scene.raster.height, scene.raster.width, tile, overlap, stride)


def _job(
    scene: Scene, predictor: Predictor, grid: Grid, kind: Kind, batch_size: int, threshold: float
) -> dict[str, Any]:
    """What an unfinished output must agree with."""
    return {
        "format": 2,
        "scene": scene.files(),
        "bands": scene.indexes,
        "values": scene.values.record(),
        "model": [predictor.name, predictor.revision, predictor.precision],
        "grid": dataclasses.asdict(grid),
        "kind": kind.name,
        "batch_size": batch_size,  # another one may round otherwise
        "threshold": threshold if isinstance(kind, Boxes) else None,
        "skip_corrupt": scene.skip_corrupt,
    }
