"""The files of a data set, from folders and archives as their owners give them."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError

_SKIPPED = {"__MACOSX", ".DS_Store", "Thumbs.db", ".git"}


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
        for path in folder.rglob("*"):
            name = path.relative_to(folder)
            if path.is_file() and not _SKIPPED & set(name.parts):
                found.append((name.as_posix(), path))
    return sorted(found)


def checksums(sources: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Name -> sha256 of the sources that are archives."""
    return {path.name: sha256(path) for path in map(Path, sources) if path.is_file()}


def sha256(path: Path) -> str:
    """Hash of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def _unpack(archive: Path, target: Path) -> Path:
    if not archive.is_file():
        raise UserError(f"There is no file or folder {archive}.")
    target.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _refuse_escapes(archive, file.namelist())
                file.extractall(target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as bundle:
                _refuse_escapes(archive, _members(archive, bundle))
                bundle.extractall(target, filter="data")
        else:
            kind = "RAR archives" if archive.suffix.lower() == ".rar" else "this kind of file"
            raise UserError(
                f"{archive} cannot be unpacked here ({kind}): unpack it yourself and give the "
                "folder."
            )
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} is damaged or cannot be unpacked: {error}") from error
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
