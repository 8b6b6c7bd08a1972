"""Tables that name image files instead of holding them: none may name a file of elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError

_COLUMNS = ("image", "mask", "nir")


def contained(rows: Any, folder: Path | None, name: str) -> Any:
    """The rows of a table, once no image of theirs is a file outside of the data set's folder.

    A stranger's table could else have a file of this machine read, shown and published.

    Args:
        rows: Rows with standard columns, streamed ones too, which are checked as they come.
        folder: The data set's folder; None where it has none here, as on the Hub.
        name: The data's name, for the sentence.

    Raises:
        UserError: Naming the row and what it names.
    """
    from datasets import Image, IterableDataset

    columns = [column for column in _COLUMNS if isinstance(rows.features.get(column), Image)]
    root = None if folder is None else folder.resolve()
    if isinstance(rows, IterableDataset):
        return _as_they_come(rows, columns, root, name) if columns else rows
    for column in columns:
        first = 0
        for chunk in rows.data.column(column).chunks:
            if chunk.field("bytes").null_count:
                stored = zip(chunk.field("bytes").is_null(), chunk.field("path"), strict=True)
                for number, (is_file, path) in enumerate(stored):
                    if is_file.as_py():
                        _check(path.as_py(), root, f"{name}, row {first + number}")
            first += len(chunk)
    return rows


def _as_they_come(rows: Any, columns: list[str], root: Path | None, name: str) -> Any:
    from datasets import Image

    features = rows.features
    for column in columns:
        rows = rows.cast_column(column, Image(mode=features[column].mode, decode=False))

    def check(row: dict[str, Any], number: int) -> dict[str, Any]:
        for column in columns:
            if row[column] is not None and row[column]["bytes"] is None:
                _check(row[column]["path"], root, f"{name}, row {number}")
        return row

    # Mapped rows with features count as decoded; given theirs behind it, they are decoded then.
    return rows.map(check, with_indices=True).cast(features)


def _check(path: str | None, root: Path | None, where: str) -> None:
    if not path:
        return
    inside = root is not None and "://" not in path and "\0" not in path
    if not inside or not Path(path).resolve().is_relative_to(root or ""):
        raise UserError(
            f"{where} names the file {path}, which is no part of the data set, and holds no image: "
            "store the images in the table."
        )
