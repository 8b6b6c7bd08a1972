"""Another world: classes learned in one data set and asked for in another, places never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from .answers import Answers, probe_scores
from .fewshot import few_shot
from .linear import choose_c, fit_probe, holdout

# Source class -> target class. Classes of the source that mean none of the target's are left out;
# those of the target that the source lacks cannot be predicted, and count as wrong.
CLASS_MAPS: dict[str, dict[str, str]] = {
    # The classes that both data sets' authors describe alike.
    "aid-rsscn7": {
        "Meadow": "Grass",
        "Farmland": "Field",
        "Industrial": "Industry",
        "River": "RiverLake",
        "Pond": "RiverLake",
        "Forest": "Forest",
        "DenseResidential": "Resident",
        "MediumResidential": "Resident",
        "SparseResidential": "Resident",
        "Parking": "Parking",
    },
    "aid-resisc14": {
        "Airport": "airport",
        "Beach": "beach",
        "Commercial": "commercial_area",
        "Desert": "desert",
        "Farmland": "farmland",
        "Forest": "forest",
        "Industrial": "industrial_area",
        "Pond": "lake",
        "Mountain": "mountain",
        "DenseResidential": "residential",
        "MediumResidential": "residential",
        "SparseResidential": "residential",
        "River": "river",
    },
    "aid-ucmerced": {
        "Farmland": "agricultural",
        "BaseballField": "baseballdiamond",
        "Beach": "beach",
        "DenseResidential": "denseresidential",
        "Forest": "forest",
        "Port": "harbor",
        "MediumResidential": "mediumresidential",
        "Viaduct": "overpass",
        "Parking": "parkinglot",
        "River": "river",
        "SparseResidential": "sparseresidential",
        "StorageTanks": "storagetanks",
    },
}


def class_map(value: str | Mapping[str, str]) -> dict[str, str]:
    """A class map by name, or as given.

    Raises:
        UserError: An unknown name, or a map without classes.
    """
    if isinstance(value, str):
        if value not in CLASS_MAPS:
            raise UserError(
                f"Unknown class map '{value}': use {', '.join(CLASS_MAPS)}, or "
                "{source class: target class, ...}."
            )
        return CLASS_MAPS[value]
    found = {str(key): str(name) for key, name in value.items()}
    if not found:
        raise UserError("The setting class_map is empty: give {source class: target class, ...}.")
    return found


def relabel(
    labels: np.ndarray, classes: Sequence[str], target: Sequence[str], mapping: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a source that mean a class of the target, and their class there.

    Args:
        labels: (N,) of the source.
        classes: Names of its classes.
        target: Names of the target's classes.
        mapping: Source class -> target class.

    Returns:
        (rows, labels), both (n,) int64.

    Raises:
        UserError: A name in the map that is no class.
    """
    for names, there, whose in (
        (mapping.keys(), classes, "source"),
        (mapping.values(), target, "target"),
    ):
        unknown = sorted(set(names) - set(there))
        if unknown:
            raise UserError(
                f"The class map names {unknown[0]!r}, which the {whose} does not have: it has "
                f"{', '.join(there)}."
            )
    places = {name: i for i, name in enumerate(target)}
    new = np.asarray([places[mapping[n]] if n in mapping else -1 for n in classes], np.int64)
    relabelled = new[labels]
    rows = np.flatnonzero(relabelled >= 0)
    return rows, relabelled[rows]


def transfer(
    source_x: np.ndarray,
    source_y: np.ndarray,
    target_x: np.ndarray,
    target_y: np.ndarray,
    *,
    n: int | None = None,
    seeds: int = 5,
    class_names: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> Answers:
    """Probes trained on one data set and asked about another; nothing of the other is learned from.

    Args:
        source_x: (N, D) features.
        source_y: (N,) in the target's classes, see `relabel`.
        target_x: (M, D).
        target_y: (M,).
        n: Labels a class, drawn `seeds` times, C 0.1; None takes all, C from a stratified tenth of
            the source.
        seeds: Number of draws.
        class_names: For error messages.
        device: Where to compute.
    """
    if n is not None:
        return few_shot(
            source_x,
            source_y,
            target_x,
            target_y,
            n=n,
            seeds=seeds,
            class_names=class_names,
            device=device,
        ).answers()
    logits, c = _probe(source_x, source_y, target_x, target_y, device)
    used: dict[str, Any] = {
        "c": c,
        "c_chosen_on": "a tenth of the source",
        "standardised_by": "source",
    }
    return Answers([logits.argmax(1) == target_y], used, probe_scores([logits], [target_y]))


def leave_one_out(
    x: np.ndarray,
    y: np.ndarray,
    places: Sequence[str],
    *,
    device: torch.device | str | None = None,
) -> Answers:
    """Each place in turn is the test, and the probe has learned from all others.

    Args:
        x: (N, D) features.
        y: (N,) class indices.
        places: (N,) name of each image's place.
        device: Where to compute.

    Returns:
        A run a place, in the order of their names.

    Raises:
        UserError: One place only.
    """
    named = np.asarray([str(place) for place in places])
    there = sorted(set(named.tolist()))
    if len(there) < 2:
        raise UserError(f"All images are of one place ({there[0]}): there is none to leave out.")
    logits, truths, chosen = [], [], []
    for place in there:
        out = named == place
        values, c = _probe(x[~out], y[~out], x[out], y[out], device)
        logits.append(values)
        truths.append(y[out])
        chosen.append(c)
    images = [len(true) for true in truths]
    used: dict[str, Any] = {
        "places": there,
        "images": images,
        "train_images": [len(y) - count for count in images],
        "test_images": len(y),
        "c": chosen,
        "c_chosen_on": "a tenth of the other places",
        "standardised_by": "other places",
    }
    correct = [values.argmax(1) == true for values, true in zip(logits, truths, strict=True)]
    return Answers(correct, used, probe_scores(logits, truths))


def _probe(
    x: np.ndarray,
    y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    device: torch.device | str | None,
) -> tuple[np.ndarray, float]:
    """Logits of the test images, and C, which a stratified tenth of the others has chosen."""
    rest, held = holdout(y)
    classes = int(max(y.max(), test_y.max())) + 1
    c, _ = choose_c(x[rest], y[rest], x[held], y[held], num_classes=classes, device=device)
    return fit_probe(x, y, c=c, num_classes=classes, device=device).logits(test_x), c
