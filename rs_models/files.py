"""Files and folders that a kill at any instant cannot spoil, and folders that belong to one job.

Whatever this package writes is written beside its place and renamed into it, so that a reader finds
the old content or the new one and never a part. What a killed process left lying is named so that
the next run of the same job knows and removes it.
"""

from __future__ import annotations

import getpass
import hashlib
import itertools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import UserError

# In the name of what is being written, hidden beside its place:
# `.NAME.<process>-<number>@<host>.partial.SUFFIX`.
PARTIAL = "partial"
_PREVIOUS = "previous"
_LOCK = ".lock"
_ABANDONED = 86_400  # seconds after which what another machine left half written is removed
_NUMBERS = itertools.count()  # threads of a process write beside each other


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lets a file be written beside its place, then renames it into it.

    Args:
        path: The file; its folder is made where it is missing.

    Yields:
        Where to write, with the same suffix. If the block raises, nothing of it stays.

    Example:
        >>> import tempfile, pathlib
        >>> place = pathlib.Path(tempfile.mkdtemp()) / "table.csv"
        >>> with written(place) as partial:
        ...     _ = partial.write_text("a,b")
        >>> place.read_text()
        'a,b'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(path)
    partial = _beside(path)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # a rename may reach the disk before the content does
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replaces a file's content at once."""
    with written(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Replaces a file's content at once, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Replaces a file's content at once by JSON with an indent of two and a last line end."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """An empty folder in the system's temporary folder, for as long as the block runs.

    What processes that were killed left there under the name is removed first.

    Args:
        name: What it is for.

    Yields:
        The folder, which only this user may read.
    """
    place = Path(tempfile.gettempdir()) / f"{name}-{getpass.getuser()}"
    _remove_dead(place)
    folder = _beside(place)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    _remove_dead(folder)
    partial = _beside(folder)
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


def replace_folder(new: Path, final: Path) -> None:
    """Renames a complete folder to its place; an older one is set aside first and removed last."""
    settle(final)
    previous = _aside(final)
    if final.exists():
        os.replace(final, previous)
    os.replace(new, final)
    shutil.rmtree(previous, ignore_errors=True)


def settle(final: str | os.PathLike[str]) -> None:
    """Ends a replacement that a kill broke off: the older folder goes back, or goes away."""
    final = Path(final)
    previous = _aside(final)
    if previous.exists():
        if final.exists():
            shutil.rmtree(previous)
        else:
            os.replace(previous, final)


def readable(folder: Path) -> None:
    """Lets others read what temporary folders and safetensors write for their owner only."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a file's content, 64 hex digits, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _beside(path: Path) -> Path:
    suffix = path.suffix
    stem = path.name.removesuffix(suffix)
    owner = f"{os.getpid()}-{next(_NUMBERS)}@{_host()}"
    return path.with_name(f".{stem}.{owner}.{PARTIAL}{suffix}")


def _host() -> str:
    return socket.gethostname().replace(".", "_")


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{_PREVIOUS}")


def _remove_dead(path: Path) -> None:
    """Removes what dead processes left half written of a file or folder.

    A process of another machine (on a file system that both share) counts as dead after a day.
    """
    stem = path.name.removesuffix(path.suffix)
    for left in path.parent.glob(f".{_literal(stem)}.*.{PARTIAL}{_literal(path.suffix)}"):
        owner, _, host = left.name.removeprefix(f".{stem}.").partition(".")[0].partition("@")
        process = owner.partition("-")[0]
        if not process.isdigit():
            continue
        with suppress(FileNotFoundError):  # its writer, or another who cleans up, was faster
            if host in ("", _host()):
                dead = not _alive(int(process))
            else:
                dead = time.time() - left.stat().st_mtime > _ABANDONED
            if dead:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def _literal(name: str) -> str:
    """A name as a glob pattern that fits itself alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _alive(process: int) -> bool:
    with suppress(PermissionError):  # another user's
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
