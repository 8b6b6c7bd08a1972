"""Training windows from what people have: scenes and polygons, points or boxes over them."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from ..files import replaced, write_text
from .folders import files_below
from .names import IGNORE, SPLITS, natural
from .vectors import class_key, read_features

_SUFFIXES = (".tif", ".tiff", ".vrt")
_FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
_SEEN = 0.3  # share of a box that lies in a window, from which on it belongs to it
_SHARD_ROWS = 500


@dataclass(frozen=True)
class WindowSettings:
    """How scenes are cut.

    Attributes:
        field: Property that names the class.
        task: "segmentation" gives masks, "detection" boxes.
        size: Side of a window in pixels.
        block: Side of a block in windows; a block belongs to one split as a whole.
        background: Class of pixels in no polygon; None ignores them.
        point_size: Side in pixels of the square that a point stands for.
        bands: Numbers of the bands to keep, from 1; None is the first three.
        seed: Of the split.
    """

    field: str
    task: Literal["segmentation", "detection"] = "segmentation"
    size: int = 256
    block: int = 4
    background: str | None = None
    point_size: int | None = None
    bands: tuple[int, ...] | None = None
    seed: int = 0


@dataclass
class Windows:
    """What was made.

    Attributes:
        output: Folder.
        classes: In the order of their numbers.
        rows: Split -> windows.
        counts: Split -> class -> pixels of masks, or boxes.
        left_out: Reason -> windows or features.
    """

    output: str
    classes: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def make_windows(
    scenes: str | Path,
    labels: str | Path,
    output: str | Path,
    settings: WindowSettings,
    *,
    area: str | Path | None = None,
) -> Windows:
    """Cuts scenes into a data set with masks or boxes, splits by place, and a card.

    Args:
        scenes: GeoTIFF, or a folder of them.
        labels: Vector file; later features lie over earlier ones.
        output: Folder to write.
        settings: How to cut.
        area: Vector file of what was labelled: outside nothing is learned. None takes the windows
            that hold labels.

    Raises:
        UserError: Files that cannot be used, or labels that do not reach the scenes.
    """
    if Path(output).exists():
        raise UserError(f"{output} exists: choose another folder, or remove it.")
    if settings.size < 16 or settings.block < 1:
        raise UserError("--size is 16 or more and --block 1 or more: change them.")
    features, crs = read_features(str(labels))
    shapes, classes, result = _shapes(features, settings, str(labels), str(output))
    areas = read_features(str(area)) if area is not None else None
    files = _files(Path(scenes))
    windows = [
        _Window(number, file, row, column)
        for number, file in enumerate(files)
        for row, column in _labelled(file, shapes, crs, areas, settings)
    ]
    if not windows:
        raise UserError(
            f"No feature of {labels} lies in a whole window of {scenes}: check the coordinate "
            f"systems, or take a smaller --size than {settings.size}."
        )
    splits = _split(windows, settings)
    with replaced(output) as folder:
        for split in SPLITS:
            rows = _rows(splits[split], shapes, crs, areas, classes, settings, result, split)
            _write(folder, split, rows, classes, settings, result)
        if not result.rows:
            raise UserError(f"No window of {scenes} could be used: they hold no data.")
        write_text(folder / "README.md", _card(result, scenes, labels, settings))
    return result


@dataclass(frozen=True)
class _Window:
    scene: int
    file: Path
    row: int
    column: int


@dataclass(frozen=True)
class _Shape:
    geometry: Any
    label: int


def _files(scenes: Path) -> list[Path]:
    files = files_below(scenes, _SUFFIXES) if scenes.is_dir() else [scenes]
    if not files:
        raise UserError(f"{scenes} holds no GeoTIFFs: give a scene or a folder of them.")
    return files


def _shapes(
    features: Sequence[tuple[Any, dict[str, Any]]],
    settings: WindowSettings,
    name: str,
    output: str,
) -> tuple[list[_Shape], list[str], Windows]:
    """Geometries with class numbers; what has no class or no place is counted."""
    result = Windows(output)
    properties = sorted({key for _, stated in features for key in stated})
    named: list[tuple[Any, str]] = []
    for geometry, stated in features:
        value = stated.get(settings.field)
        if value is None or class_key(value) == "":
            result.left_out["features without a class"] += 1
            continue
        parts = list(_parts(geometry))
        if not parts:
            result.left_out["features without a geometry"] += 1
        for part in parts:
            if part["type"] == "Point" and not settings.point_size:
                raise UserError(
                    f"{name} holds points: say with --point-size how many pixels each stands for."
                )
            if part["type"] in ("LineString", "MultiLineString"):
                result.left_out["lines"] += 1
                continue
            named.append((part, class_key(value)))
    if not named:
        raise UserError(
            f"{name} has no features with a class in {settings.field!r} (properties: "
            f"{', '.join(properties) or 'none'}): name the property with --classes."
        )
    classes = sorted({label for _, label in named}, key=natural)
    if settings.background is not None and settings.task == "segmentation":
        classes = [settings.background, *(c for c in classes if c != settings.background)]
    if len(classes) > IGNORE:
        raise UserError(f"{name} has {len(classes)} classes in {settings.field!r}: at most 255.")
    result.classes = classes
    return [_Shape(part, classes.index(label)) for part, label in named], classes, result


def _parts(geometry: Any) -> Iterator[dict[str, Any]]:
    """Simple geometries of a geometry."""
    if not isinstance(geometry, dict):
        return
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        for inner in geometry.get("geometries") or ():
            yield from _parts(inner)
    elif kind == "MultiPoint":
        for point in geometry.get("coordinates") or ():
            yield {"type": "Point", "coordinates": point}
    elif geometry.get("coordinates"):
        yield {"type": str(kind), "coordinates": geometry["coordinates"]}


def _placed(shapes: Sequence[_Shape], crs: Any, raster: Any, settings: WindowSettings) -> Any:
    """Shapes in the pixels of a scene, and their bounds (N, 4): left, top, right, bottom."""
    from rasterio.features import bounds
    from rasterio.warp import transform_geom

    inverse = ~raster.transform
    placed: list[_Shape] = []
    for shape in shapes:
        try:
            geometry = transform_geom(crs, raster.crs, shape.geometry)
        except Exception as error:  # GDAL raises many types where a point has no place
            raise UserError(f"A feature cannot be placed in {raster.name} ({error}).") from error
        pixels = _mapped(geometry["coordinates"], inverse)
        kind = geometry["type"]
        if kind == "Point":
            half = (settings.point_size or 1) / 2
            x, y = pixels
            ring = [(x - half, y - half), (x + half, y - half), (x + half, y + half)]
            ring += [(x - half, y + half), (x - half, y - half)]
            kind, pixels = "Polygon", [ring]
        placed.append(_Shape({"type": kind, "coordinates": pixels}, shape.label))
    boxes = np.array([bounds(shape.geometry) for shape in placed], float).reshape(-1, 4)
    return placed, boxes


def _mapped(coordinates: Any, inverse: Any) -> Any:
    if coordinates and isinstance(coordinates[0], int | float):
        return tuple(inverse @ (coordinates[0], coordinates[1]))
    return [_mapped(part, inverse) for part in coordinates]


def _open(file: Path) -> Any:
    from ..rasters import open_raster

    raster = open_raster(file, vrt=True, drivers=("GTiff",), max_bytes=None)
    if raster.crs is None:
        raise UserError(f"{file} does not say where it lies (no CRS): give it one.")
    if raster.dtypes[0] not in ("uint8", "uint16"):
        raise UserError(
            f"{file} has {raster.dtypes[0]} pixels: convert it to uint8 (0 to 255), or to uint16 "
            "reflectance x 10000."
        )
    return raster


def _labelled(
    file: Path, shapes: Sequence[_Shape], crs: Any, areas: Any, settings: WindowSettings
) -> Iterator[tuple[int, int]]:
    """Upper left pixels of a scene's whole windows that a label, or the area, touches."""
    with _open(file) as raster:
        if settings.bands and not all(1 <= band <= raster.count for band in settings.bands):
            raise UserError(
                f"--bands {list(settings.bands)} are not all in {file}, which has {raster.count}."
            )
        _, boxes = _placed(shapes, crs, raster, settings)
        if areas is not None:
            _, boxes = _placed(_area_shapes(areas), areas[1], raster, settings)
        size = settings.size
        for row in range(0, raster.height - size + 1, size):
            for column in range(0, raster.width - size + 1, size):
                if _touching(boxes, row, column, size).any():
                    yield row, column


def _touching(boxes: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    left, top, right, bottom = boxes.T
    return (left < column + size) & (right > column) & (top < row + size) & (bottom > row)


def _area_shapes(areas: Any) -> list[_Shape]:
    return [_Shape(part, 0) for geometry, _ in areas[0] for part in _parts(geometry)]


def _split(windows: Sequence[_Window], settings: WindowSettings) -> dict[str, list[_Window]]:
    """Blocks of windows in an order of the seed, shared out until each split has its part.

    Raises:
        UserError: Fewer blocks than splits.
    """
    side = settings.size * settings.block
    blocks: dict[tuple[str, int, int], list[_Window]] = {}
    for window in windows:
        key = (window.file.name, window.row // side, window.column // side)
        blocks.setdefault(key, []).append(window)
    if len(blocks) < len(_FRACTIONS):
        raise UserError(
            f"The labels lie in {len(blocks)} blocks of {side} pixels, and three splits need three "
            "at least: take a smaller --block or --size."
        )
    order = sorted(
        blocks, key=lambda key: hashlib.sha256(f"{settings.seed} {key}".encode()).digest()
    )
    splits: dict[str, list[_Window]] = {split: [] for split in SPLITS}
    for place, key in enumerate(order):
        if place < len(SPLITS):
            split = SPLITS[place]  # each has one
        else:
            split = max(SPLITS, key=lambda s: _FRACTIONS[s] * len(windows) - len(splits[s]))
        splits[split] += blocks[key]
    for chosen in splits.values():
        chosen.sort(key=lambda window: (window.scene, window.row, window.column))
    return splits


def _rows(
    windows: Sequence[_Window],
    shapes: Sequence[_Shape],
    crs: Any,
    areas: Any,
    classes: Sequence[str],
    settings: WindowSettings,
    result: Windows,
    split: str,
) -> Iterator[dict[str, Any]]:
    """The rows of a split, counted."""
    counts = result.counts.setdefault(split, Counter())
    by_file: dict[Path, list[_Window]] = {}
    for window in windows:
        by_file.setdefault(window.file, []).append(window)
    for file, own in by_file.items():
        with _open(file) as raster:
            placed = _placed(shapes, crs, raster, settings)
            inside = (
                _placed(_area_shapes(areas), areas[1], raster, settings) if areas else (None, None)
            )
            for window in own:
                row = _row(raster, window, placed, inside, classes, settings, counts)
                if row is None:
                    result.left_out["windows without data or labels"] += 1
                else:
                    yield row


def _row(
    raster: Any,
    window: _Window,
    placed: tuple[Sequence[_Shape], np.ndarray],
    inside: tuple[Any, Any],
    classes: Sequence[str],
    settings: WindowSettings,
    counts: Counter[str],
) -> dict[str, Any] | None:
    from rasterio.windows import Window

    size = settings.size
    cut = Window(window.column, window.row, size, size)
    bands = list(settings.bands or range(1, min(3, raster.count) + 1))
    pixels = np.ascontiguousarray(raster.read(bands, window=cut).transpose(1, 2, 0))
    valid = raster.read_masks(bands, window=cut).any(axis=0)
    if not valid.any():
        return None
    touching = np.flatnonzero(_touching(placed[1], window.row, window.column, size))
    near = [placed[0][number] for number in touching]
    labelled = _burnt(inside[0], window, size, 0, 1) == 1 if inside[0] is not None else None
    row = {"image": _image(pixels), **_place(raster, window, size)}
    if settings.task == "detection":
        objects = _boxes(placed[1][touching], near, window, size)
        if not objects["bbox"] and (labelled is None or not labelled.all()):
            return None
        counts.update(classes[category] for category in objects["category"])
        return {**row, "objects": objects}
    fill = IGNORE if settings.background is None else 0
    mask = _burnt(near, window, size, fill, None)
    if labelled is not None:
        mask[~labelled] = IGNORE
    mask[~valid] = IGNORE
    if (mask == IGNORE).all():
        return None
    numbers, amounts = np.unique(mask[mask != IGNORE], return_counts=True)
    counts.update({classes[n]: int(c) for n, c in zip(numbers, amounts, strict=True)})
    return {**row, "mask": _png(mask)}


def _burnt(
    shapes: Sequence[_Shape], window: _Window, size: int, fill: int, value: int | None
) -> np.ndarray:
    """Class numbers (size, size) of the shapes over a window, later ones on top."""
    from affine import Affine
    from rasterio.features import rasterize

    if not shapes:
        return np.full((size, size), fill, np.uint8)
    return rasterize(
        [(shape.geometry, shape.label if value is None else value) for shape in shapes],
        out_shape=(size, size),
        transform=Affine.translation(window.column, window.row),
        fill=fill,
        dtype="uint8",
    )


def _boxes(
    bounds: np.ndarray, shapes: Sequence[_Shape], window: _Window, size: int
) -> dict[str, list[Any]]:
    """Hulls of the shapes that lie in a window by enough of their area."""
    objects: dict[str, list[Any]] = {"bbox": [], "category": []}
    for (left, top, right, bottom), shape in zip(bounds, shapes, strict=True):
        x0, y0 = max(left - window.column, 0.0), max(top - window.row, 0.0)
        x1, y1 = min(right - window.column, size), min(bottom - window.row, size)
        whole = (right - left) * (bottom - top)
        if whole > 0 and (x1 - x0) * (y1 - y0) >= _SEEN * whole:
            objects["bbox"].append([float(x0), float(y0), float(x1 - x0), float(y1 - y0)])
            objects["category"].append(shape.label)
    return objects


def _place(raster: Any, window: _Window, size: int) -> dict[str, Any]:
    from rasterio.warp import transform

    x, y = raster.transform @ (window.column + size / 2, window.row + size / 2)
    longitude, latitude = transform(raster.crs, "EPSG:4326", [x], [y])
    return {
        "file": window.file.name,
        "x": float(x),
        "y": float(y),
        "crs": raster.crs.to_string(),
        "longitude": float(longitude[0]),
        "latitude": float(latitude[0]),
    }


def _image(pixels: np.ndarray) -> Any:
    picture = pixels.dtype == np.uint8 and pixels.shape[2] == 3
    return _png(pixels) if picture else pixels


def _png(pixels: np.ndarray) -> dict[str, Any]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return {"bytes": buffer.getvalue(), "path": None}


def _write(
    folder: Path,
    split: str,
    rows: Iterator[dict[str, Any]],
    classes: Sequence[str],
    settings: WindowSettings,
    result: Windows,
) -> None:
    from itertools import islice

    from datasets import Array3D, ClassLabel, Dataset, Features, Image, List, Value

    from .parquet import write_parquet

    count = 0
    while shard := list(islice(rows, _SHARD_ROWS)):
        first = shard[0]["image"]
        kinds: dict[str, Any] = {
            "image": Image() if isinstance(first, dict) else Array3D(first.shape, str(first.dtype)),
            "mask": Image(),
            "objects": {
                "bbox": List(List(Value("float32"), length=4)),
                "category": List(ClassLabel(names=list(classes))),
            },
            "file": Value("string"),
            "x": Value("float64"),
            "y": Value("float64"),
            "crs": Value("string"),
            "longitude": Value("float64"),
            "latitude": Value("float64"),
        }
        features = Features({key: kind for key, kind in kinds.items() if key in shard[0]})
        columns = {key: [row[key] for row in shard] for key in features}
        path = folder / "data" / f"{split}-{count // _SHARD_ROWS:05d}.parquet"
        write_parquet(Dataset.from_dict(columns, features=features), path)
        count += len(shard)
    if count:
        result.rows[split] = count


def _card(result: Windows, scenes: str | Path, labels: str | Path, settings: WindowSettings) -> str:
    what = {"segmentation": "image-segmentation", "detection": "object-detection"}[settings.task]
    unit = {"segmentation": "pixels", "detection": "boxes"}[settings.task]
    files = "\n".join(
        f"  - split: {split}\n    path: data/{split}-*.parquet" for split in result.rows
    )
    lines = [f"| number | class | {' | '.join(f'{unit}, {s}' for s in result.rows)} |"]
    lines.append("|---" * (2 + len(result.rows)) + "|")
    for number, name in enumerate(result.classes):
        amounts = " | ".join(f"{result.counts[split][name]:,}" for split in result.rows)
        lines.append(f"| {number} | {name} | {amounts} |")
    rows = ", ".join(f"{split} {count}" for split, count in result.rows.items())
    ignored = (
        " Pixels of 255 were not labelled, or hold no data." if settings.task != "detection" else ""
    )
    return (
        f"---\ntask_categories:\n- {what}\ntags:\n- remote-sensing\n- earth-observation\nconfigs:\n"
        f"- config_name: default\n  data_files:\n{files}\n---\n\n# {Path(result.output).name}\n\n"
        f"Windows of {settings.size} x {settings.size} pixels of {Path(scenes).name}, with classes "
        f"from the property `{settings.field}` of {Path(labels).name}, made by `rs-models "
        f"windows`. Rows: {rows}. Splits are by place: each block of {settings.block} x "
        f"{settings.block} windows belongs to one of them as a whole (seed {settings.seed})."
        f"{ignored}\n\n" + "\n".join(lines) + "\n"
    )
