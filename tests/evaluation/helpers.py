"""Tiny features and image caches."""

from __future__ import annotations

import numpy as np

from rs_models.data import build_cache, load

DATA = "synthetic:num=48,size=32"


def blobs(per_class: int, *, classes: int = 5, width: int = 24, spread: float = 2.0, seed: int = 0):
    """Overlapping classes of correlated features of very different scales, float32."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    mixing = np.random.default_rng(98).normal(size=(width, width))
    labels = np.repeat(np.arange(classes), per_class)
    x = (centres[labels] + spread * rng.normal(size=(len(labels), width))) @ mixing
    return (x * np.logspace(-3, 2, width)).astype(np.float32), labels


def cache_of(name: str = DATA, split: str = "train", bands: str = "rgb"):
    return build_cache(load(name, split, bands=bands), bands=bands, progress=False)
