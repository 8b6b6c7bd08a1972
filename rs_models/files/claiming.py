"""Folders that belong to one job, and to one running process at a time."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError
from .replacing import replaced
from .writing import PARTIAL, write_json

_LOCK = ".lock"


@contextmanager
def claim(
    folder: str | os.PathLike[str],
    job: Mapping[str, Any],
    *,
    record: str = "job.json",
    adopts: Callable[[Path], bool] | None = None,
    renews: bool = False,
    shown: Path | None = None,
) -> Iterator[bool]:
    """Holds a folder for one job while it is worked on.

    The lock falls with the process, however it ends. The job is recorded before anything else is
    written; afterwards the same job may go on in the folder, and another may not. What a killed run
    of it left half written is removed. A job that raises before it has written anything leaves the
    folder as it was, so that it can be started again with other settings.

    Args:
        folder: The job's folder; made where it is missing.
        job: What makes it this job and no other, as plain JSON values.
        record: File in the folder that holds the job, under the key `job`.
        adopts: Whether a folder with files but without a record may be taken (one of an earlier
            version, say); None takes none.
        renews: Whether what the folder holds of another job is removed for this one, unless a
            process works on it: for folders that hold intermediate work alone.
        shown: What the sentence about a running process names; None is the folder.

    Yields:
        Whether the folder held this job already, so that there may be something to go on with.

    Raises:
        UserError: The folder holds another job or foreign files, or a running process works in it.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    job = json.loads(json.dumps(job))  # as it will be read: lists for tuples
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder to write to.")
    if renews:
        pass
    elif (folder / record).is_file():
        _check_same(folder, job, record)  # before a lock is made in a folder that is not ours
    elif folder.is_dir() and not _free(folder, adopts):
        raise UserError(f"{folder} holds other files: choose another folder, or empty it.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(_held(folder, record, shown or folder)) from None
    except OSError:  # no room for it, say
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    recorded = True
    try:
        if renews and not _holds(folder, job, record):
            _empty(folder)
        recorded = (folder / record).is_file()
        content = _check_same(folder, job, record) if recorded else {"job": job}
        for path in folder.rglob(f".*.{PARTIAL}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        write_json(folder / record, {**content, "held_by": _holder()})
        yield recorded
        _let_go(folder / record)
    except BaseException:
        if not recorded and {path.name for path in folder.glob("*")} <= {record, _LOCK}:
            (folder / record).unlink(missing_ok=True)
        raise
    finally:
        # Removed while it is held: whoever waits for it finds another file and makes its own.
        if folder.exists():
            (folder / _LOCK).unlink(missing_ok=True)
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
        lock.release()


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Lets a folder that is not there yet be filled beside its place, by one process at a time.

    Args:
        folder: The folder; its parent is made where it is missing.

    Yields:
        An empty folder to fill. If the block raises, nothing of it stays.

    Raises:
        UserError: The folder exists, or a running process is making it.
    """
    folder = Path(folder)

    def check_new() -> None:
        if folder.exists() or folder.is_symlink():
            raise UserError(f"{folder} exists: choose another folder, or remove it.")

    check_new()
    work = folder.with_name(f".{folder.name}.making")
    with claim(work, {"makes": folder.name}, renews=True, shown=folder):
        try:
            with replaced(folder) as partial:
                yield partial
                check_new()
                shutil.rmtree(work)  # before the last rename, after which nothing lies beside it
        finally:
            shutil.rmtree(work, ignore_errors=True)


def read_job(folder: str | os.PathLike[str], record: str = "job.json") -> dict[str, Any] | None:
    """The record of a claimed folder; None where there is none.

    Raises:
        UserError: A record that is no JSON object with a job.
    """
    path = Path(folder) / record
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): choose another folder.") from error
    if not isinstance(content, dict) or not isinstance(content.get("job"), dict):
        raise UserError(f"{path} holds no job of ours: choose another folder.")
    return content


def _check_same(folder: Path, job: Mapping[str, Any], record: str) -> dict[str, Any]:
    content = read_job(folder, record)
    assert content is not None
    theirs = content["job"]
    changed = sorted(key for key in {*job, *theirs} if theirs.get(key) != job.get(key))
    if changed:
        raise UserError(
            f"{folder} holds another job ({', '.join(changed)} differ): choose another folder, or "
            "remove it."
        )
    return content


def _holds(folder: Path, job: Mapping[str, Any], record: str) -> bool:
    with suppress(UserError):
        return (read_job(folder, record) or {}).get("job") == job
    return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _free(folder: Path, adopts: Callable[[Path], bool] | None) -> bool:
    """Whether nothing lies there but what a job that was killed at its start left."""
    if adopts is not None and adopts(folder):
        return True
    return all(
        path.name == _LOCK or (path.name.startswith(".") and f".{PARTIAL}" in path.name)
        for path in folder.iterdir()
    )


def _holder() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _held(folder: Path, record: str, shown: Path) -> str:
    who = "another process"
    with suppress(UserError, OSError, KeyError, TypeError):
        holder = (read_job(folder, record) or {})["held_by"]
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    return f"{shown} is being worked on by {who}: wait for it, or choose another folder."


def _let_go(path: Path) -> None:
    """Takes the holder out of a record that the job may have added to."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("held_by", None):
            write_json(path, content)
