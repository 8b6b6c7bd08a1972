"""Files of a folder, and which of them belong to which split and class."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from .names import SPLITS, natural, split_of

# What systems and programs leave beside images.
_SIDE_FILES = {"thumbs.db", "desktop.ini", "__macosx", "__pycache__"}
# Folders that say what kind of file they hold and nothing about its class.
_IMAGE_WORDS = {"image", "images", "img", "imgs", "jpegimages", "sat", "tiles", "chips", "rgb"}
_MASK_WORDS = {
    *("mask", "masks", "label", "labels", "gt", "map", "annotation", "annotations"),
    *("segmentation", "segmentations", "groundtruth", "ground_truth"),
}


def files_below(root: Path, suffixes: Sequence[str] | set[str] | None = None) -> list[Path]:
    """The files of a folder, sorted; links to folders are followed, hidden and side files are not.

    Args:
        root: Folder.
        suffixes: Lower-case endings to keep; None keeps all files.
    """
    files: list[Path] = []
    for path, folders, names in os.walk(root, followlinks=True):
        here = Path(path)
        real = os.path.realpath(here)
        folders[:] = sorted(
            name
            for name in folders
            if not is_side_file(name) and not _leads_up(real, os.path.realpath(here / name))
        )
        for name in names:
            file = here / name
            wanted = suffixes is None or file.suffix.lower() in suffixes
            if wanted and not is_side_file(name) and file.is_file():
                files.append(file)
    return sorted(files)


def is_side_file(name: str) -> bool:
    """Whether a name is hidden, or what a system or program leaves beside one's own files."""
    return name.startswith(".") or name.lower() in _SIDE_FILES


def _leads_up(folder: str, target: str) -> bool:
    """Whether a link in a folder leads back to it or above it, where a walk would not end."""
    return folder == target or folder.startswith(target.rstrip(os.sep) + os.sep)


@dataclass
class Layout:
    """How the images of a folder are divided.

    Attributes:
        splits: Split -> its images with the class of each; None where the folder has no classes.
        named: Whether folders name the splits; else all images are `train`.
        classes: Classes of all splits, in natural order.
    """

    splits: dict[str, dict[Path, str | None]]
    named: bool
    classes: list[str] = field(default_factory=list)


def divide(root: Path, files: Sequence[Path]) -> Layout:
    """Splits and classes of images by the folders that they lie in.

    Splits may be the upper folders (train/forest/x.jpg), the lower ones (forest/train/x.jpg), or
    lie below one folder for all (images/train/x.jpg).

    Args:
        root: The data set's folder.
        files: The data set's images.

    Raises:
        UserError: What cannot be told apart, by its folders' names.
    """
    folders = {file: file.relative_to(root).parts[:-1] for file in files}
    shared = _shared(list(folders.values()))
    below = {file: parts[shared:] for file, parts in folders.items()}
    heads = sorted({parts[0] for parts in below.values() if parts})
    splits = {head: split for head in heads if (split := split_of(head))}
    loose = next((file for file, parts in below.items() if not parts), None)
    if loose is not None and heads:
        kind = "split" if splits else "class"
        raise UserError(
            f"{loose} lies beside {kind} folders: move it into one, or keep all images in one "
            "folder."
        )
    if splits and len(splits) < len(heads) and _is_class(below, heads, splits, root):
        splits = {}
    if splits:
        return _layout(
            {file: (splits[parts[0]], parts[1:]) for file, parts in below.items()}, root, True
        )
    _refuse_masks(heads, root)
    inner = {file: split_of(parts[1]) if len(parts) > 1 else None for file, parts in below.items()}
    if inner and all(inner.values()):  # forest/train/x.jpg
        return _layout(
            {file: (inner[file] or "", (parts[0], *parts[2:])) for file, parts in below.items()},
            root,
            True,
        )
    if any(inner.values()):
        odd = next(file for file, split in inner.items() if split is None)
        raise UserError(
            f"Some class folders of {root} have split folders in them and others have not "
            f"(first: {odd}): give all classes the same splits."
        )
    return _layout({file: ("train", parts) for file, parts in below.items()}, root, False)


def _shared(folders: list[tuple[str, ...]]) -> int:
    """Upper folders that all images lie in; the last one stays where it is a split or a class."""
    if not folders:
        return 0
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1 or split_of(level[0]):
            break
        shared += 1
    ends = {parts[shared:] for parts in folders}
    if ends == {()} and folders[0] and folders[0][-1].lower() not in _IMAGE_WORDS:
        shared -= 1  # a data set of a single class
    return max(shared, 0)


def _is_class(
    below: dict[Path, tuple[str, ...]], heads: list[str], splits: dict[str, str], root: Path
) -> bool:
    """Whether a folder with a split's name is a class among others: `train` beside `ship`.

    Raises:
        UserError: It cannot be told.
    """
    others = [head for head in heads if head not in splits]
    flat = all(len(parts) == 1 for parts in below.values())
    begins = any(split_of(_first_word(other)) for other in others)
    if flat and len(splits) == 1 and len(others) > 1 and not begins:
        return True
    raise UserError(
        f"{root} has the split folders {', '.join(splits)} beside {', '.join(others[:5])}: rename "
        "the latter after a split (train, validation, test), or move them away."
    )


def _first_word(name: str) -> str:
    return name.replace("-", "_").partition("_")[0]


def _refuse_masks(heads: Sequence[str], root: Path) -> None:
    masks = [head for head in heads if head.lower() in _MASK_WORDS]
    images = [head for head in heads if head.lower() in _IMAGE_WORDS]
    if masks and images:
        raise UserError(
            f"{root} has a folder of images ({images[0]}) and one of masks ({masks[0]}), which are "
            "no classes: give the folder of images alone, or make a data set of both with "
            "rs-models windows."
        )


def _layout(placed: dict[Path, tuple[str, tuple[str, ...]]], root: Path, named: bool) -> Layout:
    splits: dict[str, dict[Path, str | None]] = defaultdict(dict)
    levels = {parts for _, parts in placed.values()}
    _refuse_masks(sorted({parts[0] for parts in levels if parts}), root)
    wrapped = all(len(parts) == 1 and parts[0].lower() in _IMAGE_WORDS for parts in levels)
    flat = wrapped or all(not parts for parts in levels)
    for file, (split, parts) in placed.items():
        if not flat and not parts:
            raise UserError(
                f"{file} lies beside class folders: move it into one, or keep all images in one "
                "folder."
            )
        splits[split][file] = None if flat else "/".join(parts)
    classes = {name for images in splits.values() for name in images.values() if name is not None}
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return Layout(ordered, named, sorted(classes, key=natural))
