"""What the product sees in data or a scene, before anything is trained."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ServiceError, UserError
from .check_file import Report, is_looked_at, look_at_file
from .names import IGNORE

_SAMPLE = 200  # images of a split that are read


def check(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    bands: str | None = None,
    columns: dict[str, str] | None = None,
    mask_values: dict[Any, Any] | None = None,
    box_format: Any = "xywh",
) -> Report:
    """Looks at a data set, scene, image or vector file; reads a part of it and writes nothing.

    Args:
        name: As for `load`, or a raster or vector file.
        revision: As for `load`.
        bands: As for `load`.
        columns: As for `load`.
        mask_values: As for `load`.
        box_format: As for `load`.

    Raises:
        UserError: Nothing there that could be looked at.
        ServiceError: The Hub or the network fails.
    """
    name = os.fspath(name)
    report = Report(name)
    if Path(name).is_file() and is_looked_at(Path(name), columns):
        look_at_file(Path(name), bands, report)
        return report
    from .sources import load

    for split in _splits(name, revision, report):
        try:
            rows = load(
                name,
                split,
                revision=revision,
                bands=bands,
                columns=columns,
                mask_values=mask_values,
                box_format=box_format,
            )
        except ServiceError:
            raise
        except UserError as error:
            report.problems.append(f"{split}: {error}")
            continue
        _split(rows, split, bands, report)
    _left_out(name, report)
    return report


def _splits(name: str, revision: str | None, report: Report) -> list[str]:
    if name.split(":")[0] == "synthetic":
        return ["train", "validation", "test"]
    from .sources import open_source

    splits = list(open_source(name, revision).splits)
    report.facts.append(("splits", ", ".join(splits)))
    return splits


def _split(rows: Any, split: str, bands: str | None, report: Report) -> None:
    """Rows, columns, classes and pixels of a split."""
    from .columns import CorruptImageError, RowReader
    from .sources import image_bands

    report.facts.append((split, f"{len(rows):,} rows; columns {', '.join(rows.features)}"))
    if not len(rows):
        report.problems.append(f"{split} has no rows.")
        return
    names = image_bands(rows.features)
    reader = RowReader(rows.features, names)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(int))
    sample = reader.undecoded(rows.select(chosen).select_columns(reader.columns))
    sizes: Counter[str] = Counter()
    types: Counter[str] = Counter()
    shapes: dict[int, tuple[int, ...]] = {}
    low, high = np.inf, -np.inf
    broken = 0
    for row, stored in zip(chosen, sample, strict=True):
        try:
            image = reader(stored)
        except (CorruptImageError, UserError) as error:
            broken += 1
            if broken == 1:
                report.problems.append(f"{split}, row {row}: {error}".rstrip(".") + ".")
            continue
        shapes[int(row)] = image.shape[:2]
        sizes[f"{image.shape[1]} x {image.shape[0]}"] += 1
        types[str(image.dtype)] += 1
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    if broken:
        report.problems.append(
            f"{split}: {broken} of {len(chosen)} images looked at are unreadable."
        )
    if sizes:
        shown = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
        more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
        report.facts.append(("  bands", ", ".join(names)))
        report.facts.append(
            ("  pixels", f"{', '.join(types)}, {low:g} to {high:g}; {shown}{more} of {len(chosen)}")
        )
    if len(types) > 1:
        report.problems.append(
            f"{split}: images of {' and '.join(types)} lie side by side: bring them to one type."
        )
    for title, said in _annotations(rows, chosen, shapes, split, report):
        report.facts.append((f"  {title}", said))
    place = next((k for k in ("longitude", "x") if k in rows.features), None)
    if place:
        report.facts.append(("  positions", f"columns {place} and its partner"))


def _annotations(
    rows: Any,
    chosen: np.ndarray,
    shapes: dict[int, tuple[int, ...]],
    split: str,
    report: Report,
) -> Iterator[tuple[str, str]]:
    """Classes with counts, of labels, masks and boxes."""
    names = getattr(rows.features.get("label"), "names", None)
    if names:
        counts = Counter(rows.with_format(None)["label"][:])
        missing = counts.pop(-1, 0) + counts.pop(None, 0)
        yield "labels", _counted({names[n]: counts.get(n, 0) for n in range(len(names))})
        unused = [names[n] for n in range(len(names)) if not counts.get(n)]
        if unused:
            report.problems.append(f"{split}: no image has the class {', '.join(unused)}.")
        if missing:
            report.problems.append(f"{split}: {missing} rows have no label.")
    if "objects" in rows.features:
        boxes = rows.with_format(None)["objects"][:]
        category = rows.features["objects"]["category"].feature
        found = Counter(number for row in boxes for number in row["category"])
        names = list(category.names)
        yield "boxes", _counted({name: found.get(n, 0) for n, name in enumerate(names)})
        unused = [name for n, name in enumerate(names) if not found.get(n)]
        if unused:
            report.problems.append(f"{split}: no box has the class {', '.join(unused)}.")
        empty = sum(not row["category"] for row in boxes)
        if empty:
            yield "without boxes", f"{empty} images"
    if "mask" in rows.features:
        pixels: Counter[int] = Counter()
        other_sizes: list[str] = []
        masks = rows.select(chosen).select_columns(["mask"])
        for number, stored in zip(chosen.tolist(), masks, strict=True):
            if stored["mask"] is None:
                continue
            mask = np.asarray(stored["mask"])
            values, amounts = np.unique(mask, return_counts=True)
            pixels.update(dict(zip(values.tolist(), amounts.tolist(), strict=True)))
            image = shapes.get(number, mask.shape)
            if mask.shape != image:
                told = f"row {number}, {mask.shape[1]} x {mask.shape[0]} for an image of "
                other_sizes.append(f"{told}{image[1]} x {image[0]}")
        if other_sizes:
            report.problems.append(
                f"{split}: {len(other_sizes)} of {len(chosen)} masks looked at have another size "
                f"than their image (first: {other_sizes[0]}): they are refused."
            )
        total = sum(pixels.values()) or 1
        shown = ", ".join(
            f"{'none' if value == IGNORE else value} {count / total:.1%}"
            for value, count in sorted(pixels.items())
        )
        yield "mask values", f"{shown} (of {len(chosen)} masks)"


def _counted(counts: dict[str, int], most: int = 12) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    more = f" and {len(counts) - most} more" if len(counts) > most else ""
    return f"{len(counts)} classes: {', '.join(shown)}{more}"


def _left_out(name: str, report: Report) -> None:
    """Files of a folder that are not read, by their kind."""
    folder = Path(name)
    if not folder.is_dir():
        return
    from .folders import files_below
    from .sources import open_source

    try:
        source = open_source(name)
    except UserError:
        return
    read = {file for split in source.splits for file in source.files(split)}
    others: Counter[str] = Counter()
    for _, _, names in os.walk(folder):
        for own in names:
            others[Path(own).suffix.lower() or own] += 1
    for file in files_below(folder):
        if file in read:
            others[file.suffix.lower() or file.name] -= 1
    shown = ", ".join(f"{count} {kind}" for kind, count in others.most_common(8) if count > 0)
    if read and shown:
        report.facts.append(("not read", shown))
