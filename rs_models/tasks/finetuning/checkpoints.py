"""Checkpoints of transformers' Trainer, which writes them in place: whole ones are marked.

The mark comes last and goes first, so that a kill at any instant leaves no checkpoint that looks
whole and is not.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ...files import write_text

_PREFIX = "checkpoint-"
_MARK = "complete"


def complete(folder: Path, step: int, *, best: str | None) -> None:
    """Marks a checkpoint as whole, then removes the older ones but for the best.

    Args:
        folder: Folder of the checkpoints.
        step: Step of the checkpoint that was just written.
        best: Folder of the one with the best score.
    """
    newest = folder / f"{_PREFIX}{step}"
    write_text(newest / _MARK, "")
    for other in folder.glob(f"{_PREFIX}*"):
        if other != newest and (best is None or other.name != Path(best).name):
            _remove(other)


def remove_incomplete(folder: Path) -> None:
    """Removes what a kill left half written or half removed."""
    for checkpoint in folder.glob(f"{_PREFIX}*"):
        if not (checkpoint / _MARK).is_file():
            _remove(checkpoint)


def newest(folder: Path) -> Path | None:
    """The last checkpoint that is whole; None where there is none."""
    whole = [path for path in folder.glob(f"{_PREFIX}*") if (path / _MARK).is_file()]
    return max(whole, key=lambda path: int(path.name.removeprefix(_PREFIX)), default=None)


def _remove(checkpoint: Path) -> None:
    (checkpoint / _MARK).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)
