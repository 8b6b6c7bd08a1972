"""Shards of an embeddings table: from a pile of images to a Parquet file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bands import default_value_range
from ..errors import UserError
from ..files import written
from ..version import __version__

if TYPE_CHECKING:
    from .features import Encoder
    from .pile import Item, Pile

DTYPES = ("float32", "float16", "int8")
_LEVELS = 127  # largest of int8 that has its negative


@dataclass(frozen=True)
class Shard:
    """A file of the table.

    Attributes:
        number: Its place among the files.
        rows: Places in the table of the images that it holds.
    """

    number: int
    rows: range


def shards_of(parts: list[int], shard_rows: int) -> list[Shard]:
    """Cuts a table into files; what a later run added begins a new one.

    Args:
        parts: Images of each run that added some.
        shard_rows: Images of a file.
    """
    shards: list[Shard] = []
    start = 0
    for count in parts:
        end = start + count
        for first in range(start, end, shard_rows):
            shards.append(Shard(len(shards), range(first, min(first + shard_rows, end))))
        start = end
    return shards


@dataclass(frozen=True)
class Writer:
    """Computes and writes shards.

    Attributes:
        pile: Images.
        encoder: Frozen, on its device.
        size: Pixels that images are brought to.
        dtype: One of `DTYPES`.
        batch_size: Images at a time.
        strict: Whether an image that cannot be read ends the run.
        about: What the table's metadata tell beside the encoder.
        bar: Progress bar.
    """

    pile: Pile
    encoder: Encoder
    size: int
    dtype: str
    batch_size: int
    strict: bool
    about: dict[str, Any]
    bar: Any

    def write(self, path: Path, shard: Shard) -> None:
        """Writes one shard into its place, at once.

        Raises:
            UserError: No image of it can be read, or one that cannot where `strict`.
        """
        import pyarrow.parquet as pq

        with written(path) as partial:
            writer = None
            try:
                for numbers, vectors, beside in self._blocks(shard):
                    table = self._table(numbers, vectors, beside)
                    if writer is None:
                        writer = pq.ParquetWriter(partial, table.schema)
                    writer.write_table(table)
            finally:
                if writer is not None:
                    writer.close()
            if writer is None:
                raise UserError(f"None of the images for {path.name} can be read: repair them.")

    def _blocks(self, shard: Shard) -> Iterator[tuple[list[int], np.ndarray, list[dict]]]:
        """Places, vectors (B, D) and the values beside them, a batch at a time."""
        from ..data.cache import num_threads

        with ThreadPoolExecutor(num_threads()) as pool:
            first = shard.rows.start
            for items in self.pile.read(shard.rows, pool, self.batch_size):
                good = {
                    place: item
                    for place, item in enumerate(items, first)
                    if self._is_readable(place, item)
                }
                first += len(items)
                self.bar.update(len(items))
                if good:
                    vectors = features([item.image for item in good.values()], self)
                    yield list(good), vectors, [item.beside for item in good.values()]

    def _is_readable(self, place: int, item: Item) -> bool:
        if isinstance(item.image, str):
            name = f" ({item.beside['file']})" if item.beside.get("file") else ""
            if self.strict:
                raise UserError(
                    f"The image in row {place}{name} cannot be read ({item.image}): repair it."
                )
            self.bar.write(f"row {place}{name} left out: {item.image}", file=sys.stderr)
            return False
        low, high = self.encoder.value_range
        if default_value_range(item.image.dtype, self.encoder.bands) != (low, high):
            raise UserError(
                f"{self.encoder.name or 'The encoder'} was trained on stored values up to "
                f"{high:g}, but the image in row {place} is {item.image.dtype}: convert the data."
            )
        return True

    def _table(self, numbers: list[int], vectors: np.ndarray, beside: list[dict]) -> Any:
        import pyarrow as pa
        from datasets import Features, List, Value

        own: dict[str, Any] = {
            "row": Value("int64"),
            "embedding": List(Value(self.dtype), length=vectors.shape[1]),
        }
        columns: list[Any] = [pa.array(numbers, pa.int64())]
        if self.dtype == "int8":
            vectors, scale = quantised(vectors)
            own["scale"] = Value("float32")
        flat = pa.array(vectors.astype(self.dtype).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        if self.dtype == "int8":
            columns.append(pa.array(scale, pa.float32()))
        schema = Features({**own, **self.pile.features}).arrow_schema
        for name in self.pile.features:
            columns.append(pa.array([values[name] for values in beside], schema.field(name).type))
        metadata = {**schema.metadata, **self._metadata(vectors.shape[1])}
        return pa.table(columns, schema=schema.with_metadata(metadata))

    def _metadata(self, width: int) -> dict[bytes, bytes]:
        """What a table tells of itself: STAC's fields for models, and GeoParquet's."""
        encoder = self.encoder
        bands, side = list(encoder.bands), self.size
        stac = {
            "mlm:name": encoder.name,
            "mlm:tasks": ["feature-extraction"],
            "mlm:input": [
                {
                    "name": "image",
                    "bands": [{"name": band} for band in bands],
                    "input": {
                        "shape": [-1, len(bands), side, side],
                        "dim_order": ["batch", "bands", "height", "width"],
                        "data_type": "float32",
                    },
                }
            ],
            "mlm:output": [
                {
                    "name": "embedding",
                    "tasks": ["feature-extraction"],
                    "result": {
                        "shape": [-1, width],
                        "dim_order": ["batch", "features"],
                        "data_type": self.dtype,
                    },
                }
            ],
            "processing:software": {"rs_models": __version__},
            "rs_models:model_revision": encoder.revision,
            "rs_models:readout": encoder.readout,
            **{f"rs_models:{key}": value for key, value in self.about.items()},
        }
        metadata = {b"stac": json.dumps(stac).encode()}
        if "geometry" in self.pile.features:
            # A geometry without a named system is in longitude and latitude (GeoParquet 1.1).
            column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
            geo = {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": column},
            }
            metadata[b"geo"] = json.dumps(geo).encode()
        return metadata


def features(images: list[Any], writer: Writer) -> np.ndarray:
    """Features (N, D) float32 of images that may differ in size."""
    import torch

    encoder = writer.encoder
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(place)
    device = next(encoder.model.parameters()).device
    parts: dict[int, np.ndarray] = {}
    for places in by_shape.values():
        stacked = np.ascontiguousarray(np.stack([images[i] for i in places]))  # (B, H, W, C)
        batch: torch.Tensor = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
        with torch.inference_mode():
            vectors = encoder(batch, size=writer.size).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise UserError(
                f"Features of {encoder.name or 'the encoder'} are NaN or infinite: its weights "
                "diverged."
            )
        parts.update(zip(places, vectors, strict=True))
    return np.stack([parts[place] for place in range(len(images))])


def quantised(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as int8, and the scale (N,) that brings each back: `embedding * scale`.

    Cosines need no scale: each vector has its own.

    Example:
        >>> whole, scale = quantised(np.array([[0.5, -1.0, 0.0]]))
        >>> whole.tolist(), round(float(scale[0]), 4)
        ([[64, -127, 0]], 0.0079)
    """
    scale = np.abs(vectors).max(1).astype(np.float64) / _LEVELS
    safe = np.where(scale > 0, scale, 1.0)
    return np.rint(vectors / safe[:, None]).astype(np.int8), safe.astype(np.float32)
