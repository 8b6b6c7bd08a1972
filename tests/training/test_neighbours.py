"""The picture of what models take for alike."""

from __future__ import annotations

import importlib.util
import io
import sys

import numpy as np
import pytest
from PIL import Image

from rs_models.data import build_cache, load
from tests.conftest import ROOT


@pytest.fixture
def neighbours(monkeypatch):
    path = ROOT / "training" / "benchmarks" / "neighbours.py"
    spec = importlib.util.spec_from_file_location("neighbours", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "neighbours", module)  # for its dataclass
    spec.loader.exec_module(module)
    return module


def test_neighbours_are_the_most_similar_images_and_their_classes_are_counted(
    neighbours, monkeypatch
):
    caches = [
        build_cache(load(neighbours.DATA, split).select(range(40)), progress=False)
        for split in ("train", "test")
    ]
    found = neighbours.neighbours("baseline:image-statistics", *caches, [3, 5])
    means = [np.asarray(cache.images).mean((2, 3)) for cache in caches]  # (N, 3)
    spreads = [np.asarray(cache.images).std((2, 3)) for cache in caches]
    known, asked = (np.hstack(both) for both in zip(means, spreads, strict=True))
    assert found.nearest.shape == (2, 3)
    first = found.nearest[0, 0]
    apart = np.abs(known - asked[3]).sum(1)
    assert apart[first] < np.median(apart)
    assert 0 <= found.right <= 1
    monkeypatch.setitem(neighbours.MODELS, "baseline:image-statistics", "means")
    content = neighbours.picture(*caches, [3, 5], {"baseline:image-statistics": found})
    with Image.open(io.BytesIO(content)) as drawn:
        assert drawn.format == "WEBP" and drawn.width > drawn.height
