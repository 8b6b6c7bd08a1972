"""What a person said of the tiles: a CSV file that is only ever appended to."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from .index import Index

# Heads of the column that names the tile and of the one that names its class.
_TILE = ("tile", "file", "file_name", "path", "row", "name")
_CLASS = ("label", "class", "category")


@dataclass(frozen=True)
class Labels:
    """Labels of some tiles of a table.

    Attributes:
        rows: (n,) rows of the table, in growing order, each once.
        classes: (n,) class numbers.
        names: Names of the classes, by number.
    """

    rows: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, told: Mapping[int, str]) -> Labels:
        """Labels of rows by class name; classes are numbered in the names' order.

        Args:
            told: Row of the table -> name of its class.
        """
        names = tuple(sorted(set(told.values())))
        rows = np.array(sorted(told), np.int64)
        classes = np.array([names.index(told[int(row)]) for row in rows], np.int64)
        return cls(rows, classes, names)

    @classmethod
    def read(cls, path: str | os.PathLike[str], index: Index) -> Labels:
        """Reads a CSV file with a column for the tile and one for its class.

        The tile is named by its file or by its row, as `rs-models suggest` prints it. A tile that
        is named again has the class that was said last.

        Args:
            path: CSV file with a head, such as `tile,label`.
            index: The table whose tiles are labelled.

        Raises:
            UserError: No such file, no such columns, a tile that is not in the table, or a line
                without a class; the sentence names the line.
        """
        told: dict[int, str] = {}
        for number, tile, name in _lines(Path(path)):
            row = index.row_of(tile)
            if row is None:
                raise UserError(
                    f"{path}, line {number}: the table has no tile {tile!r}. Were the labels made "
                    "for another table?"
                )
            if not name:
                raise UserError(f"{path}, line {number}: the tile {tile!r} has no class.")
            told[row] = name
        if not told:
            raise UserError(
                f"{path} holds no labels yet: write a line 'tile,class' under its head."
            )
        return cls.of(told)

    def counts(self) -> dict[str, int]:
        """Class name -> labelled tiles."""
        counted = Counter(self.classes.tolist())
        return {name: counted[number] for number, name in enumerate(self.names)}


def append(path: str | os.PathLike[str], told: Sequence[tuple[str, str]]) -> None:
    """Adds labels to a file; what a person wrote there stays as it is.

    Args:
        path: CSV file; made with a head where it is missing.
        told: (tile, class) pairs.

    Raises:
        UserError: A file whose head has no columns for them.
    """
    path = Path(path)
    new = not path.exists() or path.stat().st_size == 0
    columns = ["tile", "label"] if new else _head(path)
    tile, label = (0, 1) if new else _places(path, columns)
    ends_in_line = new or path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8", newline="") as file:
        if not ends_in_line:
            file.write("\n")
        mark = "," if new else _dialect(path).delimiter
        writer = csv.writer(file, delimiter=mark, lineterminator="\n")
        if new:
            writer.writerow(columns)
        for name, said in told:
            row = [""] * len(columns)
            row[tile], row[label] = name, said
            writer.writerow(row)


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """Number, tile and class of each line below the head that is not empty."""
    tile, label = _places(path, _head(path))
    lines = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, _dialect(path))
        next(reader)
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) <= max(tile, label):
                raise UserError(f"{path}, line {reader.line_num}: it has no tile and class.")
            lines.append((reader.line_num, values[tile].strip(), values[label].strip()))
    return lines


def _head(path: Path) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head = next(csv.reader(file, _dialect(path)), [])
    except OSError as error:
        raise UserError(f"Cannot read the labels {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error}).") from error
    return [column.strip().lower() for column in head]


def _dialect(path: Path) -> type[csv.Dialect]:
    """Commas, or the semicolons and tabs of a spreadsheet."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        head = file.readline()

    class Dialect(csv.excel):
        delimiter = next((mark for mark in "\t;" if mark in head), ",")

    return Dialect


def _places(path: Path, columns: Sequence[str]) -> tuple[int, int]:
    for wanted in (_TILE, _CLASS):
        if not set(wanted) & set(columns):
            raise UserError(
                f"{path} has the columns {', '.join(columns) or '(none)'}: its first line must "
                "name a 'tile' and a 'label'."
            )
    return (
        next(columns.index(name) for name in _TILE if name in columns),
        next(columns.index(name) for name in _CLASS if name in columns),
    )
