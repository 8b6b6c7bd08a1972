"""The card of a converted data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...cards import CardData, markdown_table, render_card, size_category
from .layouts import Layout

_TASKS = {
    "scenes": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
}
# What of a class is counted; of masks nothing.
_UNITS = {"scenes": "images", "detection": "objects"}


@dataclass(frozen=True, kw_only=True)
class DatasetCard(CardData):
    """What the card of a converted data set is filled from.

    Attributes:
        template: File name of the template.
        layout: The data set, as the command takes it.
        citation: Paper to cite.
        homepage: The owners' page; empty where none is known.
        note: What else to know; may be empty.
        bands: Bands in the order in which they are stored.
        window: Side that tiles were cut to; None where none were cut.
        masks: Whether the rows have masks.
        splits: Names of the splits, in their order.
        rows: Table of the splits' rows, Markdown.
        rule: How the splits were made.
        seed: Seed of the splits; None where nothing was drawn.
        classes: Table of the classes, Markdown.
        terms: Terms of use, in a sentence.
    """

    template: ClassVar[str] = "dataset_card.md.j2"
    layout: str
    citation: str
    homepage: str
    note: str
    bands: Sequence[str]
    window: int | None
    masks: bool
    splits: list[str]
    rows: str
    rule: str
    seed: int | None
    classes: str
    terms: str


def dataset_card(
    layout: Layout,
    classes: Sequence[str],
    info: Any,
    told: Mapping[str, Any],
    counts: Mapping[str, int],
    window: int | None,
) -> str:
    """README.md with the metadata that the Hub reads.

    Args:
        layout: The data set's layout.
        classes: In the order of their numbers.
        info: `datasets.DatasetInfo` with features and splits.
        told: Contents of splits.json.
        counts: Class -> images or objects; zeros where nothing is counted.
        window: Side that tiles were cut to; None where they were not.
    """
    rows = {split: said.num_examples for split, said in info.splits.items()}
    unit = _UNITS.get(layout.task)
    numbered = [
        [str(number), name, *([str(counts[name])] if unit else [])]
        for number, name in enumerate(classes)
    ]
    return render_card(
        DatasetCard(
            metadata=_metadata(layout, info, rows),
            name=layout.title,
            layout=layout.name,
            citation=layout.citation,
            homepage=layout.homepage,
            note=layout.note,
            bands=layout.stored_bands or layout.bands,
            window=window,
            masks=layout.task == "segmentation",
            splits=list(rows),
            rows=markdown_table(("split", "rows"), [(s, str(n)) for s, n in rows.items()]),
            rule=told["rule"],
            seed=told["seed"],
            classes=markdown_table(["number", "class", *([unit] if unit else [])], numbered),
            terms=layout.terms,
        )
    )


def _metadata(layout: Layout, info: Any, rows: Mapping[str, int]) -> Any:
    """The front matter, with the features and splits that the viewer shows."""
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    own = layout.licence == "other"
    data = DatasetCardData(
        license=layout.licence,
        license_name=f"{layout.name}-terms" if own else None,
        license_link=(layout.homepage or None) if own else None,
        pretty_name=layout.title,
        task_categories=[_TASKS[layout.task]],
        size_categories=[size_category(sum(rows.values()))],
        tags=["remote-sensing", "earth-observation", layout.task],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": s, "path": f"data/{s}-*.parquet"} for s in rows],
            }
        ],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return data
