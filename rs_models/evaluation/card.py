"""The card of an embeddings table, with the metadata that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..cards import CardData, markdown_table, render_card, size_category

# Tells a card of ours, which is rendered anew, from one that a person wrote.
_MARK = "<!-- rendered by rs-models embed -->"
_COLUMNS = {
    "row": "place in the table",
    "embedding": "the vector",
    "scale": "`embedding * scale` is the vector",
    "file": "image file, below the folder that was embedded",
    "top": "first line of the tile in its scene",
    "left": "first column of the tile in its scene",
    "x": "centre of the tile, in `crs`",
    "y": "centre of the tile, in `crs`",
    "crs": "coordinate system of the tile",
    "geometry": "outline in longitude and latitude (GeoParquet, WKB)",
}


@dataclass(frozen=True, kw_only=True)
class EmbeddingsCard(CardData):
    """What the card of an embeddings table is filled from.

    Attributes:
        template: Template of this kind of card.
        mark: Mark that tells a card of ours.
        rows: Number of vectors.
        width: Numbers of a vector.
        dtype: Data type of the stored numbers.
        data: The data set, as it was named.
        split: Split of the data set, and of the table.
        model: Model that made the vectors.
        revision: Revision of the model.
        bands: Bands that the model saw, in their order.
        size: Side of the images that the model saw, in pixels.
        stages: Whether the vectors are of all its stages, see `readout`.
        columns: Table of the columns, Markdown.
    """

    template: ClassVar[str] = "embeddings_card.md.j2"
    mark: str
    rows: int
    width: int
    dtype: str
    data: str
    split: str
    model: str
    revision: str
    bands: list[str]
    size: int
    stages: bool
    columns: str


def is_ours(card: str) -> bool:
    """Whether a card was rendered here, so that it may be rendered anew."""
    return _MARK in card


def table_card(job: Mapping[str, Any], rows: int, width: int, beside: Sequence[str]) -> str:
    """README.md of a table.

    Args:
        job: What the table holds, see `embed.Job`.
        rows: Number of vectors.
        width: Numbers of a vector.
        beside: Names of the columns beside the vectors.
    """
    from huggingface_hub import DatasetCardData

    scale = ["scale"] if job["dtype"] == "int8" else []
    columns = [
        (f"`{name}`", _COLUMNS.get(name, "as in the data"))
        for name in ("row", "embedding", *scale, *beside)
    ]
    # No `configs`, which the names of the files make superfluous: with them `load_dataset` keeps
    # one cached copy for all folders of a name, and shows that in place of what lies there.
    metadata = DatasetCardData(
        pretty_name=f"Embeddings of {job['data']}",
        size_categories=[size_category(rows)],
        tags=["remote-sensing", "earth-observation", "embeddings"],
    )
    return render_card(
        EmbeddingsCard(
            metadata=metadata,
            name=f"Embeddings of {job['data']}",
            mark=_MARK,
            rows=rows,
            width=width,
            dtype=job["dtype"],
            data=job["data"],
            split=job["split"],
            model=job["model"],
            revision=job["model_revision"],
            bands=list(job["bands"]),
            size=job["size"],
            stages=job.get("readout") == "stages",
            columns=markdown_table(("column", "is"), columns),
        )
    )
