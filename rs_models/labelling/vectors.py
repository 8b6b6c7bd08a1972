"""The vectors of a table as one array on disk, and its tiles as pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..files import written

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.readout import Whitening

# Rows at a time: 1024 of 512 numbers stay in a processor's cache as float32, and of 256 to 4096
# this was the quickest.
BLOCK = 1024
# Rows that whitening is learned from at most: of 2,000 numbers they are 160 MB as float64.
_LEARNED_FROM = 10_000


def blocks(vectors: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """Reads vectors a block at a time, as float32 in one buffer.

    Args:
        vectors: (N, D) numbers of any type.

    Yields:
        Rows, and their vectors, which the next block overwrites.
    """
    import torch

    buffer = torch.empty(BLOCK, vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, min(start + BLOCK, len(vectors)))
        stored = vectors[rows]
        if not stored.flags.writeable:  # of such torch warns
            stored = stored.copy()
        block = buffer[: len(stored)]
        block.copy_(torch.from_numpy(stored))
        yield rows, block


def picture(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Red, green and blue of an image as stored, stretched where it has more than 8 bits."""
    colours = ("red", "green", "blue")
    places = [bands.index(name) for name in colours] if set(colours) <= set(bands) else [0] * 3
    image = image[..., places]
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, (2, 98))
    return ((image - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)


def memory_map(folder: Path, files: Sequence[Path], *, whiten: bool = False) -> np.ndarray:
    """The table's vectors as one array on disk, made where it is missing or of another table.

    Args:
        folder: The table.
        files: Its Parquet files.
        whiten: Keep them whitened, see `whitening_of`.
    """

    def make(partial: Path) -> None:
        _copy_vectors(files, partial, whitening_of(folder, files) if whiten else None)

    name = ".whitened-{}.npy" if whiten else ".vectors-{}.npy"
    # Copy on write: torch takes such an array without a word, and nothing is ever written.
    return np.load(_kept(folder, name, files, make), mmap_mode="c")


def whitening_of(folder: Path, files: Sequence[Path]) -> Whitening:
    """What whitens a table's vectors; kept beside it, for it takes seconds.

    Args:
        folder: The table.
        files: Its Parquet files.
    """
    from ..evaluation.readout import Whitening

    def make(partial: Path) -> None:
        learned = whitening_of_blocks(_stored_blocks(files), _rows(files))
        with open(partial, "wb") as file:  # by its name savez would add an ending
            np.savez(file, mean=learned.mean, matrix=learned.matrix)

    with np.load(_kept(folder, ".whitening-{}.npz", files, make)) as parts:
        return Whitening(parts["mean"], parts["matrix"])


def _kept(folder: Path, name: str, files: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """A file beside the table, made where it is missing or of another state of the table."""
    stamp = hashlib.sha256()
    for file in files:
        state = file.stat()
        stamp.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    place = folder / name.format(stamp.hexdigest()[:16])
    if not place.is_file():
        for old in folder.glob(name.format("*")):
            if old != place:  # which another process may have made meanwhile
                old.unlink(missing_ok=True)
        with written(place) as partial:
            make(partial)
    return place


def _rows(files: Sequence[Path]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in files)


def whitening_of_blocks(blocks: Iterable[np.ndarray], rows: int) -> Whitening:
    """What whitens vectors, learned from evenly spaced ones and from no label.

    Args:
        blocks: The vectors, some (B, D) at a time.
        rows: How many there are.
    """
    from ..evaluation.readout import Whitening

    step = -(-rows // _LEARNED_FROM)
    parts, before = [], 0
    for block in blocks:
        parts.append(block[-before % step :: step].astype(np.float32))
        before += len(block)
    return Whitening.fit(np.concatenate(parts))


def _copy_vectors(files: Sequence[Path], target: Path, whitening: Whitening | None) -> None:
    vectors, start, rows = None, 0, _rows(files)
    for block in _stored_blocks(files):
        if vectors is None:
            vectors = np.lib.format.open_memmap(target, "w+", np.float16, (rows, block.shape[1]))
        kept = block if whitening is None else whitening(block)
        vectors[start : start + len(block)] = _as_half(kept)
        start += len(block)
    assert vectors is not None
    vectors.flush()


def _stored_blocks(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """The vectors of a table as they are stored, some (B, D) at a time."""
    import pyarrow.parquet as pq

    width = None
    for file in files:
        parquet = pq.ParquetFile(file)
        scaled = "scale" in parquet.schema_arrow.names  # of vectors stored as int8
        columns = ["embedding", "scale"] if scaled else ["embedding"]
        for batch in parquet.iter_batches(4 * BLOCK, columns=columns):
            block = _stacked(batch.column("embedding"), file)
            if scaled:
                block = block * batch.column("scale").to_numpy()[:, None].astype(np.float32)
            if not np.isfinite(block.astype(np.float32)).all():
                raise UserError(f"{file} holds NaN or infinite embeddings: its model diverged.")
            width = width or block.shape[1]
            if block.shape[1] != width:
                raise UserError(f"{file} holds vectors of another length: it is of another model.")
            yield block
    if width is None:
        raise UserError(f"{files[0].parent.parent} has no rows: embed some images first.")


def _stacked(column: Any, file: Path) -> np.ndarray:
    """Vectors (N, D) of a column of lists of numbers.

    Raises:
        UserError: Another column, rows without a vector, or vectors of several lengths.
    """
    import pyarrow as pa

    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list or pa.types.is_fixed_size_list(kind)) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise UserError(f"The column 'embedding' of {file} holds {kind}: give the output of embed.")
    flat = column.flatten()
    if column.null_count or flat.null_count:
        raise UserError(f"{file} holds rows without an embedding: embed the images again.")
    width = len(flat) // max(1, len(column))
    if not width or (is_list and set(column.value_lengths().unique().to_pylist()) != {width}):
        raise UserError(f"{file} holds vectors of several lengths or of none: embed them again.")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), width)


def _as_half(block: np.ndarray) -> np.ndarray:
    """Float16, which cosines do not mind; vectors too large for it are shortened."""
    if block.dtype == np.float16:
        return block
    largest = np.abs(block).max(1, keepdims=True).astype(np.float32)
    return (block / np.maximum(largest / np.float32(60000), 1)).astype(np.float16)


def check_shards(folder: Path, files: Sequence[Path], manifest: dict[str, Any] | None) -> None:
    """Refuses a table whose files are not those that embed wrote, of as many rows.

    Args:
        folder: The table's.
        files: Its Parquet files.
        manifest: What embed wrote about it; None of a table that has none, which is not checked.

    Raises:
        UserError: Naming the first that is missing, strange or of another length.
    """
    import pyarrow.parquet as pq

    if manifest is None:
        return
    here, told = {file.name: file for file in files}, manifest["shards"]
    if not isinstance(told, dict) or not all(isinstance(rows, int) for rows in told.values()):
        raise UserError(f"{folder / 'embeddings.json'} is damaged: embed the images again.")
    for name, rows in told.items():
        if name not in here:
            raise UserError(
                f"The table {folder} lacks data/{name}: run its 'rs-models embed' again, which "
                "makes what is missing."
            )
        if pq.read_metadata(here[name]).num_rows != rows:
            raise UserError(
                f"The table {folder} is damaged: {here[name]} should hold {rows} rows. Remove it "
                "and run its 'rs-models embed' again."
            )
    strange = sorted(set(here) - set(told))
    if strange:
        raise UserError(
            f"The table {folder} holds data/{strange[0]}, which embed did not write: remove it."
        )
