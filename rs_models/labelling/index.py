"""A table of embeddings, opened once and searched by brute force.

Parquet cannot be memory-mapped row by row, so the vectors are kept once more beside it as one
float16 array; opening it again reads nothing. A search of a million vectors of 512 numbers reads
that array once, at the speed of memory, and is exact.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError, first_line
from ..files import complete, read_job
from .vectors import BLOCK, blocks, check_shards, memory_map, picture, whitening_of

if TYPE_CHECKING:
    import pyarrow as pa

    from ..evaluation.features import Encoder
    from ..evaluation.readout import Whitening

MANIFEST = "embeddings.json"
# What is read here of a table's record, in its job and beside it, and as what.
_JOB = {"model": str, "data": str, "split": str, "size": int, "model_revision": str | None}
_BESIDE = {"model": str | None, "source": str | None}
STAGES = "stages"  # what a table of `embed --stages` says of its vectors
# Columns that name a tile to a person, the best first.
NAMES = ("file", "file_name", "path")


class Index:
    """The vectors of a table with the names of their tiles.

    Args:
        vectors: (N, D) embeddings; an array in memory or a memory map, float16 or float32.
        table: The table's other columns, N rows.
        folder: Where the table lies; None for one in memory.

    Attributes:
        vectors: (N, D).
        table: `pyarrow.Table` without the embeddings.
        folder: Where the table lies.

    Example:
        >>> import numpy as np
        >>> index = Index.of(np.eye(4, dtype="float32"), names=["a", "b", "c", "d"])
        >>> rows, cosines = index.nearest(index.vectors[2], k=1)
        >>> index.names[rows[0]], float(cosines[0])
        ('c', 1.0)
    """

    def __init__(self, vectors: np.ndarray, table: pa.Table, folder: Path | None = None) -> None:
        """Holds the parts; `open` and `of` make them."""
        self.vectors = vectors
        self.table = table
        self.folder = folder

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of(cls, vectors: np.ndarray, names: Sequence[str] | None = None) -> Index:
        """Makes an index of vectors in memory.

        Args:
            vectors: (N, D) embeddings.
            names: Names of the tiles; None calls them by their numbers.
        """
        import pyarrow as pa

        columns: dict[str, Any] = {"row": np.arange(len(vectors))}
        if names is not None:
            columns["file"] = list(names)
        return cls(np.asarray(vectors), pa.table(columns))

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Index:
        """Opens the table of `rs-models embed`; the first time its vectors are copied out of it.

        Args:
            folder: The output of `embed`.

        Raises:
            UserError: No such table, one that is not finished or damaged, or vectors that are not
                finite.
        """
        import pyarrow.parquet as pq

        folder = Path(folder)
        files = complete(folder / "data", "*.parquet")
        if not files:
            raise UserError(
                f"{folder} holds no table of embeddings: make one with 'rs-models embed IMAGES "
                f"--model MODEL --output {folder}'."
            )
        manifest = read_job(folder, MANIFEST)
        if manifest is not None and "shards" not in manifest:
            raise UserError(f"The table {folder} is not finished: run its 'rs-models embed' again.")
        is_staged = manifest is not None and manifest["job"].get("readout") == STAGES
        with _whole(folder):
            check_shards(folder, files, manifest)
            schema = pq.read_schema(files[0])
            if "embedding" not in schema.names:
                raise UserError(f"{files[0]} has no column 'embedding': give the output of embed.")
            vectors = memory_map(folder, files, whiten=is_staged)
            light = [name for name in schema.names if name != "embedding"]
            table = pq.ParquetDataset(files).read(columns=light)
        return cls(vectors, table, folder)

    @cached_property
    def names(self) -> list[str]:
        """What each tile is called: its file, or the number of its row."""
        for column in NAMES:
            if column in self.table.column_names:
                return [str(name) for name in self.table[column].to_pylist()]
        return list(self._rows_by_number)

    @cached_property
    def _norms(self) -> np.ndarray:
        """Length of each vector, (N,) float32; 1 for a vector of zeros."""
        lengths = np.empty(len(self), np.float32)
        for rows, block in blocks(self.vectors):
            lengths[rows] = block.norm(dim=1).numpy()
        return np.where(lengths > 0, lengths, 1).astype(np.float32)

    @cached_property
    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each of the D numbers over the whole table, (D,) float32."""
        total = np.zeros(self.vectors.shape[1])
        squares = np.zeros(self.vectors.shape[1])
        for start in range(0, len(self), BLOCK):
            block = self.vectors[start : start + BLOCK].astype(np.float64)
            total += block.sum(0)
            squares += np.square(block).sum(0)
        mean = total / len(self)
        deviation = np.sqrt(np.maximum(squares / len(self) - mean**2, 0))
        return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)

    def row_of(self, name: str) -> int | None:
        """The row of a tile by its name, or by the end of its path where that is one tile's alone.

        Raises:
            UserError: Several tiles of that name.
        """
        return self._rows_by_name.get(name, self._row_by_end(name))

    def row_numbered(self, name: str) -> int | None:
        """The row of a tile by its number in the table's column `row`, else by its name."""
        return self._rows_by_number[name] if name in self._rows_by_number else self.row_of(name)

    @cached_property
    def _rows_by_number(self) -> dict[str, int]:
        has_rows = "row" in self.table.column_names
        numbers = self.table["row"].to_pylist() if has_rows else range(len(self))
        return {str(number): row for row, number in enumerate(numbers)}

    @cached_property
    def _rows_by_name(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def _row_by_end(self, name: str) -> int | None:
        end = Path(name).name
        rows = self._rows_by_end.get(end, [])
        longer = [
            row
            for row in rows
            if name.endswith(f"/{self.names[row]}") or self.names[row].endswith(f"/{name}")
        ]
        if len(longer) > 1:
            shown = ", ".join(self.names[row] for row in longer[:3])
            raise UserError(f"{name} may be {shown}: write more of its path.")
        return longer[0] if longer else None

    @cached_property
    def _rows_by_end(self) -> dict[str, list[int]]:
        ends: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            ends.setdefault(Path(name).name, []).append(row)
        return ends

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Cosine of every vector with the query it is most like, (N,) float32.

        Args:
            queries: (D,) or (Q, D) vectors of any length.
        """
        import torch

        wanted = torch.from_numpy(np.atleast_2d(np.asarray(queries, np.float32)))
        if wanted.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"The table's vectors have {self.vectors.shape[1]} numbers, but the query has "
                f"{wanted.shape[1]}: it is of another model."
            )
        wanted = torch.nn.functional.normalize(wanted, dim=1).T.contiguous()  # (D, Q)
        scores = np.empty(len(self), np.float32)
        for rows, block in blocks(self.vectors):
            scores[rows] = (block @ wanted).amax(1).numpy()
        return scores / self._norms

    def product(self, weight: np.ndarray) -> np.ndarray:
        """Scalar product of every vector with a weight (D,), (N,) float32."""
        import torch

        direction = torch.from_numpy(np.asarray(weight, np.float32))
        products = np.empty(len(self), np.float32)
        for rows, block in blocks(self.vectors):
            products[rows] = (block @ direction).numpy()
        return products

    def nearest(
        self, queries: np.ndarray, k: int = 50, *, without: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tiles most like a query, or like any of several.

        Args:
            queries: (D,) or (Q, D) vectors.
            k: Tiles to find.
            without: Rows to leave out, such as the queries' own.

        Returns:
            Rows, best first, ties by row, and their cosines; fewer than `k` from a small table.
        """
        return best(self.scores(queries), k, without=without)

    def embed(self, file: str | os.PathLike[str]) -> np.ndarray:
        """The vector of a tile that is not in the table, by the table's own model, (D,).

        Raises:
            UserError: A table without its model's name, other weights than it was made with, or a
                file that is no image.
        """
        import torch
        from datasets import Features, Image

        from ..data.columns import CorruptImageError, GeoTiff, RowReader

        path = Path(file)
        if not path.is_file():
            raise UserError(f"There is no tile or file called {path}.")
        encoder = self.encoder
        raster = path.suffix.lower() in (".tif", ".tiff")
        column = GeoTiff(list(encoder.bands)) if raster else Image(decode=False)
        read = RowReader(Features({"image": column}), encoder.bands)
        try:
            image = read({"image": {"bytes": None, "path": str(path)}})
        except (CorruptImageError, OSError) as error:
            raise UserError(f"{path} cannot be read as an image ({error}).") from error
        encoder.preprocessing.check(image, str(path))
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (C, H, W)
        with torch.inference_mode():
            vector = encoder(pixels[None]).float().cpu().numpy()
        return (self._whitening(vector) if self.readout == STAGES else vector)[0]

    @cached_property
    def readout(self) -> str:
        """What the vectors are: "pooled", or "stages" (whitened here)."""
        manifest = read_job(self.folder, MANIFEST) if self.folder is not None else None
        return manifest["job"].get("readout", "pooled") if manifest is not None else "pooled"

    @cached_property
    def _whitening(self) -> Whitening:
        """What the vectors of a table of all stages were whitened by."""
        assert self.folder is not None
        return whitening_of(self.folder, complete(self.folder / "data", "*.parquet"))

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """The record of `embed`: its job, and images and model as they were named to it.

        Raises:
            UserError: A table that does not say how it was made.
        """
        manifest = read_job(self.folder, MANIFEST) if self.folder is not None else None
        if manifest is None:
            raise UserError("The table does not say how it was made: name tiles of the table.")
        for part, kinds in ((manifest["job"], _JOB), (manifest, _BESIDE)):
            for name, kind in kinds.items():
                if not isinstance(part.get(name), kind):
                    raise UserError(
                        f"{self.folder}/{MANIFEST} says {part.get(name)!r:.60} for {name!r}, which "
                        "embed does not write: embed the images again."
                    )
        return manifest

    @cached_property
    def encoder(self) -> Encoder:
        """The model that made the table.

        Raises:
            UserError: It is not named, cannot be loaded, or has other weights now.
        """
        from ..evaluation.features import Encoder
        from ..evaluation.loading import load_encoder
        from ..evaluation.readout import SCALES, at_all_stages

        job = self.made_from["job"]
        name = self.made_from.get("model") or job["model"]
        encoder = load_encoder(name, size=job["size"])
        told = encoder.revision if isinstance(encoder, Encoder) else None
        if told not in (None, "unknown", job["model_revision"]):
            raise UserError(
                f"{name} has other weights now than those that made {self.folder}: embed the "
                "images again."
            )
        assert isinstance(encoder, Encoder)
        return at_all_stages(encoder, SCALES) if self.readout == STAGES else encoder

    def pictures(self, rows: Iterable[int], source: str | None = None) -> list[np.ndarray]:
        """Red, green and blue of some tiles, (H, W, 3) uint8 each.

        Args:
            rows: Places of the tiles in the table.
            source: Where the images are; None takes where they were embedded from.

        Raises:
            UserError: Images that are not there any more.
        """
        from concurrent.futures import ThreadPoolExecutor

        from ..evaluation.pile import open_pile

        job, bands = self.made_from["job"], self.encoder.bands
        where = source or self.made_from.get("source") or job["data"]
        pile: Any = open_pile(
            where, bands, columns=None, split=job["split"], revision=None, side=job["size"]
        )
        wanted = [int(row) for row in rows]
        self._arrange(pile, where, wanted)
        pictures = []
        with ThreadPoolExecutor(1) as pool:
            for row in wanted:
                (item,) = next(pile.read(range(row, row + 1), pool, 1))
                if isinstance(item.image, str):
                    raise UserError(f"{self.names[row]} cannot be read: {item.image}.")
                pictures.append(picture(item.image, bands))
        return pictures

    def _arrange(self, pile: Any, where: str, rows: Sequence[int]) -> None:
        """Brings images into the table's order, in which files that were added later come last.

        Raises:
            UserError: A picture of one of the rows is not there any more.
        """
        paths = getattr(pile, "paths", None)
        if paths is None or "file" not in self.table.column_names:
            if len(pile) < len(self):
                raise UserError(
                    f"{where} holds {len(pile)} images, fewer than the {len(self)} that the table "
                    "was made from: name their folder with --images."
                )
            return
        places = {file: number for number, file in enumerate(paths)}
        gone = [self.names[row] for row in rows if self.names[row] not in places]
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise UserError(
                f"{where} does not hold {gone[0]}{more} any more, of which pictures were asked: "
                "name the folder that does with --images."
            )
        pile.order = np.array([places.get(name, 0) for name in self.names], np.int64)


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Tells that a table is damaged, where its files cannot be read as one."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the system, which says what it is
            raise
        raise UserError(
            f"The table {folder} is damaged ({first_line(error)}): embed the images again."
        ) from error


def best(
    scores: np.ndarray, k: int, *, without: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the highest scores, best first, ties by row, and their scores."""
    if k < 1:
        raise UserError(f"{k} tiles are asked for: ask for one or more.")
    scores = np.array(scores, np.float32)
    scores[list(without)] = -np.inf
    k = min(k, len(scores) - len(set(without)))
    if k < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= least)  # all that tie with the last one
    rows = rows[np.lexsort((rows, -scores[rows]))][:k]
    return rows, scores[rows]
