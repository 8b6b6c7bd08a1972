"""The data sets of a study: where they are, and subsets made of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import UserError


def prepare(data: dict[str, Any], folder: str | os.PathLike[str]) -> dict[str, str]:
    """Names to folders or ids; subsets are written as Parquet folders, once.

    Args:
        data: As in `StudyConfig.data`.
        folder: Folder that gets the subsets.

    Raises:
        UserError: A subset of nothing, or of data without labels.
    """
    found = {name: value for name, value in data.items() if isinstance(value, str)}
    for name, value in data.items():
        if isinstance(value, str):
            continue
        if not isinstance(value, dict) or set(value) - {"from", "imbalance", "seed"}:
            raise UserError(
                f"The setting data.{name} should be a name, or {{from, imbalance, seed}}"
            )
        source = found.get(str(value.get("from", "")).removeprefix("$"))
        if source is None:
            raise UserError(f"The setting data.{name}.from names none of {', '.join(found)}")
        imbalance, seed = float(value.get("imbalance", 20)), int(value.get("seed", 0))
        target = Path(folder) / f"{name}-{imbalance:g}-{seed}"
        if not (target / _FILE).is_file():
            _long_tailed(source, target, imbalance, seed)
        found[name] = str(target)
    return found


_FILE = "train-00000-of-00001.parquet"


def _long_tailed(source: str, target: Path, imbalance: float, seed: int) -> None:
    import numpy as np

    from ..data import load
    from ..data.parquet import write_parquet
    from ..data.sampling import long_tailed_draw

    rows = load(source, "train")
    if "label" not in rows.features:
        raise UserError(f"{source} has no labels to make a long-tailed subset by.")
    chosen = long_tailed_draw(np.asarray(rows["label"]), imbalance, seed)
    write_parquet(rows.select(chosen), target / _FILE)
