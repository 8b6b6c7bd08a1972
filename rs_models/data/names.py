"""Names that data sets are known by: columns and splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    pass


COLUMNS = ("image", "label", "mask", "objects", "nir")


SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}


def data_name(name_or_path: str | os.PathLike[str]) -> str:
    """What a data set is called in records: its id, or a local folder's own name.

    Args:
        name_or_path: As for `rs_models.data.load`.

    Example:
        >>> data_name("timm/eurosat-rgb"), data_name("synthetic:num=8")
        ('timm/eurosat-rgb', 'synthetic:num=8')
    """
    path = Path(name_or_path)
    return path.resolve().name if path.exists() else str(name_or_path)


def missing_split(split: str, there: Iterable[str], name: str) -> UserError:
    """Return the error for a split that does not exist."""
    return UserError(f"{name} has no split {split!r}: it has {', '.join(there) or 'none'}.")
