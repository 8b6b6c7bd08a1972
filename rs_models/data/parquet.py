"""Rows of `datasets` as one Parquet file."""

from __future__ import annotations

import os
from typing import Any

from ..files import written


def write_parquet(rows: Any, path: str | os.PathLike[str]) -> None:
    """Writes a data set into one file, beside and then renamed, without a bar of its own.

    Args:
        rows: `datasets.Dataset`; images are stored in the file.
        path: Where the file goes; folders are made.
    """
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with written(path) as partial:
            rows.to_parquet(str(partial))
    finally:
        if shown:
            enable_progress_bars()
