"""The card of a converted data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layouts import Layout

_TASKS = {
    "scenes": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


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
        layout: Of the data set.
        classes: In the order of their numbers.
        info: `datasets.DatasetInfo` with features and splits.
        told: Contents of splits.json.
        counts: Class -> images or objects; zeros where nothing is counted.
        window: Side that tiles were cut to; None where they were not.
    """
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    rows = {split: said.num_examples for split, said in info.splits.items()}
    total = sum(rows.values())
    size = next((name for limit, name in _SIZES if total < limit), "1M<n<10M")
    own = layout.licence == "other"
    data = DatasetCardData(
        license=layout.licence,
        license_name=f"{layout.name}-terms" if own else None,
        license_link=(layout.homepage or None) if own else None,
        pretty_name=layout.title,
        task_categories=[_TASKS[layout.task]],
        size_categories=[size],
        tags=["remote-sensing", "earth-observation", layout.task],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": s, "path": f"data/{s}-*.parquet"} for s in rows],
            }
        ],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    unit = {"scenes": "images", "detection": "objects"}.get(layout.task)
    head = f"| number | class |{f' {unit} |' if unit else ''}"
    lines = [head, "|---" * (3 if unit else 2) + "|"]
    for number, name in enumerate(classes):
        lines.append(f"| {number} | {name} |{f' {counts[name]} |' if unit else ''}")
    cut = (
        f" Tiles were cut to windows of {window} pixels side by side; the last one of a row or "
        "column ends at the tile's border."
        if window
        else ""
    )
    ignored = " Pixels of 255 have no class." if layout.task == "segmentation" else ""
    parts = [
        f"---\n{data.to_yaml(line_break=chr(10)).strip()}\n---\n",
        f"# {layout.title}\n",
        f"{layout.citation}.{f' {layout.homepage}' if layout.homepage else ''}\n",
        "Converted from the files that its owners distribute by `rs-models convert-dataset "
        f"{layout.name}`; the images are theirs. {layout.note}".strip()
        + "\n",
        f"Bands: {', '.join(layout.stored_bands or layout.bands)}.{cut}{ignored}\n",
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("path/to/{layout.name}", split="{next(iter(rows))}")\n```\n',
        "## Splits\n",
        "\n".join(["| split | rows |", "|---|---|", *(f"| {s} | {n} |" for s, n in rows.items())]),
        f"\nRule: {told['rule']}"
        + (f", seed {told['seed']}" if told["seed"] is not None else "")
        + ". `splits.json` lists the files of each split and the hash of the list, "
        "`checksums.json` the hashes of all files, `report.json` what was left out.\n",
        "## Classes\n",
        "\n".join(lines),
        f"\n## Terms\n\n{layout.terms}\n",
    ]
    return "\n".join(parts)
