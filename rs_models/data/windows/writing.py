"""Windows as a data set: Parquet shards and a card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from ...cards import CardData, markdown_table, render_card
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


@dataclass(frozen=True, kw_only=True)
class WindowsCard(CardData):
    """What the card of a data set of windows is filled from.

    Attributes:
        template: Template of this kind of card.
        size: Side of a window, in pixels.
        scenes: Name of the scenes' file or folder.
        labels: Name of the labels' file.
        field: Property that names the class.
        rows: Windows of each split, in words.
        block: Side of a block that belongs to one split as a whole, in windows.
        seed: Seed of the splits.
        masks: Whether the rows have masks.
        classes: Table of the classes, Markdown.
    """

    template: ClassVar[str] = "windows_card.md.j2"
    size: int
    scenes: str
    labels: str
    field: str
    rows: str
    block: int
    seed: int
    masks: bool
    classes: str


def card(result: Windows, scenes: str | Path, labels: str | Path, settings: WindowSettings) -> str:
    """The data set's card: what it holds, how it was made, and its classes."""
    from huggingface_hub import DatasetCardData

    what = {"segmentation": "image-segmentation", "detection": "object-detection"}[settings.task]
    unit = {"segmentation": "pixels", "detection": "boxes"}[settings.task]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in result.rows]
    classes = [
        [str(number), name, *(f"{result.counts[split][name]:,}" for split in result.rows)]
        for number, name in enumerate(result.classes)
    ]
    metadata = DatasetCardData(
        task_categories=[what],
        tags=["remote-sensing", "earth-observation"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    titles = ["number", "class", *(f"{unit}, {split}" for split in result.rows)]
    return render_card(
        WindowsCard(
            metadata=metadata,
            name=Path(result.output).name,
            size=settings.size,
            scenes=Path(scenes).name,
            labels=Path(labels).name,
            field=settings.field,
            rows=", ".join(f"{split} {count}" for split, count in result.rows.items()),
            block=settings.block,
            seed=settings.seed,
            masks=settings.task == "segmentation",
            classes=markdown_table(titles, classes),
        )
    )
