"""Where a model may be written: over an older model of its kind, and over nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError

# Files of a model repository as this package writes them, its card and its run's settings included.
MODEL_FILES = re.compile(
    r"(config|preprocessor_config|model\.safetensors\.index)\.json|run\.yaml"
    r"|(model|timm)(-\d{5}-of-\d{5})?\.safetensors"
)
CARD = "README.md"
# Folder of a run, and of a backbone's repository, with the segmentation network of its decoder.
DECODER = "segmentation"


def check_replaceable(
    output: str | os.PathLike[str], *, card: str | None = None, folders: Sequence[str] = ()
) -> None:
    """Refuses a folder to write a model to whose present files would be lost.

    Args:
        output: The folder; it need not be there.
        card: What the README.md of an older model must hold for that one to be replaced; None
            replaces any model that has no README.md.
        folders: Names of folders that an older model may have.

    Raises:
        UserError: A file, or a folder with anything but such a model in it.
    """
    folder = Path(output)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UserError(f"{folder} exists and is no folder of ours: name another.")
    names = {path.name for path in folder.iterdir()}
    own = {name for name in names if MODEL_FILES.fullmatch(name) or name in folders}
    if CARD in names and card is not None:
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
        own |= {CARD} if card in text else set()
    foreign = sorted(names - own)
    if foreign or (names and card is not None and CARD not in names):
        raise UserError(
            f"{folder} exists and holds {(foreign or sorted(names))[0]}, which would be lost: "
            "name another folder."
        )


def decoder_of(source: str | os.PathLike[str]) -> Path | None:
    """The segmentation network that lies in a repository or beside a run's backbone; None of none.

    Args:
        source: Folder of an exported backbone, or of a run.
    """
    folder = Path(source)
    beside = folder.resolve().parent if folder.resolve().name == "export" else folder
    for place in (folder / DECODER, beside / DECODER):
        if (place / "model.safetensors").is_file():
            return place
    return None
