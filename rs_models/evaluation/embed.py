"""`rs-models embed`: the features of many images as a Parquet data set.

Rows are read, embedded and written shard by shard, so millions of them need the memory of one
batch; a finished shard is never computed again, and files that are added to a folder later are
embedded behind the others. Under accelerate every process takes its own shards, and what is written
does not depend on how many processes there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import claim, read_job, write_json, write_text
from ..settings import progress_bar
from .card import is_ours, table_card
from .locations import Listing
from .pile import Pile, open_pile
from .processes import processes
from .shards import DTYPES, Shard, Writer, shards_of

if TYPE_CHECKING:
    from .features import Encoder

SHARD_ROWS = 4096
MANIFEST = "embeddings.json"
LISTING = "files.parquet"
# Of the columns: tables of the first kind have no files and places, and go on without.
_LAYOUT = 2


@dataclass(frozen=True)
class Job:
    """What an output folder holds; the same job may go on in it, another may not.

    Attributes:
        model: Name of the encoder.
        model_revision: Its commit, or a hash of its weights.
        data: Name of the data set.
        split: Split of the data set.
        data_revision: Commit, or a fingerprint, of the data set; None of a folder of files, to
            which more may come.
        bands: Bands that are read.
        size: Pixels that images are brought to.
        dtype: One of `shards.DTYPES`.
        rows: Rows of the split; None of a folder of files.
        shard_rows: Rows of a shard.
        layout: Kind of the table's columns.
        readout: "pooled", or "stages": means of all stages at two sizes.
    """

    model: str
    model_revision: str
    data: str
    split: str
    data_revision: str | None
    bands: list[str]
    size: int
    dtype: str
    rows: int | None
    shard_rows: int
    layout: int = _LAYOUT
    readout: str = "pooled"

    def record(self) -> dict[str, Any]:
        """As it is kept in the folder."""
        record = dataclasses.asdict(self)
        if self.layout == 1:  # which the first kind does not say
            del record["layout"]
        if self.readout == "pooled":  # which earlier tables do not say
            del record["readout"]
        return record


@dataclass(frozen=True)
class Embedded:
    """What was done.

    Attributes:
        output: Folder.
        rows: Rows with an embedding, in all shards.
        skipped: Images that could not be read, in all shards.
        shards: Shards in the folder.
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
    stages: bool = False,
    progress: bool = True,
) -> Embedded:
    """Writes the pooled features of every image of a data set.

    A row of the result: `row` (its place in the table, which for a data set that does not grow is
    its number there), `embedding` (list of D numbers; of int8 `scale` brings them back), the
    source's light columns (label, ...), `file` where the images are files (below the source's
    folder), and of georeferenced tiles `x`, `y` (of the centre, in the tile's `crs`) and
    `geometry` (the outline in longitude and latitude: GeoParquet). A single raster file is cut
    into tiles of `size`, a row each, with `top` and `left` in pixels.

    Args:
        source: Data set, as for `rs_models.data.load`, or a raster file.
        model: An encoder or the name of one, as for `evaluation.loading.load_encoder`.
        output: Folder to write: `data/<split>-*.parquet`, a manifest and a card.
        split: Split of the source.
        revision: Revision of a data set on the Hub.
        batch_size: Images at a time.
        size: Pixels that images are brought to; None is the model's training size.
        dtype: "float32", "float16" or "int8".
        columns: Columns to copy and no others; None copies all that hold no pixels.
        strict: Stop at an image that cannot be read instead of leaving it out and counting it.
        shard_rows: Rows in a file.
        stages: Keep the means of all stages, read at two sizes, in place of the last one's (see
            `evaluation.readout`): more numbers, which tell more with few labels.
        progress: Show a progress bar.

    Returns:
        What was done.

    Raises:
        UserError: Unknown model, data or column, missing bands, another value range, files that
            were changed, or an output that holds another job or is being written to.
    """
    if dtype not in DTYPES:
        raise UserError(f"Embeddings are stored as {', '.join(DTYPES)}, not as {dtype!r}.")
    state, output = processes(), Path(output)
    named = model if isinstance(model, str) else model.name or ""
    encoder = _encoder(model, size, stages)
    side = size or encoder.train_size
    with state.main_process_first():  # one process downloads, the others find it
        pile = open_pile(
            str(source), encoder.bands, side=side, columns=columns, split=split, revision=revision
        )
    job = _job(pile, encoder, str(model), split, side, dtype, shard_rows, output)
    holding = (
        claim(output, job.record(), record=MANIFEST, adopts=_begun)
        if state.is_main_process
        else contextlib.nullcontext()
    )
    with holding:
        if state.is_main_process:
            _prepare(output, pile, job)
        state.wait_for_everyone()
        shards = _shards(output, pile, job)
        mine = shards[state.process_index :: state.num_processes]
        missing = [shard for shard in mine if _there(output, job, shard) is None]
        quiet = not progress or not state.is_main_process
        encoder.model.eval().to(state.device)
        with _bar(missing, quiet) as bar:
            about = {"data": job.data, "data_revision": job.data_revision, "split": split}
            writer = Writer(pile, encoder, side, dtype, batch_size, strict, about, bar)
            for shard in missing:
                writer.write(_place(output, job, shard, len(shards)), shard)
        state.wait_for_everyone()
        first = state.is_main_process
        done = _finish(output, job, shards, str(source), named, pile) if first else (0, 0)
    return Embedded(str(output), *done, len(shards), len(missing))


def _bar(shards: Sequence[Shard], quiet: bool) -> Any:
    total = sum(len(shard.rows) for shard in shards)
    return progress_bar(total, "embedding", "image", shown=not quiet)


def _encoder(model: str | Encoder, size: int | None, stages: bool) -> Encoder:
    from .features import Encoder
    from .loading import load_encoder
    from .readout import SCALES, at_all_stages

    encoder = load_encoder(model, size=size) if isinstance(model, str) else model
    if not isinstance(encoder, Encoder):
        raise UserError(f"{model!r} learns from training images: name a model with weights.")
    if not stages:
        return encoder
    whole = at_all_stages(encoder, SCALES)
    if whole.readout == encoder.readout:
        raise UserError(
            f"The stages of {encoder.name or 'the model'} are not known: embed without --stages, "
            "or name a native backbone."
        )
    return whole


def _job(
    pile: Pile,
    encoder: Encoder,
    model: str,
    split: str,
    side: int,
    dtype: str,
    shard_rows: int,
    output: Path,
) -> Job:
    job = Job(
        model=encoder.name or model,
        model_revision=encoder.revision or "unknown",
        data=pile.name,
        split=split,
        data_revision=pile.revision,
        bands=list(encoder.bands),
        size=side,
        dtype=dtype,
        rows=None if pile.listing else len(pile),
        shard_rows=shard_rows,
        readout=encoder.readout,
    )
    begun = read_job(output, MANIFEST)
    if begun is not None and "layout" not in begun["job"]:
        pile.leave_places_out()
        return dataclasses.replace(job, data_revision=pile.fingerprint, rows=len(pile), layout=1)
    return job


def _begun(output: Path) -> bool:
    """Whether nothing lies there but what an earlier version left that was killed at its start."""
    return all(
        path.name.startswith(".") or (path.name == "data" and not any(path.glob("[!.]*")))
        for path in output.iterdir()
    )


def _prepare(output: Path, pile: Pile, job: Job) -> None:
    """Makes the folder of the shards and keeps which files the table has, before any is read."""
    (output / "data").mkdir(exist_ok=True)
    for left in (output / "data").glob(".*"):  # of earlier versions that were killed
        left.unlink()
    if job.rows is None:
        assert pile.listing is not None
        path = output / LISTING
        listing = Listing.read(path).grown_to(pile.listing) if path.is_file() else pile.listing
        listing.write(path)


def _shards(output: Path, pile: Pile, job: Job) -> list[Shard]:
    if job.rows is not None:
        return shards_of([job.rows], job.shard_rows)
    listing = Listing.read(output / LISTING)
    pile.arrange(listing)
    return shards_of(listing.parts, job.shard_rows)


def _place(output: Path, job: Job, shard: Shard, count: int) -> Path:
    return output / "data" / f"{job.split}-{shard.number:05d}-of-{count:05d}.parquet"


def _there(output: Path, job: Job, shard: Shard) -> Path | None:
    """The file of a finished shard; its name ends in the number of shards of its time."""
    return next((output / "data").glob(f"{job.split}-{shard.number:05d}-of-*.parquet"), None)


def _finish(
    output: Path, job: Job, shards: list[Shard], source: str, model: str, pile: Pile
) -> tuple[int, int]:
    """Completes names, manifest and card; rows and images left out."""
    import pyarrow.parquet as pq

    counts, width = {}, 0
    for shard in shards:
        path, wanted = _there(output, job, shard), _place(output, job, shard, len(shards))
        assert path is not None
        os.replace(path, wanted)
        metadata = pq.read_metadata(wanted)
        counts[wanted.name] = metadata.num_rows
        schema = metadata.schema.to_arrow_schema()
        width = schema.field("embedding").type.list_size
    rows = sum(counts.values())
    skipped = sum(len(shard.rows) for shard in shards) - rows
    content = {
        "job": job.record(),
        "source": source,
        "model": model,
        "rows": rows,
        "skipped": skipped,
        "dimensions": width,
        "shards": counts,
    }
    write_json(output / MANIFEST, content)
    card = output / "README.md"
    if not card.exists() or is_ours(card.read_text(encoding="utf-8")):
        write_text(card, table_card(job.record(), rows, width, list(pile.features)))
    return rows, skipped
