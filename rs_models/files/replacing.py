"""Folders that are filled beside their place and put in the place of an older one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .writing import beside, readable, remove_dead

_PREVIOUS = "previous"


@contextmanager
def replaced(folder: str | os.PathLike[str], *, first_stays: bool = False) -> Iterator[Path]:
    """Lets a folder be filled beside its place, then puts it in the place of an older one.

    Args:
        folder: The folder; its parent is made where it is missing.
        first_stays: Whether a folder that another process has put there meanwhile stays, and the
            new one is dropped: for content that is the same whoever makes it.

    Yields:
        An empty folder to fill. If the block raises, it is removed and an older one stays.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    settle(folder)
    remove_dead(folder)
    partial = beside(folder)
    try:
        partial.mkdir()
        yield partial
        readable(partial)
        if not first_stays:
            replace_folder(partial, folder)
        elif not folder.exists():
            try:
                os.replace(partial, folder)
            except OSError:
                if not folder.exists():  # else another process came between
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(new: Path, final: Path) -> None:
    """Renames a complete folder to its place; an older one is set aside first and removed last."""
    with alone(final.parent):
        _settle(final)
        previous = _aside(final)
        if final.exists():
            os.replace(final, previous)
        os.replace(new, final)
        shutil.rmtree(previous, ignore_errors=True)


def settle(final: str | os.PathLike[str]) -> None:
    """Ends a replacement that a kill broke off: the older folder goes back, or goes away."""
    final = Path(final)
    if _aside(final).exists():
        with alone(final.parent):  # else it is one that still runs
            _settle(final)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes and threads out of this block for one folder; they wait.

    For the renames of what several files or folders must go through together. It falls with the
    process and leaves no file. Where a system or a network's disk has no such lock, nobody waits.

    Args:
        folder: A folder that is there.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _settle(final: Path) -> None:
    previous = _aside(final)
    if previous.exists():
        if final.exists():
            shutil.rmtree(previous)
        else:
            os.replace(previous, final)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{_PREVIOUS}")
