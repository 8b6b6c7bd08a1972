"""Scenes by example: a few-shot classifier that grows while it is used, and the nearest images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.fewshot import FEW_SHOT_C
from ..evaluation.linear import fit_probe
from .models import encoder, features
from .uploads import shrunk, square

DATA_VARIABLE = "RS_MODELS_DEMO_DATA"
"""Name or folder of the labelled images that a Space searches; unset, the synthetic scenes."""
PER_CLASS = 20
"""Labelled images a class that the built-in classes have."""
MAX_OWN = 40
"""Images that a user's class may have, and `MAX_CLASSES` classes a user."""
MAX_CLASSES = 20
_THUMB = 96
_MAX_INDEX = 3000


@dataclass
class Index:
    """Labelled images with their features under one model.

    Attributes:
        thumbs: (N, 96, 96, 3) uint8.
        labels: (N,) class numbers.
        names: Of the classes.
        features: (N, D) float32.
        data: Name of the data set.
    """

    thumbs: np.ndarray
    labels: np.ndarray
    names: list[str]
    features: np.ndarray
    data: str


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
    """The data set that is searched."""
    return os.environ.get(DATA_VARIABLE, "").strip() or "synthetic:num=480,size=96"


@lru_cache(maxsize=2)
def images(name: str) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Labelled pictures, class numbers and class names of a data set's training split.

    Raises:
        UserError: Data that is not there or has no labels.
    """
    from ..data import load

    rows = load(name, "train")
    if "label" not in rows.column_names:
        raise UserError(f"{name} has no labels: choose a labelled data set.")
    names = list(rows.features["label"].names)
    if len(rows) > _MAX_INDEX:
        rows = rows.shuffle(seed=0).select(range(_MAX_INDEX))
    pictures = [shrunk(np.asarray(image.convert("RGB")), 256) for image in rows["image"]]
    return pictures, np.asarray(rows["label"]), names


@lru_cache(maxsize=6)
def index(model: str, data: str) -> Index:
    """The data set under a model; computed once."""
    pictures, labels, names = images(data)
    return Index(
        thumbs=np.stack([square(picture, _THUMB) for picture in pictures]),
        labels=labels,
        names=names,
        features=features(encoder(model), pictures),
        data=data,
    )


def add_class(own: OwnClasses, model: str, name: str, pictures: list[np.ndarray]) -> OwnClasses:
    """A user's classes with one more, or more images for one that is there.

    Args:
        own: So far; those of another model are dropped, since its features are others.
        model: Whose features are taken.
        name: Of the class.
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
        data: Of the built-in classes.

    Raises:
        UserError: Own classes of another model, or fewer than two classes.
    """
    xs: list[np.ndarray] = []
    names: list[str] = []
    if which in ("built-in", "both"):
        known = index(model, data)
        for number, name in enumerate(known.names):
            xs.append(known.features[known.labels == number][:PER_CLASS])
            names.append(name)
    if which in ("own", "both"):
        if own.features and own.model != model:
            raise UserError("Your classes were added with another model: add them again.")
        for name, mine in own.features.items():
            xs.append(mine)
            names.append(f"{name} (yours)" if name in names else name)
    pairs = [(x, name) for x, name in zip(xs, names, strict=True) if len(x)]
    if len(pairs) < 2:
        raise UserError("Two classes or more can be told apart: add another one.")
    probe = _probe(tuple(x.tobytes() for x, _ in pairs), pairs[0][0].shape[1])
    logits = torch.from_numpy(features(encoder(model), [picture])) @ probe[0] + probe[1]
    shares = logits.softmax(1)[0].tolist()
    return {name: share for (_, name), share in zip(pairs, shares, strict=True)}


@lru_cache(maxsize=32)
def _probe(classes: tuple[bytes, ...], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fitted once for the same labelled features."""
    xs = [np.frombuffer(part, np.float32).reshape(-1, width) for part in classes]
    y = np.concatenate([np.full(len(x), number) for number, x in enumerate(xs)])
    probe = fit_probe(np.concatenate(xs), y, c=FEW_SHOT_C, num_classes=len(xs))
    return probe.weight, probe.bias


def neighbours(model: str, picture: np.ndarray, data: str, k: int = 8) -> list[tuple]:
    """The most similar images: (thumb (96, 96, 3) uint8, class name, cosine), best first."""
    known = index(model, data)
    x = features(encoder(model), [picture])[0]
    unit = known.features / np.linalg.norm(known.features, axis=1, keepdims=True).clip(1e-12)
    cosine = unit @ (x / max(float(np.linalg.norm(x)), 1e-12))
    best = np.argsort(-cosine, kind="stable")[:k]
    return [(known.thumbs[i], known.names[known.labels[i]], float(cosine[i])) for i in best]
