"""What can be wrong with a file of a data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set's files.

    Attributes:
        file: Which one; a folder for a class as a whole.
        what: What is wrong with it.
    """

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class BadFile(ValueError):
    """A file that cannot be used; the text says why."""
