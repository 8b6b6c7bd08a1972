"""Names that data sets are known by: columns, splits and their spellings, order of classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError

# Value of a mask's pixels that have no class.
IGNORE = 255
# Beside the images of a mixture: {"sets": {name: every n-th}, ...}.
MIXTURE, _AND = "mixture.json", "+"
COLUMNS = ("image", "label", "mask", "objects", "nir")
SPLITS = ("train", "validation", "test")

# The spellings of folders, files and Hub splits. `eval` may be either of two and is in none.
_SPELLINGS = {
    "train": ("train", "training", "trn", "trainval"),
    "validation": ("validation", "valid", "val", "validate", "dev"),
    "test": ("test", "testing", "tst"),
}
_OF = {spelling: split for split, spellings in _SPELLINGS.items() for spelling in spellings}
# What people hang on to a split's name: train_set, train-images, val2017.
_ADDED = re.compile(r"^(set|sets|data|dataset|split|images|image|imgs|img|chips|tiles|\d+)$")


def split_of(name: str) -> str | None:
    """The split that a folder's, file's or Hub split's whole name stands for, None for no split.

    Example:
        >>> [split_of(name) for name in ("Training", "val2017", "test_set", "trains", "forest")]
        ['train', 'validation', 'test', None, None]
    """
    words = _words(name)
    if not words or words[0] not in _OF:
        return None
    return _OF[words[0]] if all(_ADDED.match(word) for word in words[1:]) else None


def split_in(name: str) -> str | None:
    """The one split that is a word of a file's name, as in eurosat_train-00000-of-00003.

    Raises:
        UserError: More than one split is named.
    """
    splits = {_OF[word] for word in _words(name) if word in _OF}
    if len(splits) > 1:
        raise UserError(f"{name} names more than one split: rename it after one of them.")
    return splits.pop() if splits else None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", name.lower())


def standard_split(name: str) -> str:
    """A split's standard name; a name of one's own stays what it is."""
    return split_of(name) or name


def data_name(name_or_path: str | os.PathLike[str]) -> str:
    """What a data set is called in records: its id, or a local folder's own name.

    A mixture (see `mixture.write_mixture`) is called by the sets in it, `aid96+eurosat64`.

    Args:
        name_or_path: As for `rs_models.data.load`.

    Example:
        >>> data_name("timm/eurosat-rgb"), data_name("synthetic:num=8")
        ('timm/eurosat-rgb', 'synthetic:num=8')
    """
    path = Path(name_or_path)
    if not path.exists():
        return str(name_or_path)
    try:
        record = json.loads((path / MIXTURE).read_text(encoding="utf-8"))
        return _AND.join(record["sets"])
    except (OSError, ValueError, TypeError, KeyError):  # no mixture of ours
        return path.resolve().name


def sets_of(data: str) -> list[str]:
    """Names of the data sets in what a record calls its data.

    Example:
        >>> sets_of("aid96+eurosat64:train"), sets_of("timm/eurosat-rgb")
        (['aid96', 'eurosat64'], ['timm/eurosat-rgb'])
    """
    return data.partition(":")[0].split(_AND)


class MissingSplitError(UserError):
    """A split that the data does not have."""


def missing_split(split: str, there: Iterable[str], name: str) -> MissingSplitError:
    """The error for a split that does not exist."""
    return MissingSplitError(
        f"{name} has no split {split!r}: it has {', '.join(there) or 'none'}; ask for one of them."
    )


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names as people count: 2 before 10.

    Example:
        >>> sorted(["10", "9", "class2", "class11"], key=natural)
        ['9', '10', 'class2', 'class11']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
