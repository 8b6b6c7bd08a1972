"""Local data: folders of images, Parquet files and GeoTIFF tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bands import band_indices, resolve_bands
from ..errors import UserError
from .folders import Layout, divide, files_below
from .names import SPLITS, missing_split, split_in, split_of, standard_split

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm"}
TIFF_SUFFIXES = {".tif", ".tiff"}
# Part of the fingerprint of GeoTIFF tiles: changes with what is made of their values.
_TILES = ", scaled"


class LocalSource:
    """A folder or file with its splits.

    Attributes:
        path: Where it lies.
        splits: Names of the splits that there are, standard ones first.
        kind: "parquet", "saved" (by `save_to_disk`), "images" or "tiles".
    """

    def __init__(self, path: Path) -> None:
        """Looks at the files' names.

        Args:
            path: An existing path.

        Raises:
            UserError: An empty folder, a mixture of kinds, or splits that cannot be told apart.
        """
        self.path = path
        self._parquet: dict[str, list[Path]] = {}
        self._saved: Mapping[str, Any] = {}
        self._layout: Layout | None = None
        if path.is_file():
            self.kind = "parquet"
            self._parquet = {"train": [_checked_file(path)]}
        else:
            self._look(path)
        parts = self._parquet or self._saved or (self._layout.splits if self._layout else {})
        self.splits = [split for split in SPLITS if split in parts]
        self.splits += [split for split in parts if split not in SPLITS]

    def _look(self, path: Path) -> None:
        files = files_below(path)
        parquet = [file for file in files if file.suffix.lower() == ".parquet"]
        tiffs = [file for file in files if file.suffix.lower() in TIFF_SUFFIXES]
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        if parquet:
            self.kind, self._parquet = "parquet", group_parquet(parquet, path)
        elif (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            self.kind, self._saved = "saved", _saved(path)
        elif tiffs and images:
            raise UserError(
                f"{path} holds {len(images)} images and {len(tiffs)} TIFF files (first: "
                f"{tiffs[0].name}): keep one kind in a folder."
            )
        elif not tiffs and not images:
            others = sorted({file.suffix.lower() or file.name for file in files})
            there = f" (it has {', '.join(others[:6])})" if others else ""
            raise UserError(
                f"{path} holds no images and no Parquet{there}: give a folder with "
                f"{', '.join(sorted(IMAGE_SUFFIXES | TIFF_SUFFIXES))} or .parquet files."
            )
        else:
            self.kind = "tiles" if tiffs else "images"
            self._layout = divide(path, tiffs or images)

    def open(self, split: str, *, bands: str | Sequence[str] | None, streaming: bool) -> Any:
        """One split's rows.

        Args:
            split: Standard name of the split.
            bands: As for `sources.load`.
            streaming: Whether an iterable data set is wanted.

        Raises:
            UserError: A split that is not there, or files that cannot be read.
        """
        if split not in self.splits:
            unnamed = self._layout is not None and not self._layout.named
            more = " (no train, validation or test folder in it)" if unnamed else ""
            raise missing_split(split, self.splits, f"{self.path}{more}")
        if self._parquet:
            return _open_parquet(self._parquet[split], split, streaming)
        if self._layout is None:
            rows = self._saved[split]
            return rows.to_iterable_dataset() if streaming else rows
        rows = _open_images(self._layout, split, self.kind == "tiles", bands)
        return rows.to_iterable_dataset(num_shards=min(64, len(rows))) if streaming else rows

    def column(self, split: str, name: str) -> tuple[Any, Any]:
        """Feature and stored values of a column of a split; (None, None) where there is none.

        Reads the one column, so that another split's classes cost little.
        """
        if self._saved:
            rows = self._saved[split]
            if name not in rows.features:
                return None, None
            return rows.features[name], rows.data.column(name)
        if not self._parquet:
            return None, None
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Features

        chunks: list[Any] = []
        feature = None
        try:
            for file in self._parquet[split]:
                schema = pq.read_schema(file)
                if name not in schema.names:
                    return None, None
                feature = Features.from_arrow_schema(schema)[name]
                chunks += pq.read_table(file, columns=[name]).column(name).chunks
            return feature, pa.chunked_array(chunks)
        except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(f"{file} cannot be read as Parquet: {error}.") from error

    def files(self, split: str) -> list[Path]:
        """The files that a split's rows lie in."""
        if self._parquet:
            return self._parquet.get(split, [])
        return list(self._layout.splits.get(split, ())) if self._layout is not None else []


def _checked_file(path: Path) -> Path:
    if path.suffix.lower() != ".parquet":
        raise UserError(
            f"{path} is a file whose name does not end in .parquet: give a folder of images, or a "
            "file that does."
        )
    return path


def _open_parquet(files: Sequence[Path], split: str, streaming: bool) -> Any:
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    names = [str(file) for file in files]
    _check_columns(files)
    try:
        return load_dataset("parquet", data_files={split: names}, split=split, streaming=streaming)  # nosec B615: local files
    except (OSError, ValueError, DatasetGenerationError, pa.ArrowException) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"{names[0]} (or one of {len(names)} files) cannot be read as Parquet: "
            f"{str(cause).splitlines()[0]}."
        ) from error


def _check_columns(files: Sequence[Path]) -> None:
    """Refuses files of one split with other columns: `datasets` would name no file.

    Raises:
        UserError: A file that cannot be read, or whose columns differ from the first one's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first: list[str] | None = None
    for file in files:
        try:
            names = pq.read_schema(file).names
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{file} cannot be read as Parquet: {error}.") from error
        if first is not None and set(names) != set(first):
            raise UserError(
                f"{file} has the columns {', '.join(names)}, {files[0]} has {', '.join(first)}: "
                "give all files of a split the same columns."
            )
        first = first or names


def group_parquet(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Files by the split in their folder or name; all are `train` where none names one.

    Raises:
        UserError: Some name a split and others do not.
    """
    splits: dict[str, list[Path]] = {}
    rest: list[Path] = []
    for file in files:
        folders = file.relative_to(root).parts[:-1]
        split = next((found for part in folders if (found := split_of(part))), None)
        split = split or split_in(file.stem)
        if split is None:
            rest.append(file)
        else:
            splits.setdefault(split, []).append(file)
    if splits and rest:
        raise UserError(
            f"{len(rest)} Parquet files of {root} name no split, while others do (first: "
            f"{rest[0].relative_to(root)}): rename them after train, validation or test, or move "
            "them away."
        )
    return splits or {"train": list(files)}


def _saved(path: Path) -> Mapping[str, Any]:
    """What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote, by standard split names."""
    from datasets import DatasetDict, concatenate_datasets, load_from_disk

    try:
        rows = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no whole data set of save_to_disk ({error}).") from error
    if not isinstance(rows, DatasetDict):
        return {"train": rows}
    splits: dict[str, list[Any]] = {}
    for name, part in rows.items():
        splits.setdefault(standard_split(str(name)), []).append(part)
    return {name: p[0] if len(p) == 1 else concatenate_datasets(p) for name, p in splits.items()}


def _open_images(layout: Layout, split: str, tiffs: bool, bands: str | Sequence[str] | None) -> Any:
    """A data set of image paths (and class labels), without reading the images."""
    from datasets import ClassLabel, Dataset, Features, Image

    files, names = layout.splits[split], layout.classes
    feature = _tiff_feature(list(files), bands) if tiffs else Image()
    columns: dict[str, list] = {
        "image": [{"bytes": None, "path": str(p.absolute())} for p in files]
    }
    features: dict[str, Any] = {"image": feature}
    if names:
        number = {name: i for i, name in enumerate(names)}
        columns["label"] = [number[name] for name in files.values() if name is not None]
        features["label"] = ClassLabel(names=names)
    rows = Dataset.from_dict(columns, features=Features(features))
    # Paths, sizes and times stand for the content, so that a changed file gives a new cache.
    stats = ((str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    about = repr(feature) + _TILES * tiffs
    state = hashlib.sha256(repr((list(stats), about, names)).encode()).hexdigest()
    rows._fingerprint = state[:16]
    return rows


def _tiff_feature(files: Sequence[Path], bands: str | Sequence[str] | None) -> Any:
    """The bands to read, by the names in the first file that can be opened or those given."""
    from .columns import GeoTiff, raster_bands

    path, opened = _first_tile(files)
    with opened as raster:
        count, have = raster.count, raster_bands(raster)
    want = resolve_bands(bands) if bands is not None else None
    if have is not None:
        want = want or have
        band_indices(have, want, source=str(path))
    elif want is None or len(want) != count:
        raise UserError(
            f"{path} has {count} bands that it does not name, or numbers without saying whose, and "
            f"{len(want) if want else 'no'} band names are given: give `bands` with {count} names "
            "in the file's order, or write band descriptions into the files."
        )
    return GeoTiff(list(want))


def _first_tile(files: Sequence[Path]) -> tuple[Path, Any]:
    """The first file that can be opened, and its raster; damaged ones are told when they are read.

    Raises:
        UserError: None can be opened; the first file is named.
    """
    from .columns import open_tile

    why: UserError | None = None
    for path in files:
        try:
            return path, open_tile(path)
        except UserError as error:
            why = why or error
    assert why is not None  # a split has files
    raise why
