"""The card of an embeddings table, with the metadata that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Tells a card of ours, which is rendered anew, from one that a person wrote.
_MARK = "<!-- rendered by rs-models embed -->"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
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
# No `configs`, which the names of the files make superfluous: with them `load_dataset` keeps one
# cached copy for all folders of a name, and shows that in place of what lies there.
_CARD = """\
---
pretty_name: Embeddings of {title}
size_categories: [{size}]
tags: [remote-sensing, earth-observation, embeddings]
---

{mark}

# Embeddings of {data}

{rows:,} vectors of {width} numbers ({dtype}), one an image of `{data}` (`{split}`), made by
`{model}` (revision `{model_revision}`) from the bands {bands} at {size_px} pixels.

| column | is |
|---|---|
{columns}

```python
from datasets import load_dataset

table = load_dataset("path/to/this/folder", split="{split}").with_format("numpy")
```

The terms of the images and of the model hold for their embeddings too: look them up before you
publish.
"""


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
    scale = ["scale"] if job["dtype"] == "int8" else []
    columns = [
        f"| `{name}` | {_COLUMNS.get(name, 'as in the data')} |"
        for name in ("row", "embedding", *scale, *beside)
    ]
    return _CARD.format(
        **{key: job[key] for key in ("data", "split", "dtype", "model", "model_revision")},
        title=str(job["data"]).replace(":", " "),
        size=next((name for limit, name in _SIZES if rows < limit), "1M<n<10M"),
        mark=_MARK,
        rows=rows,
        width=width,
        bands=", ".join(job["bands"]),
        size_px=job["size"],
        columns="\n".join(columns),
    )
