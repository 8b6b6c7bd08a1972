"""What a person said of the tiles: a CSV file that is only ever appended to."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import UserError
from .index import Index

# Heads of the column that names the tile and of the one that names its class.
_TILE = ("tile", "file", "file_name", "path", "row", "name")
_CLASS = ("label", "class", "category")
UNSURE = "unsure"  # what is answered of a tile in place of a class
# Column of the most probable class, which tells answers from what a person wrote.
ANSWER = "best"


@dataclass(frozen=True)
class Labels:
    """Labels of some tiles of a table.

    Attributes:
        rows: (n,) rows of the table, in growing order, each once.
        classes: (n,) class numbers.
        names: Names of the classes, by number.
        blank: Number of lines that name a tile and no class yet; they count for nothing.
    """

    rows: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    blank: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, told: Mapping[int, str]) -> Labels:
        """Labels of rows by class name; classes are numbered in the names' order.

        Args:
            told: Row of the table -> name of its class.

        Raises:
            UserError: A class of the name that answers have for doubt.
        """
        if UNSURE in told.values():
            raise UserError(
                f"A class is called {UNSURE!r}, which answers say where they doubt: call it "
                "otherwise, or leave the class empty where you are unsure."
            )
        names = tuple(sorted(set(told.values())))
        rows = np.array(sorted(told), np.int64)
        classes = np.array([names.index(told[int(row)]) for row in rows], np.int64)
        return cls(rows, classes, names)

    @classmethod
    def read(cls, path: str | os.PathLike[str], index: Index, *more: str) -> Labels:
        """Reads CSV files with a column for the tile and one for its class.

        The tile is named by its file, as `rs-models suggest` prints it, or in a column called `row`
        by its row. A tile that is named again has the class that was said last; a line without a
        class says nothing yet.

        Args:
            path: CSV file with a head, such as `tile,label`.
            index: The table whose tiles are labelled.
            *more: Further such files, read behind it.

        Raises:
            UserError: No such file, no such columns, or a tile that is not in the table; the
                sentence names the line.
        """
        told: dict[int, str] = {}
        blank = 0
        for file in (path, *more):
            sheet = _Sheet.read(Path(file))
            row_of = index.row_numbered if sheet.by_row else index.row_of
            for number, tile, name in sheet.labels():
                row = row_of(tile)
                if row is None:
                    raise UserError(
                        f"{file}, line {number}: the table has no tile {tile!r}. Were the labels "
                        "made for another table?"
                    )
                if name:
                    told[row] = name
                else:
                    blank += 1
        if not told:
            raise UserError(
                f"{path} holds no labels yet: write the class of a tile behind its name, as in "
                "'tile,class'."
            )
        return replace(cls.of(told), blank=blank)

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
    if path.exists() and path.stat().st_size:
        sheet = _Sheet.read(path)
        head = None if sheet.ends_in_line else sheet.newline
    else:
        sheet = _Sheet(path, ",", "\n", True, [(1, ["tile", "label"])])
        head = "tile,label\n"
    tile, label = sheet.places
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(head or "")
        writer = csv.writer(file, delimiter=sheet.delimiter, lineterminator=sheet.newline)
        for name, said in told:
            row = [""] * len(sheet.columns)
            row[tile], row[label] = name, said
            writer.writerow(row)


def holds_labels(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that a person labelled tiles in, and not answers that we wrote."""
    path = Path(path)
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        sheet = _Sheet.read(path)
        return ANSWER not in sheet.columns and any(name for _, _, name in sheet.labels())
    except UserError:  # whatever it is, it is no file of labels
        return False


@dataclass(frozen=True)
class _Sheet:
    """A CSV file as people and spreadsheets write it.

    Attributes:
        path: Where it lies, for messages.
        delimiter: Comma, semicolon or tab.
        newline: What its lines end in.
        ends_in_line: Whether its last line does so, too.
        lines: Number and values of each line that is not empty, the head first.
    """

    path: Path
    delimiter: str
    newline: str
    ends_in_line: bool
    lines: list[tuple[int, list[str]]]

    @classmethod
    def read(cls, path: Path) -> _Sheet:
        """Reads the file whole.

        Raises:
            UserError: It cannot be read, or is no CSV file in UTF-8.
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise UserError(f"Cannot read the labels {path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise UserError(
                f"{path}, line {line}: this is no UTF-8. Save it as 'CSV UTF-8', as spreadsheets "
                "call it."
            ) from error
        first, _, rest = text.partition("\n")
        skipped = 0
        if first.strip().lower().startswith("sep="):  # which Excel writes and reads
            delimiter, text, skipped = first.strip()[4:5] or ",", rest, 1
        else:
            delimiter = next((mark for mark in "\t;" if mark in first), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            read = [(reader.line_num + skipped, values) for values in reader]
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num + skipped}: {error}.") from error
        lines = [(number, values) for number, values in read if any(v.strip() for v in values)]
        newline = "\r\n" if "\r\n" in text else "\n"
        return cls(path, delimiter, newline, text.endswith("\n"), lines)

    @property
    def columns(self) -> list[str]:
        """Names in the head, in small letters."""
        return [name.strip().lower() for name in self.lines[0][1]] if self.lines else []

    @property
    def places(self) -> tuple[int, int]:
        """Columns of the tile and of its class.

        Raises:
            UserError: There is no such column.
        """
        columns = self.columns
        for wanted in (_TILE, _CLASS):
            if not set(wanted) & set(columns):
                raise UserError(
                    f"{self.path} has the columns {', '.join(columns) or '(none)'}: its first line "
                    "must name a 'tile' and a 'label'."
                )
        return (
            next(columns.index(name) for name in _TILE if name in columns),
            next(columns.index(name) for name in _CLASS if name in columns),
        )

    @property
    def by_row(self) -> bool:
        """Whether tiles are named by their rows in the table."""
        return self.columns[self.places[0]] == "row"

    def labels(self) -> list[tuple[int, str, str]]:
        """Number, tile and class of each line below the head.

        Raises:
            UserError: A line that ends before them.
        """
        tile, label = self.places
        for number, values in self.lines[1:]:
            if len(values) <= max(tile, label):
                raise UserError(f"{self.path}, line {number}: it has no tile and class.")
        return [(n, values[tile].strip(), values[label].strip()) for n, values in self.lines[1:]]
