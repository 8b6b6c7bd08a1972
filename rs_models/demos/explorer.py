"""Scenes by example: a few-shot classifier that grows while it is used, and the nearest images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from ..data import load
from ..data.cache import ImageCache, build_cache, default_cache_dir
from ..errors import UserError
from ..evaluation.features import extract
from ..evaluation.fewshot import FEW_SHOT_C
from ..evaluation.linear import fit_probe
from ..zoo import local_repository, namespace
from .models import encoder, features

DATA_VARIABLE = "RS_MODELS_DEMO_DATA"
"""Name or folder of the labelled images that a Space searches; unset, UC Merced of the clone."""
PER_CLASS = 20
"""Labelled images a class that the built-in classes have."""
MAX_OWN = 40
"""Images that a user's class may have, and `MAX_CLASSES` classes a user."""
MAX_CLASSES = 20
_MAX_INDEX = 3000
_DRAWN = "synthetic:num=480,size=96"


@dataclass
class Index:
    """Labelled images with their features under one model.

    Attributes:
        thumbs: (N, S, S, 3) uint8, at the model's training size.
        labels: (N,) class numbers.
        names: Names of the classes.
        features: (N, D) float32.
        directions: (N, D) the features at length one.
    """

    thumbs: np.ndarray
    labels: np.ndarray
    names: list[str]
    features: np.ndarray
    directions: np.ndarray


@dataclass
class OwnClasses:
    """A user's classes: features, never the images themselves.

    Attributes:
        model: Whose features they are.
        features: Class name -> (n, D).
    """

    model: str = ""
    features: dict[str, np.ndarray] = field(default_factory=dict)


def data_name() -> str:
    """The data set that is searched: real images where they are, else drawn ones."""
    named = os.environ.get(DATA_VARIABLE, "").strip()
    real = f"{namespace()}/ucmerced"
    return named or (real if local_repository(real, datasets=True) else _DRAWN)


@lru_cache(maxsize=8)
def cached(data: str, split: str, size: int) -> ImageCache:
    """Labelled images of a data set, decoded once to central squares of `size` pixels.

    Raises:
        UserError: Data or a split that is not there, or without labels.
    """
    rows = load(data, split)
    if "label" not in rows.column_names:
        raise UserError(f"{data} has no labels: choose a labelled data set.")
    if len(rows) > _MAX_INDEX:
        rows = rows.shuffle(seed=0).select(range(_MAX_INDEX))
    return build_cache(rows, image_size=size, progress=False)


@lru_cache(maxsize=6)
def index(model: str, data: str) -> Index:
    """The training images under a model; computed once, and kept beside the decoded images."""
    frozen = encoder(model)
    images = cached(data, "train", frozen.train_size)
    assert images.labels is not None and images.classes is not None
    found = extract(frozen, images, cache_dir=default_cache_dir() / "features", progress=False)
    return Index(
        thumbs=images.images.permute(0, 2, 3, 1).numpy(),
        labels=images.labels.numpy(),
        names=images.classes,
        features=found,
        directions=_directions(found),
    )


def add_class(own: OwnClasses, model: str, name: str, pictures: list[np.ndarray]) -> OwnClasses:
    """A user's classes with one more, or more images for one that is there.

    Args:
        own: So far; those of another model are dropped, since its features are others.
        model: Whose features are taken.
        name: Name of the class.
        pictures: (H, W, 3) uint8 examples.

    Raises:
        UserError: No name, no pictures, or more than the limits.
    """
    name = " ".join(name.split())[:60]
    if not name:
        raise UserError("Give the class a name first.")
    if not pictures:
        raise UserError(f"Choose a few images of {name} first.")
    kept = dict(own.features) if own.model == model else {}
    if name not in kept and len(kept) >= MAX_CLASSES:
        raise UserError(f"{MAX_CLASSES} classes are the most; start over to have others.")
    new = features(encoder(model), pictures)
    if name in kept:
        new = np.concatenate([kept[name], new])
    if len(new) > MAX_OWN:
        raise UserError(f"{name} would have {len(new)} images; {MAX_OWN} are the most.")
    kept[name] = new
    return OwnClasses(model, kept)


def classify(
    model: str, picture: np.ndarray, own: OwnClasses, which: str, data: str
) -> dict[str, float]:
    """Probabilities of the classes by logistic regression on a few labelled images each.

    Args:
        model: Name of the encoder.
        picture: (H, W, 3) uint8.
        own: The user's classes.
        which: "built-in", "own" or "both".
        data: Data of the built-in classes.

    Raises:
        UserError: Own classes of another model, or fewer than two classes.
    """
    if which in ("own", "both") and own.features and own.model != model:
        raise UserError("Your classes were added with another model: add them again.")
    pairs: list[tuple[str, np.ndarray]] = []
    if which in ("built-in", "both"):
        known = index(model, data)
        for number, name in enumerate(known.names):
            pairs.append((name, known.features[known.labels == number][:PER_CLASS]))
    if which in ("own", "both"):
        taken = {name for name, _ in pairs}
        for name, mine in own.features.items():
            pairs.append((f"{name} (yours)" if name in taken else name, mine))
    pairs = [(name, x) for name, x in pairs if len(x)]
    if len(pairs) < 2:
        raise UserError("Two classes or more can be told apart: add another one.")
    x = np.concatenate([x for _, x in pairs])
    y = np.repeat(np.arange(len(pairs)), [len(x) for _, x in pairs])
    probe = fit_probe(x, y, c=FEW_SHOT_C, num_classes=len(pairs))
    logits = torch.from_numpy(features(encoder(model), [picture])) @ probe.weight + probe.bias
    return {
        name: share for (name, _), share in zip(pairs, logits.softmax(1)[0].tolist(), strict=True)
    }


def neighbours(model: str, picture: np.ndarray, data: str, k: int = 8) -> list[tuple]:
    """The most similar images: (thumb (S, S, 3) uint8, class name, cosine), best first."""
    known = index(model, data)
    cosine = known.directions @ _directions(features(encoder(model), [picture]))[0]
    best = np.argsort(-cosine, kind="stable")[:k]
    return [(known.thumbs[i], known.names[known.labels[i]], float(cosine[i])) for i in best]


def _directions(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
