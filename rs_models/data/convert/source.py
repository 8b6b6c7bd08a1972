"""The files of a data set, from folders and archives as their owners give them."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ...files import sha256
from ..folders import files_below

# What an archive may become: more is a bomb, or a mistake.
_MOST_FILES = 5_000_000
_MOST_TIMES = 100  # its own size, where it becomes more than `_SMALL`
_SMALL = 2**30


def gather(sources: Sequence[str | os.PathLike[str]], scratch: Path) -> list[tuple[str, Path]]:
    """The files of all sources, archives unpacked, by their paths below them.

    Args:
        sources: Folders, zip and tar archives.
        scratch: Folder to unpack archives into; nothing is ever written outside of it.

    Returns:
        (path with "/", file), sorted by path.

    Raises:
        UserError: A source that is not there, or of another kind, damaged, or with a path that
            leads out of it.
    """
    found = []
    for number, source in enumerate(map(Path, sources)):
        folder = source if source.is_dir() else _unpack(source, scratch / str(number))
        for path in files_below(folder):
            # Archives made on Windows may have their folders in the files' names.
            found.append((path.relative_to(folder).as_posix().replace("\\", "/"), path))
    return sorted(found)


def checksums(sources: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Name -> sha256 of the sources that are archives."""
    return {path.name: sha256(path) for path in map(Path, sources) if path.is_file()}


def _unpack(archive: Path, target: Path) -> Path:
    if not archive.is_file():
        raise UserError(f"There is no file or folder {archive}.")
    target.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _refuse_escapes(archive, file.namelist())
                _refuse_bombs(archive, [info.file_size for info in file.infolist()], target)
                file.extractall(target)  # nosec B202: names and sizes are checked above
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as bundle:
                _refuse_escapes(archive, _members(archive, bundle))
                _refuse_bombs(archive, [member.size for member in bundle.getmembers()], target)
                bundle.extractall(target, filter="data")  # nosec B202: filtered, names checked above
        else:
            kind = "RAR archives" if archive.suffix.lower() == ".rar" else "this kind of file"
            raise UserError(
                f"{archive} cannot be unpacked here ({kind}): unpack it yourself and give the "
                "folder."
            )
    except (
        *(zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError),
        *(RuntimeError, zlib.error, lzma.LZMAError),
    ) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"The disk of {target} is full: free some room.") from error
        raise UserError(f"{archive} is damaged or cannot be unpacked: {error}.") from error
    return target


def _members(archive: Path, bundle: tarfile.TarFile) -> Iterator[str]:
    for member in bundle:
        if member.issym() or member.islnk():
            raise UserError(f"{archive} holds a link ({member.name}), which is not followed.")
        yield member.name


def _refuse_escapes(archive: Path, names: Sequence[str] | Iterator[str]) -> None:
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts:
            raise UserError(f"{archive} holds a path that leads out of it ({name}): do not use it.")


def _refuse_bombs(archive: Path, sizes: Sequence[int], target: Path) -> None:
    """Refuses an archive that would become more than it can be meant to, or than there is room.

    Raises:
        UserError: Naming the archive, its contents' size and the limit.
    """
    total = sum(sizes)
    limit = max(_SMALL, _MOST_TIMES * archive.stat().st_size)
    if len(sizes) > _MOST_FILES or total > limit:
        raise UserError(
            f"{archive} would become {len(sizes):,} files of {total / 2**30:.1f} GiB, more than "
            f"{_MOST_FILES:,} files or {limit / 2**30:.1f} GiB: unpack it yourself if you trust "
            "it, and give the folder."
        )
    free = shutil.disk_usage(target).free
    if total > free:
        raise UserError(
            f"{archive} becomes {total / 2**30:.1f} GiB, and the disk of {target} has "
            f"{free / 2**30:.1f} GiB left: free some room."
        )
