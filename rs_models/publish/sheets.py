"""Short tables of what there is: models whose weights are here, and a sheet for each data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..assets import clone
from ..cards import markdown_table
from ..data.convert import LAYOUTS, Layout
from ..evaluation.results import Result
from ..papers import PAPERS
from ..zoo import ZOO
from .facts import network

_TASKS = {
    "scenes": "scene classification",
    "segmentation": "segmentation",
    "detection": "detection",
}
_MOST_CLASSES = 60  # names that a sheet lists; more are counted


def models(results: Sequence[Result] = ()) -> str:
    """Markdown table of the models whose weights lie in the clone or on the Hub.

    Args:
        results: Not looked at: the table of results has them.
    """
    rows = []
    for model in ZOO:
        folder = Path("hub") / "rs" / model.name
        here = (clone() / folder / "model.safetensors").is_file()
        if not here and not model.published:
            continue
        card = f"model_cards/rendered/{model.name}/README.md"
        name = f"[{model.name}]({card})" if (clone() / card).is_file() else model.name
        size = f", {network(clone() / folder / 'model.safetensors')}" if here else ""
        sets = model.data.split("+")
        data = model.data if len(sets) == 1 else f"{len(sets)} sets, see its card"
        size = size.replace(" parameters", "")
        rows.append((name, PAPERS[model.method].label, model.backbone + size, data))
    return markdown_table(("model", "method", "network, parameters, size", "learned from"), rows)


def datasets(results: Sequence[Result] = ()) -> str:
    """A sheet for each data set that `convert-dataset` knows, from its row.

    Args:
        results: Not looked at.
    """
    return "\n\n".join(_sheet(layout) for layout in LAYOUTS.values())


def _sheet(layout: Layout) -> str:
    stored = layout.stored_bands or layout.bands
    facts: list[tuple[str, Any]] = [
        ("task", _TASKS[layout.task]),
        ("images", f"{layout.total:,}" if layout.total else "not stated by its owners"),
        ("classes", _classes(layout)),
        ("bands", ", ".join(stored)),
        ("splits", _splits(layout)),
        ("cut to windows of", f"{layout.window} pixels" if layout.window else ""),
        ("files", ", ".join(f"`{name}`" for name in layout.archives) or "a folder as it is given"),
        ("terms", layout.terms),
        ("page", f"[{layout.homepage}]({layout.homepage})" if layout.homepage else ""),
        ("cite", layout.citation),
        ("know", layout.note),
    ]
    rows = [(key, str(value).replace("|", "\\|")) for key, value in facts if value]
    # Of scenes an archive each is another way to get the same; masks come in one of their own.
    archives = layout.archives[-1:] if layout.task == "scenes" else layout.archives
    source = " ".join(archives) or "FOLDER"
    command = f"rs-models convert-dataset {layout.name} {source} --output converted/{layout.name}"
    return "\n\n".join(
        [f"## {layout.title}", markdown_table(("", ""), rows), f"```bash\n{command}\n```"]
    )


def _classes(layout: Layout) -> str:
    names = layout.classes
    if not names:
        return f"{layout.num_classes}, named by the folders" if layout.num_classes else "by folder"
    if len(names) > _MOST_CLASSES:
        return str(len(names))
    return f"{len(names)}: {', '.join(names)}"


def _splits(layout: Layout) -> str:
    if layout.official or "(?P<split>" in layout.images:
        return "the owners'"
    return "drawn once within each class by a hash of the names (60, 20, 20 %)"
