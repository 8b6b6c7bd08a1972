"""Rows of `datasets` as one Parquet file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def write_parquet(rows: Any, path: str | os.PathLike[str]) -> None:
    """Writes a data set into one file, beside and then renamed, without a bar of its own.

    Args:
        rows: `datasets.Dataset`; images are stored in the file.
        path: Of the file; folders are made.
    """
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        rows.to_parquet(str(partial))
    finally:
        if shown:
            enable_progress_bars()
    partial.replace(target)
