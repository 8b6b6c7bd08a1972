"""Files that are not code but that the code needs: in a clone and in a wheel.

The one place that knows where either lies.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# Name -> where it lies in a clone; pyproject.toml copies it into the wheel's package folder.
_IN_CLONE = {
    "LICENSE": "LICENSE",
    "configs": "training/configs",
    "dataset_card.md.j2": "model_cards/dataset_card.md.j2",
    "embeddings_card.md.j2": "model_cards/embeddings_card.md.j2",
    "finetuned_card.md.j2": "model_cards/finetuned_card.md.j2",
    "labelled_card.md.j2": "model_cards/labelled_card.md.j2",
    "model_card.md.j2": "model_cards/model_card.md.j2",
    "results": "model_cards/results",
    "spaces": "spaces",
    "windows_card.md.j2": "model_cards/windows_card.md.j2",
}


def asset(name: str) -> Path:
    """Where a file or folder is.

    Args:
        name: "LICENSE", "configs" (the recipes), "results", "spaces", or a card's template, as
            "model_card.md.j2".
    """
    packaged = _PACKAGE / name
    return packaged if packaged.exists() else _PACKAGE.parent / _IN_CLONE[name]


def clone() -> Path:
    """The folder of the clone that the package runs from; of a wheel, the folder around it."""
    return _PACKAGE.parent
