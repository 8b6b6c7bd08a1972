"""Names that data sets are known by: columns and splits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    pass


COLUMNS = ("image", "label", "mask", "objects", "nir")


SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}


def missing_split(split: str, there: Iterable[str], name: str) -> UserError:
    """Return the error for a split that does not exist."""
    return UserError(f"{name} has no split {split!r}: it has {', '.join(there) or 'none'}.")
