"""The tasks by name. A row a task; its module is imported when the task is asked for."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .task import Task

# Word in settings -> module of this package and class.
TASKS: dict[str, tuple[str, str]] = {
    "classification": ("classification", "Classification"),
    "multilabel": ("multilabel", "MultiLabel"),
    "segmentation": ("segmentation", "Segmentation"),
    "detection": ("detection", "Detection"),
}


@cache
def task(name: str) -> Task:
    """The task of a name.

    Raises:
        UserError: There is none.

    Example:
        >>> task("detection").metric[0]
        'AP50'
    """
    check_name(name)
    module, kind = TASKS[name]
    return getattr(import_module(f".{module}", __package__), kind)()


def check_name(name: str) -> None:
    """Refuses a name that is no task's, without importing any.

    Raises:
        UserError: Naming those that are.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"There is no task {name!r}{hint}: use one of {', '.join(TASKS)}.")
