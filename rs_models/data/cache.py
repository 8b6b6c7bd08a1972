"""Decoded images in one memory-mapped file: decode once, share between processes.

Layout of a cache, `<cache_dir>/<fingerprint>/`: `images.npy` (N, H, W, C), `labels.npy` (N,) where
there are labels, `meta.json`. It is written beside and renamed into place, so a directory with that
name is always complete; a file lock keeps the processes of one machine from doing the same work,
and where locks do not work (some network file systems) the first rename wins and the others use its
result.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..bands import default_value_range, resolve_bands
from ..errors import UserError
from ..files import replaced
from ..settings import progress_bar
from .resize import resize_and_crop

if TYPE_CHECKING:
    import datasets
    import torch

# Of how many images the content is told by all values, by some, and by how many.
_WHOLE, _LOOKED_AT, _PIXELS = 64, 100_000, 64
_FORMAT = 1  # part of the fingerprint: raise it when the same input would give other pixels
_BLOCK = 256  # rows in flight: bounds memory to a few blocks of decoded images


@dataclass
class ImageCache:
    """Images of a data set as one memory-mapped array, with their labels.

    Pickles by path, so that worker processes map the same file instead of receiving a copy.

    Attributes:
        path: The cache's directory.
        bands: Canonical band names in channel order.
        value_range: (low, high) of the stored integers.
        fingerprint: Hash of data, bands, size and format.
        classes: Class names, or None.
        skipped: (row of the data set, reason) of images that could not be read.
    """

    path: Path
    bands: tuple[str, ...]
    value_range: tuple[float, float]
    fingerprint: str
    classes: list[str] | None = None
    skipped: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | os.PathLike) -> ImageCache:
        """Opens a finished cache directory.

        Raises:
            UserError: It is not one.
        """
        path = Path(path)
        try:
            meta = json.loads((path / "meta.json").read_text())
        except FileNotFoundError:
            raise UserError(
                f"{path} is not an image cache (no meta.json): build it with build_cache."
            ) from None
        return cls(
            path=path,
            bands=tuple(meta["bands"]),
            value_range=tuple(meta["value_range"]),
            fingerprint=meta["fingerprint"],
            classes=meta["classes"],
            skipped=[(row, reason) for row, reason in meta["skipped"]],
        )

    @cached_property
    def images(self) -> torch.Tensor:
        """(N, C, H, W), uint8 or uint16, in channels-last memory order; never write into it."""
        import torch

        array = np.load(self.path / "images.npy", mmap_mode="r")  # (N, H, W, C)
        with warnings.catch_warnings():
            # torch has no read-only tensors and warns; mapping writable would reserve memory for
            # the whole file.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            return torch.from_numpy(array).permute(0, 3, 1, 2)

    @cached_property
    def labels(self) -> torch.Tensor | None:
        """(N,) int64 class indices, or None."""
        import torch

        path = self.path / "labels.npy"
        return torch.from_numpy(np.load(path)) if path.exists() else None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def content(self) -> str:
        """Hash of what is there, wherever it lies: shape, bands, labels, some bytes of each image.

        A data set that was copied, or was mounted anew, keeps it; its `fingerprint` may change, for
        files are told apart by their times. 64 images are looked at whole, and of more than
        100,000 every second, third, ... one, for each is a read of its own on a slow disk.
        """
        shape = [*self.images.shape, str(self.images.dtype), *self.bands]
        found = hashlib.sha256(json.dumps([_FORMAT, shape]).encode())
        labels = self.labels
        if labels is not None:
            found.update(labels.numpy().tobytes())
        stored = np.load(self.path / "images.npy", mmap_mode="r")
        stored = stored.reshape(len(stored), -1)  # (N, H*W*C)
        for row in np.linspace(0, len(stored) - 1, _WHOLE).round().astype(int):
            found.update(stored[row].tobytes())
        rows = np.arange(0, len(stored), 1 + len(stored) // _LOOKED_AT)
        # Of each image other pixels, some next to each other: one page of memory an image.
        first = rows * 7919 % max(1, stored.shape[1] - _PIXELS + 1)
        columns = first[:, None] + np.arange(min(_PIXELS, stored.shape[1]))
        found.update(np.ascontiguousarray(stored[rows[:, None], columns]).tobytes())
        return found.hexdigest()[:20]

    def __len__(self) -> int:
        """The number of images."""
        return int(self.images.shape[0])

    def __getstate__(self) -> dict:
        """Leaves the mapped tensors out: the other side maps the file itself."""
        return {
            key: value for key, value in self.__dict__.items() if key not in ("images", "labels")
        }


def build_cache(
    rows: datasets.Dataset,
    *,
    bands: str | Sequence[str] = "rgb",
    image_size: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    strict: bool = False,
    progress: bool = True,
) -> ImageCache:
    """Decodes a data set into an `ImageCache`, or opens the one that is there.

    Images are read in threads (the decoders release Python's lock) and written in order, with a
    bounded number in flight.

    Args:
        rows: What `rs_models.data.load` gives, with an `image` column.
        bands: Bands to keep, in channel order; `nir` comes from a column of that name where the
            image lacks it.
        image_size: Side in pixels to which the shorter one is resized with antialiasing before the
            centre square is cut out. None keeps the images as they are; they must then have one
            size.
        cache_dir: Folder of the caches; None is `images` in `RS_MODELS_CACHE`, else in
            `~/.cache/rs_models`.
        strict: Whether the first image that cannot be read is an error, instead of being left out
            and counted.
        progress: Whether a progress bar is shown.

    Raises:
        UserError: Missing bands, mixed sizes without `image_size`, mixed types, no readable image
            at all, or (with `strict`) a corrupt image.
    """
    names = resolve_bands(bands)
    fingerprint = _fingerprint(rows, names, image_size)
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir() / "images"
    target = root / fingerprint
    if not target.exists():
        from filelock import FileLock

        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{fingerprint}.lock"):
            if not target.exists():
                _build(rows, names, image_size, target, fingerprint, strict, progress)
    cache = ImageCache.open(target)
    if strict and cache.skipped:
        row, reason = cache.skipped[0]
        raise UserError(_corrupt(row, reason))
    return cache


def default_cache_dir() -> Path:
    """The directory for everything that can be computed again."""
    return Path(os.environ.get("RS_MODELS_CACHE") or Path.home() / ".cache" / "rs_models")


def _fingerprint(rows: datasets.Dataset, bands: Sequence[str], image_size: int | None) -> str:
    key = json.dumps([_FORMAT, rows._fingerprint, list(bands), image_size])
    return hashlib.sha256(key.encode()).hexdigest()[:20]


def _corrupt(row: int, reason: str) -> str:
    return (
        f"The image in row {row} cannot be read ({reason}): repair or remove it, or leave strict "
        "off to skip it."
    )


def _build(
    rows: datasets.Dataset,
    bands: tuple[str, ...],
    image_size: int | None,
    target: Path,
    fingerprint: str,
    strict: bool,
    progress: bool,
) -> None:
    """Decodes every row into a directory beside `target`, then renames it."""
    with replaced(target, first_stays=True) as folder:
        with open(folder / "images.npy", "wb") as file:
            writer = _Writer(file, len(rows), image_size, strict)
            for block in _decoded_blocks(rows, bands, image_size, progress):
                writer.write(block)
            dtype = writer.finish()
        classes = None
        if "label" in rows.features:
            stored = [-1 if v is None else v for v in rows.with_format(None)["label"][:]]
            labels = np.array(stored, dtype=np.int64)
            kept = np.ones(len(rows), dtype=bool)
            kept[[row for row, _ in writer.skipped]] = False
            np.save(folder / "labels.npy", labels[kept])
            classes = list(getattr(rows.features["label"], "names", None) or []) or None
        meta = {
            "bands": bands,
            "value_range": default_value_range(dtype, bands),
            "fingerprint": fingerprint,
            "classes": classes,
            "skipped": writer.skipped,
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1))


@dataclass
class _Writer:
    """Appends decoded images to a .npy file, whose header is completed at the end."""

    file: BinaryIO
    total: int
    image_size: int | None
    strict: bool
    shape: tuple[int, ...] | None = None
    dtype: np.dtype | None = None
    first_row: int = 0
    count: int = 0
    row: int = 0
    total_value: float = 0.0
    highest: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def write(self, block: list[np.ndarray | str]) -> None:
        """Appends a block of images; a string is the reason why a row has none."""
        good = []
        for image in block:
            if isinstance(image, str):
                if self.strict:
                    raise UserError(_corrupt(self.row, image))
                self.skipped.append((self.row, image))
            else:
                self._check(image)
                good.append(image)
            self.row += 1
        if good:
            images = np.ascontiguousarray(np.stack(good))
            self.file.write(images.data)
            self.count += len(good)
            if images.dtype == np.uint16:
                self.highest = max(self.highest, int(images.max()))
                self.total_value += float(images.mean(dtype=np.float64)) * len(good)

    def _check(self, image: np.ndarray) -> None:
        """Compares an image with the first one, which decides size and type."""
        if self.shape is None:
            if image.dtype not in (np.uint8, np.uint16):
                raise UserError(
                    f"The image in row {self.row} has {image.dtype} pixels: convert the data to "
                    "uint8, or to uint16 reflectance x 10000."
                )
            self.shape, self.dtype, self.first_row = image.shape, image.dtype, self.row
            self._header(self.total)
        if image.dtype != self.dtype:
            raise UserError(
                f"The image in row {self.row} has {image.dtype} pixels, row {self.first_row} has "
                f"{self.dtype}: convert them to one type."
            )
        if image.shape != self.shape:
            raise UserError(
                f"The image in row {self.row} is {image.shape[1]} x {image.shape[0]} pixels, row "
                f"{self.first_row} is {self.shape[1]} x {self.shape[0]}: set image_size, so that "
                "all are brought to one size."
            )

    def _header(self, count: int) -> None:
        assert self.dtype is not None and self.shape is not None
        # numpy pads the header for a growing first axis, so that writing it again keeps its length.
        fields = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (count, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self.file, fields)

    def finish(self) -> np.dtype:
        """Writes the final header and returns the pixel type."""
        if self.dtype is None:
            reason = f": row {self.skipped[0][0]}: {self.skipped[0][1]}" if self.skipped else ""
            raise UserError(f"None of the {self.total} rows has a readable image{reason}.")
        mean = self.total_value / self.count
        # Reflectance above 1 is rare (snow, clouds); 8-bit values in 16 bits, or counts that fill
        # them, would be scaled wrongly without a word.
        _, one = default_value_range(self.dtype, ())
        if self.dtype == np.uint16 and (self.highest <= 255 or mean > one):
            raise UserError(
                f"The 16-bit images reach {self.highest} with a mean of {mean:.0f}, which is not "
                "reflectance x 10000: convert them to that, or to uint8."
            )
        self.file.seek(0)
        self._header(self.count)
        return self.dtype


def _decoded_blocks(
    rows: datasets.Dataset, bands: tuple[str, ...], image_size: int | None, progress: bool
) -> Iterator[list[np.ndarray | str]]:
    """Yields the rows' images in order, in blocks; a string is one that cannot be read."""
    from .columns import CorruptImageError, RowReader, column_values

    reader = RowReader(rows.features, bands)
    raw = reader.undecoded(rows.select_columns(reader.columns)).with_format("arrow")

    def decode(row: dict) -> np.ndarray | str:
        try:
            image = reader(row)
        except CorruptImageError as error:
            return str(error)
        return image if image_size is None else resize_and_crop(image, image_size)

    def decode_part(part: list[dict]) -> list[np.ndarray | str]:
        return [decode(row) for row in part]

    starts = range(0, len(raw), _BLOCK)
    bar = progress_bar(len(raw), "decoding", "image", shown=progress, passing=True)
    with bar, ThreadPoolExecutor(num_threads()) as pool:
        for start in starts:
            table = raw[start : start + _BLOCK]
            columns = [column_values(table[name]) for name in table.column_names]
            block_rows = [
                dict(zip(table.column_names, values, strict=True))
                for values in zip(*columns, strict=True)
            ]
            # Small images decode faster than a task is handed over: hand over a few at a time.
            parts = [block_rows[i : i + 16] for i in range(0, len(block_rows), 16)]
            yield list(chain.from_iterable(pool.map(decode_part, parts)))
            bar.update(len(block_rows))


def num_threads() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
