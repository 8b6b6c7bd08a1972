"""Models side by side on the same labelled images, by the protocols and tables of the results."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from ..assets import asset
from ..data.cache import ImageCache
from ..errors import UserError
from ..evaluation.protocols import run
from ..evaluation.results import Result, read_all, table
from ..publish.figures import few_labels
from .explorer import cached
from .models import encoder

SHOTS = (1, 2, 5, 10, 20)
"""Labels a class, as far as the data has them."""

__all__ = ["SHOTS", "few_labels", "leaderboards", "measure", "table"]


@lru_cache(maxsize=32)
def measure(name: str, data: str) -> tuple[Result, ...]:
    """Few-label accuracy and retrieval of a model: learned from `train`, asked for on `test`.

    Args:
        name: Name of the encoder.
        data: Labelled images.

    Raises:
        UserError: No such model or data, or too few images a class.
    """
    frozen = encoder(name)
    train, test = (cached(data, split, frozen.train_size) for split in ("train", "test"))
    protocols = [f"linear-n{n}" for n in SHOTS if n <= _fewest(train)]
    if not protocols:
        raise UserError(f"{data} has a class without images: there is nothing to compare with.")
    protocols.append("retrieval20")
    title = data.partition(":")[0].rstrip("/").rpartition("/")[2]
    measured = run(frozen, train, test, protocols=protocols, data=title, progress=False)
    return tuple(dataclasses.replace(result, model=frozen.name) for result in measured)


def _fewest(train: ImageCache) -> int:
    """Images of the class that has the fewest."""
    assert train.labels is not None and train.classes is not None
    return int(np.bincount(train.labels.numpy(), minlength=len(train.classes)).min())


@lru_cache(maxsize=1)
def leaderboards() -> dict[str, str]:
    """Measured results by data set as Markdown tables; empty where there are none."""
    folder = asset("results")
    results = read_all(folder) if folder.is_dir() else []
    return {
        data: table([result for result in results if result.data == data])
        for data in sorted({result.data for result in results})
    }
