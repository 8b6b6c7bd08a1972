"""The desk of one user: a pile, the labels so far, and what they say of the rest.

A session has one of its own and nobody else's. Its methods change it one at a time, in the order
in which they are called, whichever of the page's threads runs them.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..errors import UserError
from ..labelling import Answers, Labels, classify, suggest
from .pile import EXAMPLE_CLASSES, Pile

SHEET = 12
"""Tiles that are suggested at a time."""
MAX_CLASSES = 9
"""Classes, one a key from 1 to 9."""
MAX_NAME = 40
"""Characters of a class's name."""
_REMEMBERED = 400  # steps that can be undone
# Below this probability an answer is "unsure".
_CONFIDENCE = 0.5

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _alone(method: _Method) -> _Method:
    """Runs a method of a desk while no other of its methods runs."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Step:
    """What was there before a change.

    Attributes:
        labels: Row -> class.
        classes: Names in the keys' order.
        sheet: Rows of the sheet.
        title: What the sheet shows.
    """

    labels: dict[int, str]
    classes: tuple[str, ...]
    sheet: tuple[int, ...]
    title: str


class Desk:
    """A pile with the labels of one user.

    Args:
        pile: Its tiles.
        classes: Names of classes to begin with.
        labels: Row -> class to begin with.

    Attributes:
        pile: Its tiles.
        classes: Names of the classes, in the order of their keys.
        labels: Row -> name of its class, so far.
        sheet: Rows that are shown to be labelled.
        title: What the sheet shows.
    """

    def __init__(
        self, pile: Pile, classes: Sequence[str] = (), labels: Mapping[int, str] | None = None
    ) -> None:
        """Lays the first tiles on the sheet."""
        self.pile = pile
        self.labels = dict(labels or {})
        self.classes = list(dict.fromkeys([*classes, *self.labels.values()]))
        self.sheet: list[int] = []
        self.title = ""
        self._steps: list[Step] = []
        self._heard: dict[int, int] = {}  # row -> when the last word on it was said
        self._answers: tuple[dict[int, str], Answers | None] | None = None
        self._lock = threading.RLock()
        self.lay_suggested()

    @_alone
    def mark(self, marks: Sequence[tuple[int, str | None, int]], classes: Sequence[str]) -> bool:
        """Labels tiles, or takes labels away; each change is a step of its own.

        The page says each change again until the sheet is another, since what it says may come
        late or out of order; what has been heard already, or a later word on, is passed over.

        Args:
            marks: Row, class (None takes the label away), and a number that grows with time.
            classes: Names of the classes, in the order of their keys.

        Returns:
            Whether there was anything new.

        Raises:
            UserError: Rows that are not there, names that are none, or too many of both.
        """
        if len(marks) > len(self.pile):
            raise UserError("These are more labels than your pile has tiles: load the page again.")
        if len(classes) > MAX_CLASSES:
            raise UserError(f"Name each class once, and {MAX_CLASSES} at most.")
        names = [checked_name(name) for name in classes]
        names += [name for name in dict.fromkeys(self.labels.values()) if name not in names]
        if len(names) > MAX_CLASSES or len(set(names)) != len(names):
            raise UserError(f"Name each class once, and {MAX_CLASSES} at most.")
        heard = [(self._row(row), name, moment) for row, name, moment in marks]
        if any(name is not None and name not in names for _, name, _ in heard):
            raise UserError("That class is not among yours: add it first.")
        is_new = names != self.classes
        self.classes = names
        for row, name, moment in sorted(heard, key=lambda mark: mark[2]):
            if moment <= self._heard.get(row, 0):
                continue
            self._heard[row] = moment
            if self.labels.get(row) == name:
                continue
            is_new = True
            self._remember()
            if name is None:
                del self.labels[row]
            else:
                self.labels[row] = name
        return is_new

    @_alone
    def rename(self, old: str, new: str) -> None:
        """Gives a class another name; that of another class joins the two.

        Raises:
            UserError: No such class, or no name.
        """
        new = checked_name(new)
        if old not in self.classes:
            raise UserError("That class is not among yours: add it first.")
        self._remember()
        self.classes = list(dict.fromkeys(new if name == old else name for name in self.classes))
        self.labels = {row: new if name == old else name for row, name in self.labels.items()}

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._steps)

    @_alone
    def undo(self) -> bool:
        """Takes back the last change, and shows the sheet that it was made on.

        Returns:
            Whether there was one.
        """
        if not self._steps:
            return False
        step = self._steps.pop()
        self.labels, self.classes = dict(step.labels), list(step.classes)
        self.sheet, self.title = list(step.sheet), step.title
        return True

    @_alone
    def lay_suggested(self) -> None:
        """Lays the tiles on the sheet that are most worth a label."""
        if len(self.labels) == len(self.pile):
            self._lay(range(min(SHEET, len(self.pile))), "Every tile has a label")
            return
        known = Labels.of(self.labels) if self.labels else None
        rows = suggest(self.pile.index, SHEET, labels=known)
        few = known is None or len(known) < 10 * max(2, len(known.names))
        self._lay(rows, "The most typical tiles without a label" if few else "Tiles in doubt")

    @_alone
    def lay_like(self, row: int) -> None:
        """Lays a tile on the sheet, and those that look most like it.

        Raises:
            UserError: A row that is not there.
        """
        row = self._row(row)
        index = self.pile.index
        near, _ = index.nearest(index.vectors[row], SHEET - 1, without=[row])
        self._lay([row, *near], f"{index.names[row]} and the tiles most like it")

    @_alone
    def lay_doubtful(self) -> None:
        """Lays the tiles on the sheet whose class is least sure.

        Raises:
            UserError: Labels of fewer than two classes.
        """
        self._lay(self.doubtful(), "The tiles in most doubt")

    @_alone
    def start_over(self) -> None:
        """Takes all labels away; this too can be undone."""
        self._remember()
        self.labels = {}
        self.lay_suggested()

    @_alone
    def answers(self) -> Answers | None:
        """What the labels say of all tiles; None while they are of fewer than two classes."""
        if self._answers is None or self._answers[0] != self.labels:
            known = Labels.of(self.labels) if len(set(self.labels.values())) > 1 else None
            found = classify(self.pile.index, known, confidence=_CONFIDENCE) if known else None
            self._answers = dict(self.labels), found
        return self._answers[1]

    @_alone
    def sure_answers(self) -> Answers:
        """The answers.

        Raises:
            UserError: Labels of fewer than two classes.
        """
        answers = self.answers()
        if answers is None:
            raise UserError("Label tiles of two classes first: then there are answers.")
        return answers

    @_alone
    def doubtful(self, count: int = SHEET) -> list[int]:
        """Rows without a label whose best two classes are closest, most doubtful first."""
        answers = self.sure_answers()
        top = np.partition(answers.probabilities, -2, axis=1)[:, -2:]
        margin = top[:, 1] - top[:, 0]
        margin[list(self.labels)] = np.inf
        rows = np.argsort(margin, kind="stable")[:count]
        return [int(row) for row in rows if np.isfinite(margin[row])]

    @_alone
    def checked(self) -> tuple[int, int] | None:
        """How many unlabelled tiles are answered right and how many there are, by the truth.

        None where the truth is not known, or the classes are not its own.
        """
        answers, truth = self.answers(), self.pile.truth
        if answers is None or not truth or not set(answers.names) <= set(truth):
            return None
        best = answers.probabilities.argmax(1)
        left = [row for row in range(len(self.pile)) if row not in self.labels]
        return sum(answers.names[best[row]] == truth[row] for row in left), len(left)

    def _lay(self, rows: Sequence[int] | np.ndarray, title: str) -> None:
        self.sheet, self.title = [int(row) for row in rows], title

    def _remember(self) -> None:
        step = Step(dict(self.labels), tuple(self.classes), tuple(self.sheet), self.title)
        self._steps = [*self._steps[1 - _REMEMBERED :], step]

    def _row(self, row: Any) -> int:
        if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row < len(self.pile):
            raise UserError("That tile is not, or no longer, in your pile: load the page again.")
        return row


def checked_name(name: Any) -> str:
    """The name of a class in one line.

    Raises:
        UserError: No name, or a long one.
    """
    text = " ".join(name.split()) if isinstance(name, str) else ""
    if not text or len(text) > MAX_NAME:
        raise UserError(f"The name of a class has 1 to {MAX_NAME} characters.")
    return text


def finished_example(pile: Pile) -> Desk:
    """A desk that has begun: the first tiles of the example labelled by what they are."""
    if not set(pile.truth) <= EXAMPLE_CLASSES.keys():
        return Desk(pile)
    names = [name for name in EXAMPLE_CLASSES if name in pile.truth]
    rows = [int(row) for row in suggest(pile.index, 2 * SHEET)]
    return Desk(pile, names, {row: pile.truth[row] for row in rows})
