"""A data set, wherever it is: one function, one set of column names.

Rows have `image` and, where the data has them, `label` (ClassLabel), `mask` (class-index image,
255 = ignore), `objects` ({bbox [x, y, w, h] in pixels, category}) and `nir`. Other columns are kept
as they are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..bands import SENSORS, band_indices, resolve_bands
from ..errors import UserError
from ..zoo import local_repository
from . import registry
from .contained import contained
from .labels import check_same_classes, class_labels
from .names import COLUMNS, standard_split

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


def load(
    name_or_path: str | os.PathLike,
    split: str = "train",
    *,
    bands: str | Sequence[str] | None = None,
    revision: str | None = None,
    streaming: bool = False,
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    mask_values: Mapping[Any, Any] | None = None,
    box_format: Literal["xywh", "xyxy"] = "xywh",
    annotations: bool = True,
) -> datasets.Dataset:
    """Opens one split of a data set.

    Args:
        name_or_path: A name from the registry of known sets, a Hub id (Parquet; looked for in
            `RS_MODELS_HUB_DIR/[datasets/]<owner>/<name>` first; "owner/name:config" where there are
            several configurations), a local folder (images in class folders or flat, Parquet files,
            GeoTIFF tiles), a Parquet file, or "synthetic" ("synthetic:num=640,size=64").
        split: "train", "validation" or "test", in any spelling ("val", "training").
        bands: For an `image` of more than three bands: the names of its bands where the data does
            not tell; for GeoTIFF tiles with band descriptions: the ones to read. None takes the
            registry's, the files' or RGB.
        revision: Hub commit, tag or branch; None takes the registry's pinned one, else the newest.
        streaming: Whether to give an `IterableDataset` that reads while it runs, with the same
            columns.
        columns: Our column name -> the data's, for example {"image": "img", "label": "class"}.
        strict: Whether to read every image now and raise at the first corrupt one (not with
            `streaming`).
        mask_values: Stored value of masks (17, "255,0,0" or "#ff0000") -> class number, null for no
            class; None takes the stored values for class numbers.
        box_format: What the four numbers of a box are: "xywh" (corner and sides) or "xyxy" (two
            corners).
        annotations: Whether masks and boxes are brought to their standard form and checked; False
            leaves them as they are, for those who want the images alone.

    Raises:
        UserError: With one sentence that says what is wrong and what there is instead.
        ServiceError: The Hub or the network fails.

    Example:
        >>> row = load("synthetic:num=8,size=32", "val")[0]
        >>> row["image"].size
        (32, 32)
    """
    name, split = os.fspath(name_or_path), standard_split(split)
    if name.split(":")[0] == "synthetic":
        from .synthetic import load_synthetic, parse_name

        rows = load_synthetic(split, bands=resolve_bands(bands or "rgb"), **parse_name(name))
        return rows.to_iterable_dataset(num_shards=min(8, len(rows))) if streaming else rows
    known = None if Path(name).exists() else registry.find(name)
    source = open_source(name, revision)
    if hasattr(source, "path"):
        rows = source.open(split, bands=bands, streaming=streaming)
    else:
        rows = source.open(split, streaming=streaming)
    renamed = {**(known.columns if known else {}), **(columns or {})}
    rows = _standard_columns(rows, renamed, name)
    rows = _labels(rows, source, split, renamed.get("label", "label"), name)
    if not hasattr(source, "path"):
        rows = contained(rows, None, name)
    elif source.kind in ("parquet", "saved"):
        rows = contained(rows, source.path if source.path.is_dir() else source.path.parent, name)
    if annotations:
        rows = _annotations(rows, source, split, renamed, name, mask_values, box_format)
    want = resolve_bands(bands) if bands is not None else None
    rows = _name_bands(rows, known.bands if known else None, want, name)
    if strict and not streaming:
        check_images(rows)
    return rows


def open_source(name: str, revision: str | None = None) -> Any:
    """Where a data set's rows come from: a `LocalSource` or a `HubSource`.

    Args:
        name: As for `load`, but not "synthetic".
        revision: As for `load`.

    Raises:
        UserError: Neither a path nor an id.
    """
    folder = _folder(name)
    if folder is not None:
        from .local import LocalSource

        if revision is not None:
            raise UserError(f"{name} lies here and has no revisions: leave the revision out.")
        return LocalSource(folder)
    known = registry.find(name)
    if known is None and not _is_hub_id(name):
        raise UserError(
            f"There is no folder or file {name!r}, and it is not a Hub id (owner/name): check the "
            f"path, or use one of the known sets ({', '.join(registry.KNOWN)}) or 'synthetic'."
        )
    from .hub import HubSource

    hub_id, _, config = name.partition(":")
    return HubSource(
        known.hub_id if known else hub_id,
        config=config or None,
        revision=revision or (known.revision if known else None),
    )


def resolve_revision(name_or_path: str | os.PathLike, revision: str | None = None) -> str | None:
    """The commit of a Hub data set, to record it; None for local data.

    Args:
        name_or_path: As for `load`.
        revision: As for `load`.
    """
    name = os.fspath(name_or_path)
    if name.split(":")[0] == "synthetic":
        from .synthetic import VERSION

        return VERSION
    if _folder(name) is not None:
        return None
    from . import hub

    known = registry.find(name)
    return hub.commit(
        known.hub_id if known else name.partition(":")[0],
        revision or (known.revision if known else None),
    )


def check_images(rows: datasets.Dataset) -> None:
    """Reads every image once.

    Raises:
        UserError: At the first one that cannot be read, with its row.
    """
    for number, reason in _unreadable(rows):
        raise UserError(
            f"The image in row {number} cannot be read ({reason}): repair or remove it."
        )


def readable_rows(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """The rows whose images can be read; how many others there are is told, with the first of them.

    Args:
        rows: What `load` gives.
        name: The data's name, for the warning.
    """
    broken = dict(_unreadable(rows))
    if not broken:
        return rows
    row, reason = next(iter(broken.items()))
    logger.warning(
        "%d of %d images of %s cannot be read and are left out, the first in row %d: %s.",
        len(broken),
        len(rows),
        name,
        row,
        reason,
    )
    return rows.select([number for number in range(len(rows)) if number not in broken])


def _unreadable(rows: datasets.Dataset) -> Iterator[tuple[int, str]]:
    """Row and reason of each image that cannot be read."""
    from .columns import CorruptImageError, RowReader

    reader = RowReader(rows.features, image_bands(rows.features))
    for number, row in enumerate(reader.undecoded(rows.select_columns(reader.columns))):
        try:
            reader(row)
        except CorruptImageError as error:
            yield number, str(error)


def _folder(name: str) -> Path | None:
    """Where the data lie on this machine: their path, or the id in `RS_MODELS_HUB_DIR`."""
    if Path(name).exists():
        return Path(name)
    known = registry.find(name)
    return local_repository(known.hub_id if known else name, datasets=True)


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def image_bands(features: Any) -> tuple[str, ...]:
    """The band names that an image column carries; RGB where it carries none."""
    return tuple(getattr(features["image"], "bands", None) or SENSORS["rgb"])


def _standard_columns(rows: Any, columns: Mapping[str, str], name: str) -> Any:
    """Renames the data's columns to ours and gives them our types."""
    from datasets import Image

    features = _features(rows)
    for ours, theirs in columns.items():
        if ours not in COLUMNS:
            raise UserError(f"The setting columns has the key {ours!r}: use {', '.join(COLUMNS)}.")
        if theirs not in features:
            raise UserError(
                f"{name} has no column {theirs!r} for {ours!r}: it has {', '.join(features)}."
            )
        if ours != theirs:
            if ours in features:
                rows = rows.rename_column(ours, f"{ours}_original")
            rows = rows.rename_column(theirs, ours)
            features = _features(rows)
    if "image" not in features:
        candidates = [
            column
            for column, feature in features.items()
            if isinstance(feature, Image) or _is_encoded_image(feature)
        ]
        if len(candidates) != 1:
            raise UserError(
                f"{name} has no 'image' column (it has {', '.join(features)}): name it with "
                "columns={'image': ...}."
            )
        rows = rows.rename_column(candidates[0], "image")
        features = _features(rows)
    for column in ("image", "mask", "nir"):
        if column in features and _is_encoded_image(features[column]):
            rows = rows.cast_column(column, Image())
    return rows


def _labels(rows: Any, source: Any, split: str, stored: str, name: str) -> Any:
    """Rows whose labels mean the same classes as those of the other splits.

    Args:
        rows: One split.
        source: Where they come from.
        split: Standard name of the split.
        stored: The data's own name of the label column.
        name: The data's name, for messages.
    """
    from datasets import ClassLabel, Dataset

    label = _features(rows).get("label")
    if label is None or not isinstance(rows, Dataset):
        return rows if isinstance(label, ClassLabel | None) else class_labels(rows, name)
    if isinstance(label, ClassLabel) and not hasattr(source, "path"):
        return rows  # a Hub set has one schema for all of its splits
    others = [other for other in source.splits if other != split]
    columns = {other: source.column(other, stored) for other in others}
    if isinstance(label, ClassLabel):
        check_same_classes(label.names, ((o, f) for o, (f, _) in columns.items()), name)
        return rows
    return class_labels(
        rows, name, [values for _, values in columns.values() if values is not None]
    )


def _annotations(
    rows: Any,
    source: Any,
    split: str,
    renamed: Mapping[str, str],
    name: str,
    mask_values: Mapping[Any, Any] | None,
    box_format: Literal["xywh", "xyxy"],
) -> Any:
    """Rows whose masks and boxes are what the contract of rows says."""
    from datasets import Dataset, Image

    if not isinstance(rows, Dataset):
        return rows
    if isinstance(rows.features.get("mask"), Image):
        from .masks import class_masks

        stored = (
            values.to_pylist()
            for other in source.splits
            if other != split
            and (values := source.column(other, renamed.get("mask", "mask"))[1]) is not None
        )
        rows = class_masks(rows, name, mask_values, stored)
    if "objects" in rows.features:
        from .boxes import standard_objects

        others = [
            values.to_pylist()
            for other in source.splits
            if other != split
            and (values := source.column(other, renamed.get("objects", "objects"))[1]) is not None
        ]
        rows = standard_objects(rows, name, others=others, box_format=box_format)
    return rows


def _features(rows: Any) -> Any:
    """The features; a stream without a schema is read up to its first row to learn them."""
    return rows.features if rows.features is not None else rows._resolve_features().features


def _is_encoded_image(feature: Any) -> bool:
    """Whether a column without a type of its own holds image files."""
    if isinstance(feature, dict):
        return "bytes" in feature and set(feature) <= {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _name_bands(
    rows: Any, have: tuple[str, ...] | None, want: tuple[str, ...] | None, name: str
) -> Any:
    """Gives an array column its band names, and checks that the bands asked for are there.

    Args:
        rows: Rows with an `image` column.
        have: Band names of the image, where the registry knows them.
        want: Bands asked for; they also name the bands of an array that nothing else names.
        name: The data's name, for messages.
    """
    from datasets import Array3D, Image

    from .columns import BandArray, GeoTiff

    feature = _features(rows)["image"]
    if isinstance(feature, Array3D):
        ends = (feature.shape[0], feature.shape[2])
        names = next((n for n in (have, want, SENSORS["rgb"]) if n and len(n) in ends), None)
        if names is None:
            raise UserError(
                f"The images of {name} are arrays of shape {feature.shape}, and "
                f"{len(want) if want else 'no'} band names are given: give `bands` with one name "
                "per band, in stored order."
            )
        feature = BandArray(feature.shape, feature.dtype, list(names))
        rows = rows.cast_column("image", feature)
    elif not isinstance(feature, Image | BandArray | GeoTiff):
        raise UserError(
            f"The 'image' column of {name} is {feature}, not an image: name it with "
            "columns={'image': ...}."
        )
    if want is not None:
        there = tuple(getattr(feature, "bands", SENSORS["rgb"]))
        if "nir" in _features(rows) and "nir" not in there:
            there = (*there, "nir")
        band_indices(there, want, source=name)
    return rows
