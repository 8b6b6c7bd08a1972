"""Label columns as people store them -> classes, with one number in every split."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from .names import natural

logger = logging.getLogger(__name__)

NONE = -1  # the Hub's number for "no label"
_MOST_CLASSES = 10_000  # more are a measurement or an identity, not classes
# Columns of text that may name the numbers of `label`.
_NAME_COLUMNS = (
    *("label_name", "label_text", "label_str", "class_name", "category_name", "text_label"),
    *("class", "category", "name"),
)


def class_labels(rows: Any, name: str, others: Sequence[Any] = ()) -> Any:
    """Rows whose `label` is a ClassLabel.

    Text and truth values become classes in natural order. Whole numbers that leave no gap from 0
    are class numbers; others are the names of classes. A missing label, and -1, mean none.

    Args:
        rows: `datasets.Dataset` with a `label` column.
        name: The data's name, for messages.
        others: The label columns of the other splits, as `datasets.Dataset` or Arrow arrays, so
            that a class has one number everywhere.

    Raises:
        UserError: Labels that are no classes.
    """
    from datasets import ClassLabel, Dataset, Value

    label = rows.features["label"]
    if not isinstance(label, Value):
        raise UserError(
            f"The 'label' column of {name} is {label}, not one class per row: name another one "
            "with columns={'label': ...}, or rename it."
        )
    if not isinstance(rows, Dataset):
        raise UserError(
            f"The 'label' column of {name} has no class names, which a stream cannot find out: "
            "load it without streaming, or store the column as ClassLabel."
        )
    values = _plain(_column(rows), name)
    everywhere = [values, *(_plain(_column(other), name) for other in others)]
    names = _names(everywhere, name)
    shown = _names_beside(rows, values, names)
    number = {value: place for place, value in enumerate(names)}
    numbers = [NONE if value is None else number[value] for value in values]
    feature = ClassLabel(names=shown)
    return _with_labels(rows, numbers, feature)


def check_same_classes(names: Sequence[str], others: Iterable[tuple[str, Any]], data: str) -> None:
    """Refuses splits that number their classes otherwise.

    Args:
        names: Classes of the split that is opened.
        others: (split, its label feature) of the others.
        data: Name of the data, for messages.

    Raises:
        UserError: Other names, or another order.
    """
    for split, feature in others:
        theirs = getattr(feature, "names", None)
        if theirs is not None and list(theirs) != list(names):
            raise UserError(
                f"The classes of {data} are {_shown(names)} in one split and {_shown(theirs)} in "
                f"{split}, so that their numbers mean different things: store both with the same "
                "class names."
            )


def tell_unused(numbers: Iterable[int], names: Sequence[str] | None, where: str) -> None:
    """Warns of named classes that never occur: they can neither be learned nor counted.

    Args:
        numbers: Class numbers that occur.
        names: Names of the classes, by number; None where they have none.
        where: What was looked at, for the warning.
    """
    present = set(numbers)
    unused = [name for number, name in enumerate(names or ()) if number not in present]
    if unused:
        logger.warning(
            "No image of %s has the class %s: it can neither be learned nor counted there.",
            where,
            _shown(unused),
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _column(rows: Any) -> list:
    import pyarrow as pa

    if isinstance(rows, pa.Array | pa.ChunkedArray):
        return rows.to_pylist()
    return rows.with_format(None)["label"][:]


def _plain(values: list, name: str) -> list[str | int | None]:
    """Labels as text or whole numbers; None where there is none.

    Raises:
        UserError: A number that is no class.
    """
    plain: list[str | int | None] = []
    for row, value in enumerate(values):
        if value is None or value == NONE or (isinstance(value, float) and np.isnan(value)):
            plain.append(None)
        elif isinstance(value, bool):
            plain.append("true" if value else "false")
        elif isinstance(value, str):
            plain.append(value)
        elif isinstance(value, int | float) and float(value).is_integer() and value >= 0:
            plain.append(int(value))
        else:
            raise UserError(
                f"The label in row {row} of {name} is {value!r}, which is no class: name another "
                "column with columns={'label': ...}, or store class names or numbers from 0."
            )
    return plain


def _names(columns: Sequence[Sequence[str | int | None]], name: str) -> list[str | int]:
    values = {value for column in columns for value in column if value is not None}
    if not values:
        raise UserError(
            f"All labels of {name} are missing (null or -1): leave the column out, or fill it."
        )
    if len(values) > _MOST_CLASSES:
        raise UserError(
            f"The 'label' column of {name} has {len(values)} different values, which are no "
            "classes: name another one with columns={'label': ...}."
        )
    return sorted(values, key=lambda value: natural(str(value)))


def _names_beside(
    rows: Any, values: Sequence[str | int | None], names: Sequence[str | int]
) -> list[str]:
    """Names of numbered classes by a column of text beside them, where it names each one alone."""
    plain = [str(name) for name in names]
    if isinstance(names[0], str):
        return plain
    for column in _NAME_COLUMNS:
        feature = rows.features.get(column)
        if getattr(feature, "dtype", None) not in ("string", "large_string"):
            continue
        pairs = {
            pair
            for pair in zip(values, rows.with_format(None)[column][:], strict=True)
            if pair[0] is not None and pair[1]
        }
        of = dict(pairs)
        if len(pairs) == len(of) == len(names) == len(set(of.values())):
            return [str(of[name]) for name in names]
    return plain


def _with_labels(rows: Any, numbers: list[int], feature: Any) -> Any:
    """The rows with another `label` column, under a fingerprint that follows from both."""
    from datasets.fingerprint import update_fingerprint

    order = rows.column_names
    fingerprint = update_fingerprint(rows._fingerprint, "class_labels", {"names": feature.names})
    rows = rows.remove_columns("label").add_column(
        "label", numbers, new_fingerprint=fingerprint, feature=feature
    )
    return rows.select_columns(order)
