"""Files that are written beside their place and renamed into it, and what a kill left of them."""

from __future__ import annotations

import errno
import getpass
import hashlib
import itertools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import UserError

# In the name of what is being written, hidden beside its place:
# `.NAME.<process>-<number>@<host>.partial.SUFFIX`.
PARTIAL = "partial"
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
    if path.is_dir():  # before anything is computed for it
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(path)
    partial = beside(path)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # a rename may reach the disk before the content does
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # a name that is too long cannot be asked for either
            partial.unlink(missing_ok=True)
        with suppress(OSError):  # what somebody else has meanwhile written to it stays
            if is_new:
                path.parent.rmdir()
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
    remove_dead(place)
    folder = beside(place)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuses a place where nothing can be written, before anything is computed for it.

    Args:
        path: A file or folder, which need not be there yet, nor the folders above it.

    Raises:
        UserError: Naming the place and why.
    """
    path = Path(os.path.abspath(path))
    try:
        there = next(part for part in (path, *path.parents) if _is_there(part))
        if there == path and not path.is_dir():  # a file, which is replaced
            there = path.parent
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not _takes_files(there):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"{path} cannot be written ({why}): choose another place.") from error


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)  # `exists` says of a name that is too long that it is missing
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made in a folder: tried with one that has no name, where there are."""
    if folder.is_relative_to("/proc"):  # which says that it is writable
        return False
    if hasattr(os, "O_TMPFILE"):
        try:
            os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
        else:
            return True
    return os.access(folder, os.W_OK)


def complete(folder: str | os.PathLike[str], pattern: str) -> list[Path]:
    """The files of a folder by a pattern, sorted, without those that are being written.

    Args:
        folder: The folder; one that is missing has none.
        pattern: As of `Path.glob`, which takes hidden names too.
    """
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))


def readable(folder: Path) -> None:
    """Lets others read what temporary folders and safetensors write for their owner only."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a file's content, 64 hex digits, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside(path: Path) -> Path:
    """Where a file or folder is made, in the same folder, under a name that no other writer has."""
    suffix = path.suffix
    stem = path.name.removesuffix(suffix)
    owner = f"{os.getpid()}-{next(_NUMBERS)}@{_host()}"
    return path.with_name(f".{stem}.{owner}.{PARTIAL}{suffix}")


def _host() -> str:
    return socket.gethostname().replace(".", "_")


def remove_dead(path: Path) -> None:
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
