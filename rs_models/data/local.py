"""Local data: folders of images, Parquet files and GeoTIFF tiles."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bands import band_indices, resolve_bands
from ..errors import UserError
from .names import SPLITS, missing_split

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm"}
TIFF_SUFFIXES = {".tif", ".tiff"}
_SPLIT_NAMES = ("train", "validation", "test")


def open_path(path: Path, split: str, *, bands: str | Sequence[str] | None, streaming: bool) -> Any:
    """Open a folder or a Parquet file.

    Args:
        path: an existing path.
        split: standard split name.
        bands: as for ``sources.load``.
        streaming: give an iterable data set.

    Raises:
        UserError: for an empty folder, a mixture of kinds, or a missing split.
    """
    if path.is_file():
        if path.suffix != ".parquet":
            raise UserError(
                f"{path} is a file, but not Parquet: give a folder of images, or a .parquet file."
            )
        return _open_parquet({"train": [path]}, split, path, streaming)
    files = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
    parquet = [p for p in files if p.suffix == ".parquet"]
    if parquet:
        return _open_parquet(_group_parquet(parquet, path), split, path, streaming)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _open_saved(path, split, streaming)
    tiffs = [p for p in files if p.suffix.lower() in TIFF_SUFFIXES]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if tiffs and images:
        raise UserError(
            f"{path} holds {len(images)} images and {len(tiffs)} TIFF files (first: "
            f"{tiffs[0].name}): keep one kind in a folder."
        )
    if not tiffs and not images:
        raise UserError(
            f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES | TIFF_SUFFIXES))}) and no "
            "Parquet."
        )
    rows = _open_images(path, _of_split(tiffs or images, path, split), bool(tiffs), bands)
    return rows.to_iterable_dataset(num_shards=min(64, len(rows))) if streaming else rows


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.relative_to(root).parts)


def _open_parquet(splits: dict[str, list[Path]], split: str, path: Path, streaming: bool) -> Any:
    from datasets import load_dataset

    if split not in splits:
        raise missing_split(split, splits, str(path))
    files = [str(p) for p in splits[split]]
    try:
        return load_dataset("parquet", data_files={split: files}, split=split, streaming=streaming)
    except Exception as error:
        raise UserError(
            f"{files[0]} (or one of {len(files)} files) cannot be read as Parquet: {error}"
        ) from error


def _group_parquet(files: list[Path], root: Path) -> dict[str, list[Path]]:
    """Group files by the split in their folder or name; without any, all are train."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        for part in (*file.relative_to(root).parts[:-1], re.split(r"[-_.]", file.stem)[0]):
            name = SPLITS.get(part.lower(), part.lower())
            if name in _SPLIT_NAMES:
                splits.setdefault(name, []).append(file)
                break
    if not splits:
        return {"train": files}
    return {name: splits[name] for name in _SPLIT_NAMES if name in splits}


def _open_saved(path: Path, split: str, streaming: bool) -> Any:
    """Open what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote."""
    from datasets import DatasetDict, load_from_disk

    rows = load_from_disk(str(path))
    if isinstance(rows, DatasetDict):
        if split not in rows:
            raise missing_split(split, rows, str(path))
        rows = rows[split]
    elif split != "train":
        raise missing_split(split, ["train"], str(path))
    return rows.to_iterable_dataset() if streaming else rows


def _of_split(files: list[Path], root: Path, split: str) -> dict[Path, str | None]:
    """Return the files of a split with the class folder of each (None when the folder is flat)."""
    top = {p.relative_to(root).parts[0] for p in files if len(p.relative_to(root).parts) > 1}
    folders = {SPLITS.get(name.lower(), name.lower()): name for name in top}
    split_folders = {name: folders[name] for name in _SPLIT_NAMES if name in folders}
    if not split_folders:
        if split != "train":
            raise missing_split(
                split, ["train"], f"{root} (no train, validation or test folder in it)"
            )
        base, chosen = root, files
    else:
        if split not in split_folders:
            raise missing_split(split, split_folders, str(root))
        base = root / split_folders[split]
        chosen = [p for p in files if p.is_relative_to(base)]
    # The class is the folder path below the split, so that nested class folders stay apart.
    classes = {p: p.parent.relative_to(base).as_posix() for p in chosen}
    if all(name == "." for name in classes.values()):
        return dict.fromkeys(chosen)
    loose = [p for p, name in classes.items() if name == "."]
    if loose:
        raise UserError(
            f"{loose[0]} lies beside class folders: move it into one, or keep all images in one "
            "folder."
        )
    return dict(classes)


def _open_images(
    root: Path, files: dict[Path, str | None], tiffs: bool, bands: str | Sequence[str] | None
) -> Any:
    """Make a data set of image paths (and class labels) without reading the images."""
    from datasets import ClassLabel, Dataset, Features, Image

    feature = _tiff_feature(next(iter(files)), bands) if tiffs else Image()
    columns: dict[str, list] = {
        "image": [{"bytes": None, "path": str(p.absolute())} for p in files]
    }
    features: dict[str, Any] = {"image": feature}
    names = _class_names(root, files)
    if names:
        number = {name: i for i, name in enumerate(names)}
        columns["label"] = [number[name] for name in files.values() if name is not None]
        features["label"] = ClassLabel(names=names)
    rows = Dataset.from_dict(columns, features=Features(features))
    # Paths, sizes and times stand for the content, so that a changed file gives a new cache.
    stats = ((str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    state = hashlib.sha256(repr((list(stats), repr(feature), names)).encode()).hexdigest()
    rows._fingerprint = state[:16]
    return rows


def _class_names(root: Path, files: dict[Path, str | None]) -> list[str]:
    """Return the class folders of all splits: a class has one number in every split."""
    names = {name for name in files.values() if name is not None}
    if not names:
        return []
    some = next(iter(files))
    class_of_some = files[some]
    assert class_of_some is not None
    base = some.parents[len(Path(class_of_some).parts)]
    if base != root:
        for sibling in (p for p in root.iterdir() if p.is_dir()):
            if SPLITS.get(sibling.name.lower(), sibling.name.lower()) in _SPLIT_NAMES:
                for folder, _, inside in os.walk(sibling):
                    suffixes = {Path(f).suffix.lower() for f in inside}
                    if Path(folder) != sibling and suffixes & (IMAGE_SUFFIXES | TIFF_SUFFIXES):
                        names.add(Path(folder).relative_to(sibling).as_posix())
    return sorted(names)


def _tiff_feature(path: Path, bands: str | Sequence[str] | None) -> Any:
    """Choose the bands to read, by the names in the first file or those given."""
    import rasterio
    from rasterio.errors import RasterioError

    from .columns import GeoTiff, raster_bands

    try:
        with rasterio.open(path) as raster:
            count, have = raster.count, raster_bands(raster)
    except RasterioError as error:
        raise UserError(f"{path} cannot be read as a raster file: {error}") from error
    want = resolve_bands(bands) if bands is not None else None
    if have is not None:
        want = want or have
        band_indices(have, want, source=str(path))
    elif want is None or len(want) != count:
        raise UserError(
            f"{path} has {count} bands that it does not name, and {len(want) if want else 'no'} "
            f"band names are given: give `bands` with {count} names in the file's order, or write "
            "band descriptions into the files."
        )
    return GeoTiff(list(want))
