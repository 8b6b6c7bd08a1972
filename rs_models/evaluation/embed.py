"""`rs-models embed`: the features of many images as a Parquet data set.

Rows are read, embedded and written shard by shard, so millions of them need the memory of one
batch; a finished shard is never computed again. Under accelerate every process takes its own
shards, and what is written does not depend on how many processes there are.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from .features import Encoder

SHARD_ROWS = 4096
MANIFEST = "embeddings.json"
# Columns that are pixels, or too heavy to be copied beside a vector.
_PIXELS = {"image", "nir", "mask"}


@dataclass(frozen=True)
class Job:
    """What an output folder holds; the same job may go on in it, another may not.

    Attributes:
        model: Name of the encoder.
        model_revision: Its commit, or a hash of its weights.
        data: Name of the data set.
        split: Of it.
        data_revision: Its commit, or a fingerprint of its rows.
        bands: That are read.
        size: Pixels that images are brought to.
        dtype: "float16" or "float32".
        rows: In the split.
        shard_rows: In a shard.
    """

    model: str
    model_revision: str
    data: str
    split: str
    data_revision: str
    bands: list[str]
    size: int
    dtype: str
    rows: int
    shard_rows: int

    @property
    def shards(self) -> int:
        """How many files there will be."""
        return -(-self.rows // self.shard_rows)


@dataclass(frozen=True)
class Embedded:
    """What was done.

    Attributes:
        output: Folder.
        rows: With an embedding, in all shards.
        skipped: Images that could not be read, in all shards.
        shards: In the folder.
        computed: Shards that this call computed.
    """

    output: str
    rows: int
    skipped: int
    shards: int
    computed: int


def embed(
    source: str,
    model: str | Encoder,
    output: str | os.PathLike[str],
    *,
    split: str = "train",
    revision: str | None = None,
    batch_size: int = 64,
    size: int | None = None,
    dtype: str = "float32",
    columns: Sequence[str] | None = None,
    strict: bool = False,
    shard_rows: int = SHARD_ROWS,
    progress: bool = True,
) -> Embedded:
    """Writes the pooled features of every image of a data set.

    A row of the result: `row` (its number in the source), `embedding` (list of D floats) and the
    source's light columns (label, file name, place, ...).

    Args:
        source: Data set, as for `rs_models.data.load`.
        model: An encoder or the name of one, as for `evaluation.features.load_encoder`.
        output: Folder to write: `data/<split>-*.parquet` and a manifest.
        split: Of the source.
        revision: Of a data set on the Hub.
        batch_size: Images at a time.
        size: Pixels that images are brought to; None is the model's training size.
        dtype: "float16" or "float32".
        columns: To copy; None copies all that hold no pixels.
        strict: Stop at an image that cannot be read instead of leaving it out and counting it.
        shard_rows: Rows in a file.
        progress: Show a progress bar.

    Returns:
        What was done.

    Raises:
        UserError: Unknown model, data or column, missing bands, another value range, or an output
            that holds another job.
    """
    from accelerate import PartialState

    from ..data import load, resolve_revision
    from ..data.columns import RowReader
    from ..data.names import data_name
    from .features import Encoder
    from .loading import load_encoder

    state, output = PartialState(), Path(output)
    found = load_encoder(model, size=size) if isinstance(model, str) else model
    if not isinstance(found, Encoder):
        raise UserError(f"{model!r} learns from training images: name a model with weights.")
    encoder = found
    with state.main_process_first():  # one process downloads, the others find it
        rows = load(source, split, bands=encoder.bands, revision=revision, annotations=False)
    reader = RowReader(rows.features, encoder.bands)
    light = _light_columns(rows.features, columns)
    job = Job(
        model=encoder.name or str(model),
        model_revision=encoder.revision or "unknown",
        data=data_name(source),
        split=split,
        data_revision=resolve_revision(source, revision) or rows._fingerprint,
        bands=list(encoder.bands),
        size=size or encoder.train_size,
        dtype=dtype,
        rows=len(rows),
        shard_rows=shard_rows,
    )
    if state.is_main_process:
        _claim(output, job)
    state.wait_for_everyone()
    encoder.model.eval().to(state.device)
    mine = range(state.process_index, job.shards, state.num_processes)
    missing = [number for number in mine if not _shard(output, job, number).exists()]
    from tqdm.auto import tqdm

    bar = tqdm(
        total=sum(len(_span(job, number)) for number in missing),
        desc="embedding",
        unit="image",
        disable=not progress or not state.is_main_process,
    )
    for number in missing:
        span = _span(job, number)
        part = reader.undecoded(rows.select(span).select_columns([*reader.columns, *light]))
        blocks = _embedded(part, span.start, reader, encoder, job, light, batch_size, strict, bar)
        _write_shard(_shard(output, job, number), blocks, rows.features, light, encoder, job)
    bar.close()
    state.wait_for_everyone()
    done = _finish(output, job) if state.is_main_process else (0, 0)
    return Embedded(str(output), *done, job.shards, len(missing))


def _light_columns(features: Any, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        kinds = ("Value", "ClassLabel")
        return [
            name
            for name, feature in features.items()
            if type(feature).__name__ in kinds and name not in {*_PIXELS, "row", "embedding"}
        ]
    for name in wanted:
        if name not in features or name in _PIXELS:
            raise UserError(f"The data has no column {name!r} to copy: it has {list(features)}.")
    return list(wanted)


def _claim(output: Path, job: Job) -> None:
    """Writes the manifest of a new folder; refuses that of another job."""
    path = output / MANIFEST
    mine = dataclasses.asdict(job)
    if path.is_file():
        theirs = json.loads(path.read_text(encoding="utf-8"))["job"]
        changed = [key for key, value in mine.items() if theirs.get(key) != value]
        if changed:
            raise UserError(
                f"{output} holds other embeddings ({', '.join(changed)} differ): choose another "
                "folder."
            )
        return
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} is not empty and holds no embeddings: choose another folder.")
    (output / "data").mkdir(parents=True, exist_ok=True)
    _write_json(path, {"job": mine})


def _shard(output: Path, job: Job, number: int) -> Path:
    return output / "data" / f"{job.split}-{number:05d}-of-{job.shards:05d}.parquet"


def _span(job: Job, number: int) -> range:
    start = number * job.shard_rows
    return range(start, min(start + job.shard_rows, job.rows))


def _embedded(
    part: Any,
    start: int,
    reader: Any,
    encoder: Encoder,
    job: Job,
    light: list[str],
    batch_size: int,
    strict: bool,
    bar: Any,
) -> Iterator[tuple[list[int], np.ndarray, dict[str, list]]]:
    """Row numbers, embeddings (B, D) and light columns, a batch at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from ..data.cache import num_threads
    from ..data.columns import BandArray, CorruptImageError

    if isinstance(reader.feature, BandArray):
        part = part.with_format("numpy")  # else pixels come as lists, far slower

    def read(row: dict) -> np.ndarray | str:
        try:
            return reader(row)
        except CorruptImageError as error:
            return str(error)

    with ThreadPoolExecutor(num_threads()) as pool:
        for first in range(0, len(part), batch_size):
            rows = [part[i] for i in range(first, min(first + batch_size, len(part)))]
            images = list(pool.map(read, rows))
            good: dict[int, np.ndarray] = {}
            for i, image in enumerate(images):
                number = start + first + i
                if isinstance(image, str):
                    if strict:
                        raise UserError(
                            f"The image in row {number} cannot be read ({image}): repair it."
                        )
                    bar.write(f"row {number} left out: {image}", file=sys.stderr)
                else:
                    _check_range(image, encoder, number)
                    good[i] = image
            bar.update(len(rows))
            if good:
                vectors = _features(list(good.values()), encoder, job.size)
                beside = {name: [rows[i][name] for i in good] for name in light}
                yield [start + first + i for i in good], vectors.astype(job.dtype), beside


def _check_range(image: np.ndarray, encoder: Encoder, row: int) -> None:
    full_scale = 255 if image.dtype == np.uint8 else 10_000  # as the image cache has it
    if image.dtype not in (np.uint8, np.uint16) or full_scale != encoder.value_range[1]:
        raise UserError(
            f"{encoder.name or 'The encoder'} was trained on stored values up to "
            f"{encoder.value_range[1]:g}, but the image in row {row} is {image.dtype}: convert the "
            "data."
        )


def _features(images: list[np.ndarray], encoder: Encoder, size: int) -> np.ndarray:
    """(N, D) features of images that may differ in size."""
    import torch

    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(i)
    device = next(encoder.model.parameters()).device
    out: np.ndarray | None = None
    for places in by_shape.values():
        stacked = np.ascontiguousarray(np.stack([images[i] for i in places]))  # (B, H, W, C)
        batch: torch.Tensor = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
        with torch.inference_mode():
            vectors = encoder(batch, size=size).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise UserError(f"Features of {encoder.name or 'the encoder'} are NaN or infinite.")
        out = np.empty((len(images), vectors.shape[1]), np.float32) if out is None else out
        out[places] = vectors
    assert out is not None
    return out


def _write_shard(
    path: Path, blocks: Any, features: Any, light: list[str], encoder: Encoder, job: Job
) -> None:
    """Writes a file beside and renames it into place."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, List, Value

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    writer = None
    try:
        for numbers, vectors, beside in blocks:
            if writer is None:
                kinds = Features(
                    {
                        "row": Value("int64"),
                        "embedding": List(Value(job.dtype), length=vectors.shape[1]),
                        **{name: features[name] for name in light},
                    }
                )
                writer = pq.ParquetWriter(partial, kinds.arrow_schema)
            flat = pa.array(vectors.reshape(-1))
            table: pa.Table = pa.table(
                [
                    pa.array(numbers, pa.int64()),
                    pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
                    *(pa.array(beside[name], writer.schema.field(name).type) for name in light),
                ],
                schema=writer.schema,
            )
            writer.write_table(table)
        if writer is None:
            raise UserError(f"None of the images for {path.name} can be read.")
    finally:
        if writer is not None:
            writer.close()
    partial.replace(path)


def _finish(output: Path, job: Job) -> tuple[int, int]:
    """Completes the manifest; rows and images left out."""
    import pyarrow.parquet as pq

    counts = {
        path.name: pq.read_metadata(path).num_rows
        for path in (_shard(output, job, number) for number in range(job.shards))
    }
    rows = sum(counts.values())
    content = {"job": dataclasses.asdict(job), "rows": rows, "skipped": job.rows - rows}
    _write_json(output / MANIFEST, {**content, "shards": counts})
    return rows, job.rows - rows


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
