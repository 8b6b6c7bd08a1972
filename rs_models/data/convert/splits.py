"""Which image belongs to which split: official, stored, or drawn once for all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..names import SPLITS, standard_split
from .items import Item, digest
from .layouts import Layout

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def assign(
    layout: Layout,
    items: Sequence[Item],
    *,
    seed: int = 0,
    stored: str | os.PathLike[str] | None = None,
    per_class: int | None = None,
) -> tuple[dict[str, list[Item]], dict[str, Any]]:
    """Splits of a data set's items, and how they came about.

    Args:
        layout: The data set's layout.
        items: The data set's images, sorted by key.
        seed: Seed of a split that is drawn.
        stored: File of an earlier conversion (`splits.json`) to follow.
        per_class: Number of images of a class that are kept, shared among the splits as all of
            them are; None keeps all.

    Returns:
        Split -> items in order, and the contents of splits.json: `rule`, `seed` (None unless
        drawn), `splits` (split -> `sha256` of the names, `files`).

    Raises:
        UserError: A stored file that is none, or that does not know an image.
    """
    used: int | None = None
    if stored is not None:
        of, rule = _stored(stored, items), f"as in {Path(stored).name}"
    elif layout.official:
        names = {name: split for split, group in layout.official.items() for name in group}
        of = {item.key: names.get(item.fields["name"], "") for item in items}
        rule = "official"
    elif items and "split" in items[0].fields:
        of = {item.key: standard_split(item.fields["split"].lower()) for item in items}
        rule = "official"
    else:
        of, used = _drawn(items, seed), seed
        shares = ", ".join(f"{split} {share:.0%}" for split, share in FRACTIONS.items())
        rule = f"drawn within each class by a hash of seed and name ({shares})"
    splits: dict[str, list[Item]] = {}
    for split in SPLITS:
        chosen = [item for item in items if of.get(item.key) == split]
        if chosen:
            splits[split] = chosen
    if per_class is not None:
        splits = _slice(splits, per_class, seed)
        rule += (
            f"; {per_class} images of each class were kept, by a hash of seed {seed} and their "
            "names, with the splits' shares"
        )
    told = {
        split: {"sha256": digest([item.key for item in chosen]), "files": [i.key for i in chosen]}
        for split, chosen in splits.items()
    }
    return splits, {"rule": rule, "seed": used, "splits": told}


def _slice(splits: dict[str, list[Item]], per_class: int, seed: int) -> dict[str, list[Item]]:
    """A number of images of each class, with as many of each split as its share in all images."""
    total = sum(map(len, splits.values()))
    kept = {}
    ends = [0]
    for items in splits.values():
        ends.append(ends[-1] + len(items))
    for (split, items), start, end in zip(splits.items(), ends, ends[1:], strict=False):
        count = round(per_class * end / total) - round(per_class * start / total)
        keys = {
            item.key
            for group in _by_class(items).values()
            for item in _shuffled(group, seed)[:count]
        }
        if keys:
            kept[split] = [item for item in items if item.key in keys]
    return kept


def _drawn(items: Sequence[Item], seed: int) -> dict[str, str]:
    """A split for each name that depends on nothing but the names of its class and the seed."""
    of = {}
    for group in _by_class(items).values():
        order = _shuffled(group, seed)
        ends, share = [], 0.0
        for fraction in FRACTIONS.values():
            share += fraction
            ends.append(round(share * len(order)))
        for place, item in enumerate(order):
            of[item.key] = next(s for s, end in zip(FRACTIONS, ends, strict=True) if place < end)
    return of


def _by_class(items: Sequence[Item]) -> dict[int | None, list[Item]]:
    groups: dict[int | None, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups


def _shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item.key}".encode()).digest())


def _stored(path: str | os.PathLike[str], items: Sequence[Item]) -> dict[str, str]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        of = {key: split for split, said in content["splits"].items() for key in said["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a splits.json of an earlier conversion.") from error
    unknown = [item.key for item in items if item.key not in of]
    if unknown:
        raise UserError(
            f"{path} does not know {len(unknown)} of the images (first: {unknown[0]}): it belongs "
            "to another data set."
        )
    return of
