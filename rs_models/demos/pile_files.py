"""Files of a pile: what may be dropped, a zip's images within limits, and what one takes home."""

from __future__ import annotations

import errno
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import UserError
from ..labelling import Answers, Index
from ..labelling.answers import GEOMETRY, write_rows
from ..labelling.labels import append
from ..labelling.saving import save
from .keeping import result_folder
from .uploads import MAX_BYTES

MAX_TILES = 640
"""Tiles of a pile."""
MAX_UNPACKED = 512 * 2**20
"""Bytes that the images of an archive may have together."""
MAX_ENTRIES = 10_000
"""Entries that an archive may have, whatever they are."""
_ENTRY = b"PK\1\2"  # what each entry of a zip's directory begins with
# What zipfile and the decoders behind it raise: bzip2's are OSErrors, names' are ValueErrors.
_UNREADABLE = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError),
    *(zlib.error, lzma.LZMAError, struct.error, OverflowError),
)
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@contextmanager
def opened(files: Sequence[str]) -> Iterator[list[Path]]:
    """The images among uploads, archives unpacked while they are read.

    Args:
        files: Paths of images and zip archives.

    Raises:
        UserError: An archive that is damaged, locked or too large, no image, or too many.
    """
    scratch = result_folder()
    try:
        found: list[Path] = []
        left = MAX_UNPACKED  # of all archives together: any number of them may be dropped at once
        for number, file in enumerate(map(Path, files)):
            if file.suffix.lower() == ".zip":
                unpacked = _unpacked(file, scratch / str(number), left)
                left -= sum(path.stat().st_size for path in unpacked)
            else:
                unpacked = [file]
            found += unpacked
            if len(found) > MAX_TILES:
                raise UserError(
                    f"These are more than {MAX_TILES} images, the most that this page takes. "
                    "`rs-models embed` and `rs-models suggest` take any number."
                )
        yield found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpacked(archive: Path, folder: Path, left: int) -> list[Path]:
    """The images of a zip, of `left` bytes at most, in a folder of ours, under names of ours."""
    folder.mkdir()
    try:
        # Before Python's reader makes an object of each, whatever the archive's end says of them.
        if archive.read_bytes().count(_ENTRY) > MAX_ENTRIES:
            raise UserError(f"{archive.name} has more than {MAX_ENTRIES:,} entries: split it.")
        with zipfile.ZipFile(archive) as bundle:
            images = [entry for entry in bundle.infolist() if _is_image(entry)]
            if not images:
                raise UserError(f"{archive.name} holds no images: zip JPEG, PNG or TIFF files.")
            if len(images) > MAX_TILES:
                raise UserError(
                    f"{archive.name} holds {len(images)} images; {MAX_TILES} are the most that "
                    "this page takes."
                )
            paths: list[Path] = []
            for entry in images:
                content = _read(bundle, entry, archive.name, min(left, MAX_BYTES))
                left -= len(content)
                paths.append(folder / _free_name(folder, PurePosixPath(entry.filename).name))
                paths[-1].write_bytes(content)
            return paths
    except _UNREADABLE as error:
        if isinstance(error, UserError) or getattr(error, "errno", None) == errno.ENOSPC:
            raise  # a sentence of ours, or a full disk
        raise UserError(
            f"{archive.name} cannot be unpacked: it is no zip, damaged, or has a password."
        ) from error


def _is_image(entry: zipfile.ZipInfo) -> bool:
    if not entry.filename:  # damaged
        return False
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not entry.is_dir() and not hidden and path.suffix.lower() in _IMAGES


def _read(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, most: int) -> bytes:
    """An entry, whatever its head says of its size."""
    with bundle.open(entry) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(
            f"The images of {name} are too large unpacked: {MAX_BYTES // 2**20} MB an image and "
            f"{MAX_UNPACKED // 2**20} MB together are the most."
        )
    return content


def _free_name(folder: Path, name: str) -> str:
    """A short name that no other has; folders of an archive are not kept."""
    name = name.replace("\\", "/").rpartition("/")[2]
    # Letters may have four bytes each, and a file system takes 255.
    path = Path("".join(letter if letter.isprintable() else "_" for letter in name)[-60:])
    number, free = 1, path.name
    while (folder / free).exists():
        number += 1
        free = f"{path.stem}-{number}{path.suffix}"
    return free


def labels_file(index: Index, labels: Mapping[int, str]) -> str:
    """The labels so far as CSV, as `rs-models classify` takes them.

    Raises:
        UserError: No labels.
    """
    if not labels:
        raise UserError("There are no labels yet: label a tile first.")
    path = result_folder() / "labels.csv"
    append(path, [(index.names[row], name) for row, name in sorted(labels.items())])
    return str(path)


def answers_files(index: Index, answers: Answers) -> list[str]:
    """The answers as CSV, and as GeoPackage where the tiles have a place on the ground."""
    names = [answers.names[number] if number >= 0 else "unsure" for number in answers.classes]
    columns = {"label": names, "confidence": answers.probabilities.max(1).round(4)}
    folder, rows = result_folder(), range(len(index))
    endings = (".csv", ".gpkg") if GEOMETRY in index.table.column_names else (".csv",)
    return [str(write_rows(folder / f"answers{end}", index, rows, columns)) for end in endings]


def classifier_file(index: Index, answers: Answers) -> str:
    """The classifier as a zip of a folder that transformers loads."""
    folder = result_folder()
    save(answers, index, folder / "classifier")
    archive = shutil.make_archive(str(folder / "classifier"), "zip", folder, "classifier")
    shutil.rmtree(folder / "classifier")
    return archive
