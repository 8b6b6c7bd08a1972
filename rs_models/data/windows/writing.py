"""Windows as a data set: Parquet shards and a card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..parquet import write_parquet
from .settings import Windows, WindowSettings

_SHARD_ROWS = 500


def write_split(
    folder: Path,
    split: str,
    rows: Iterator[dict[str, Any]],
    classes: Sequence[str],
    settings: WindowSettings,
    result: Windows,
) -> None:
    """Writes the rows of a split, and counts them in the result."""
    from datasets import Array3D, ClassLabel, Dataset, Features, Image, List, Value

    count = 0
    while shard := list(islice(rows, _SHARD_ROWS)):
        first = shard[0]["image"]
        kinds: dict[str, Any] = {
            "image": Image() if isinstance(first, dict) else Array3D(first.shape, str(first.dtype)),
            "mask": Image(),
            "objects": {
                "bbox": List(List(Value("float32"), length=4)),
                "category": List(ClassLabel(names=list(classes))),
            },
            "file": Value("string"),
            "x": Value("float64"),
            "y": Value("float64"),
            "crs": Value("string"),
            "longitude": Value("float64"),
            "latitude": Value("float64"),
        }
        features = Features({key: kind for key, kind in kinds.items() if key in shard[0]})
        columns = {key: [row[key] for row in shard] for key in features}
        path = folder / "data" / f"{split}-{count // _SHARD_ROWS:05d}.parquet"
        write_parquet(Dataset.from_dict(columns, features=features), path)
        count += len(shard)
    if count:
        result.rows[split] = count


def card(result: Windows, scenes: str | Path, labels: str | Path, settings: WindowSettings) -> str:
    """The data set's card: what it holds, how it was made, and its classes."""
    what = {"segmentation": "image-segmentation", "detection": "object-detection"}[settings.task]
    unit = {"segmentation": "pixels", "detection": "boxes"}[settings.task]
    files = "\n".join(
        f"  - split: {split}\n    path: data/{split}-*.parquet" for split in result.rows
    )
    lines = [f"| number | class | {' | '.join(f'{unit}, {s}' for s in result.rows)} |"]
    lines.append("|---" * (2 + len(result.rows)) + "|")
    for number, name in enumerate(result.classes):
        amounts = " | ".join(f"{result.counts[split][name]:,}" for split in result.rows)
        lines.append(f"| {number} | {name} | {amounts} |")
    rows = ", ".join(f"{split} {count}" for split, count in result.rows.items())
    ignored = (
        " Pixels of 255 were not labelled, or hold no data." if settings.task != "detection" else ""
    )
    return (
        f"---\ntask_categories:\n- {what}\ntags:\n- remote-sensing\n- earth-observation\nconfigs:\n"
        f"- config_name: default\n  data_files:\n{files}\n---\n\n# {Path(result.output).name}\n\n"
        f"Windows of {settings.size} x {settings.size} pixels of {Path(scenes).name}, with classes "
        f"from the property `{settings.field}` of {Path(labels).name}, made by `rs-models "
        f"windows`. Rows: {rows}. Splits are by place: each block of {settings.block} x "
        f"{settings.block} windows belongs to one of them as a whole (seed {settings.seed})."
        f"{ignored}\n\n" + "\n".join(lines) + "\n"
    )
