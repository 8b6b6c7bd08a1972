"""A conversion from the owners' files to a Parquet repository with card and checksums."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import new_folder, sha256
from ...settings import progress_bar
from .card import dataset_card
from .items import Inventory, Item, rows_of, take_stock
from .layouts import LAYOUTS, Layout
from .problems import BadFile, Problem
from .source import checksums, gather
from .splits import assign

SHARD_BYTES = 400 * 2**20
_ROW_GROUP = 100
_UNPACKED = ".unpacked"  # archives, beside what is made of them until it is done


@dataclass
class Converted:
    """What a conversion made.

    Attributes:
        output: Folder that was written.
        rows: Split -> rows.
        problems: Files left out, and other things amiss.
        expected: Images in all, as the owners state it; None where they do not.
        images: Number of images that could be used.
    """

    output: str
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    expected: int | None = None
    images: int = 0


def convert(
    name: str,
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    strict: bool = False,
    seed: int = 0,
    splits: str | os.PathLike[str] | None = None,
    window: int | None = None,
    per_class: int | None = None,
    note: str = "",
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> Converted:
    """Makes a data set repository: Parquet, card, splits, checksums, report.

    The same files give the same bytes, wherever they lie. The folder is made beside and renamed
    into place.

    Args:
        name: Name of the layout, a key of `LAYOUTS`.
        sources: Archives or folders, one or several.
        output: Folder to write.
        strict: Stop when anything is amiss instead of leaving it out and counting it.
        seed: Seed of a split that is drawn.
        splits: `splits.json` of an earlier conversion to follow.
        window: Side in pixels that images with masks are cut to; None is the layout's.
        per_class: Number of scenes of a class that are kept, drawn by `seed`; None keeps all.
        note: Sentences for the card: what was done to the files before.
        shard_bytes: Size of a Parquet file, roughly.
        progress: Show a progress bar.

    Returns:
        What was made.

    Raises:
        UserError: Unknown name, an output that exists, unusable sources, nothing that fits the
            layout, or with `strict` anything amiss.
    """
    layout, output = _layout(name, per_class, note), Path(output)
    with new_folder(output) as partial:
        scratch = partial / _UNPACKED
        stock = take_stock(layout, gather(sources, scratch))
        if not stock.items:
            raise UserError(_nothing(layout, sources, stock))
        if strict:
            _refuse(stock.problems)
        chosen, told = assign(layout, stock.items, seed=seed, stored=splits, per_class=per_class)
        cut = window or layout.window if layout.task == "segmentation" else None
        done = Converted(str(output), problems=stock.problems, expected=layout.total)
        bar = progress_bar(sum(map(len, chosen.values())), "converting", "image", shown=progress)
        writer = _Writer(partial, layout, stock, cut, strict, shard_bytes, bar)
        with bar:
            counts = {split: writer.write(split, items) for split, items in chosen.items()}
        done.rows = {split: count for split, count in counts.items() if count}
        done.problems += writer.problems
        done.images = writer.images
        if strict:
            _refuse(done.problems)
        _write_json(partial / "splits.json", _without(told, writer.left_out))
        hashes = {path.name: sha256(path) for path in sorted(partial.glob("data/*.parquet"))}
        _write_json(
            partial / "checksums.json",
            {
                "archives": checksums(sources),
                "shards": hashes,
                "images": _images(stock, chosen if per_class else None),
            },
        )
        _write_json(
            partial / "report.json",
            {
                "images": done.images,
                "expected": done.expected,
                "rows": done.rows,
                "left_out": [str(problem) for problem in done.problems],
            },
        )
        if not done.rows:
            raise UserError(f"None of the images can be used ({done.problems[-1]}).")
        card = dataset_card(layout, stock.classes, writer.info(done.rows), told, writer.counts, cut)
        (partial / "README.md").write_text(card, encoding="utf-8")
        shutil.rmtree(scratch, ignore_errors=True)
    return done


def _layout(name: str, per_class: int | None, note: str) -> Layout:
    """The row of a data set, with what is particular to this conversion.

    Raises:
        UserError: An unknown name, or a number of images that makes no sense for it.
    """
    if name not in LAYOUTS:
        raise UserError(f"{name!r} is no data set that is known: {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[name]
    if per_class is not None:
        if layout.task != "scenes":
            raise UserError(f"{layout.title} has no class an image: leave out --per-class.")
        layout = replace(layout, title=f"{layout.title}, a slice", total=None)
    return replace(layout, note=" ".join(filter(None, [layout.note, note])))


def _images(stock: Inventory, chosen: dict[str, list[Item]] | None) -> dict[str, str]:
    """Hashes of the image files, of a slice those that were kept."""
    if chosen is None:
        return stock.checksums
    return {item.key: stock.checksums[item.key] for items in chosen.values() for item in items}


def _nothing(layout: Layout, sources: Sequence[Any], stock: Inventory) -> str:
    places = ", ".join(str(source) for source in sources)
    first = f" ({stock.problems[0]})" if stock.problems else ""
    return f"Nothing in {places} lies as {layout.title} is distributed{first}."


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        shown = "; ".join(map(str, problems[:20]))
        more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UserError(f"{len(problems)} things are amiss: {shown}{more}.")


def _without(told: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    """The splits' names, less the images that could not be used."""
    from .items import digest

    for said in told["splits"].values():
        said["files"] = [key for key in said["files"] if key not in left_out]
        said["sha256"] = digest(said["files"])
    return told


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class _Writer:
    """Writes the Parquet files of all splits, a hundred rows at a time."""

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        stock: Inventory,
        window: int | None,
        strict: bool,
        shard_bytes: int,
        bar: Any,
    ) -> None:
        self.folder, self.layout, self.window = folder, layout, window
        self.classes, self.strict = stock.classes, strict
        self.shard_bytes, self.bar = shard_bytes, bar
        self.problems: list[Problem] = []
        self.left_out: set[str] = set()
        self.counts: dict[str, int] = dict.fromkeys(self.classes, 0)
        self.images = 0
        self.features: Any = None
        self.bytes: dict[str, int] = {}
        (folder / "data").mkdir()

    def write(self, split: str, items: Sequence[Item]) -> int:
        """One split; the number of rows."""
        import pyarrow.parquet as pq

        total, shards, block, size, writer = 0, 0, [], 0, None
        self.bytes[split] = 0
        for row in self._rows(items):
            features = self.features = self.features or self._features(row)
            encoded = features.encode_example(row)
            block.append(encoded)
            size += _weight(encoded)
            self.bytes[split] += _weight(encoded)
            if writer is None:
                path = self.folder / "data" / f"{split}-{shards:05d}.parquet"
                writer = pq.ParquetWriter(path, features.arrow_schema)
            full = size >= self.shard_bytes
            if full or len(block) == _ROW_GROUP:
                _flush(writer, block, features)
                total, block = total + len(block), []
            if full:
                writer.close()
                writer, size, shards = None, 0, shards + 1
        if writer is not None:
            if block:
                _flush(writer, block, self.features)
                total += len(block)
            writer.close()
            shards += 1
        for number in range(shards):
            old = self.folder / "data" / f"{split}-{number:05d}.parquet"
            old.rename(old.with_name(f"{split}-{number:05d}-of-{shards:05d}.parquet"))
        return total

    def info(self, rows: dict[str, int]) -> Any:
        """Columns and sizes, for the card. `datasets` tells caches of local folders apart by it."""
        from datasets import DatasetInfo, SplitDict, SplitInfo

        splits = SplitDict()
        for split, count in rows.items():
            splits.add(SplitInfo(split, num_bytes=self.bytes[split], num_examples=count))
        files = sum(path.stat().st_size for path in (self.folder / "data").iterdir())
        return DatasetInfo(
            features=self.features,
            splits=splits,
            download_size=files,
            dataset_size=sum(self.bytes[split] for split in rows),
        )

    def _rows(self, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
        for item in items:
            self.bar.update()
            try:
                rows = list(rows_of(self.layout, item, self.window))
            except BadFile as error:
                self.problems.append(Problem(item.key, str(error)))
                self.left_out.add(item.key)
                if self.strict:
                    _refuse(self.problems)
                continue
            self.images += 1
            self._count(rows)
            yield from rows

    def _count(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            if "label" in row:
                self.counts[self.classes[row["label"]]] += 1
            for category in row.get("objects", {}).get("category", ()):
                self.counts[self.classes[category]] += 1

    def _features(self, row: dict[str, Any]) -> Any:
        from datasets import Array3D, ClassLabel, Features, Image, List, Value

        label = ClassLabel(names=self.classes)
        objects = {"bbox": List(List(Value("float32"), length=4)), "category": List(label)}
        if "polygon" in row.get("objects", {}):
            objects["polygon"] = List(List(Value("float32"), length=8))
            objects["difficult"] = List(Value("bool"))
        array = getattr(row["image"], "shape", None)
        kinds = {
            "image": Array3D(array, "uint16") if array else Image(),
            "nir": Image(),
            "mask": Image(),
            "label": label,
            "objects": objects,
            "file_name": Value("string"),
            "scene": Value("string"),
            "x": Value("int32"),
            "y": Value("int32"),
        }
        return Features({key: kind for key, kind in kinds.items() if key in row})


def _weight(row: dict[str, Any]) -> int:
    """Bytes of a row's pixels."""
    return sum(
        len(value["bytes"] or b"")
        if isinstance(value, dict) and "bytes" in value
        else getattr(value, "nbytes", 0)
        for value in row.values()
    )


def _flush(writer: Any, block: list[dict[str, Any]], features: Any) -> None:
    from datasets import Dataset

    columns = {key: [row[key] for row in block] for key in features}
    table = Dataset.from_dict(columns, features=features).data.table
    writer.write_table(table.cast(features.arrow_schema), row_group_size=_ROW_GROUP)
