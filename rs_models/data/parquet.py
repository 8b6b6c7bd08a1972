"""Rows of `datasets` as one Parquet file, and images as they are stored in it."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

from ..files import written
from ..settings import no_progress_bars


def write_parquet(rows: Any, path: str | os.PathLike[str]) -> None:
    """Writes a data set into one file, beside and then renamed, without a bar of its own.

    Args:
        rows: `datasets.Dataset`; images are stored in the file.
        path: Where the file goes; folders are made.
    """
    with no_progress_bars(), written(path) as partial:
        rows.to_parquet(str(partial))


def png(pixels: np.ndarray, *, level: int = 6) -> dict[str, Any]:
    """A PNG image as `datasets` stores it, {"bytes", "path"}.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
        level: How hard it is compressed, from 0 to 9; the pixels are the same.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png", compress_level=level)
    return {"bytes": buffer.getvalue(), "path": None}
