"""Reading a checkpoint without running anything in it, and where its conversion may go."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..export.places import check_replaceable

# Of the messages of torch's restricted reader: a name that is not on its list, or an object built
# from one.
_CODE = re.compile(r"GLOBAL (?P<name>[\w.]+)|Trying to (?!load)|Can only (?:create|build)")
# Pickle codes that it does not read: the frames of protocol 4 (149), and other ways to fetch a name
# (STACK_GLOBAL, INST, OBJ, NEWOBJ_EX, EXT1, EXT2, EXT4).
_UNREADABLE = re.compile(r"Unsupported operand (?:149|147|105|111|146|130|131|132)\b")


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in a checkpoint, on the CPU, without running anything in it.

    Args:
        file: `.safetensors`, or anything that `torch.save` wrote, by whatever name.

    Raises:
        UserError: The file is missing, cut short, no checkpoint, or holds objects other than
            tensors, numbers, text and plain containers of them.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} is not a file: give the checkpoint that the authors published.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(file)
        else:
            with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
                warnings.simplefilter("ignore")  # on pickle protocols: the error below says it
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers of broken files raise nearly every built-in type
        raise UserError(_why_unread(file, error)) from error
    if not isinstance(content, Mapping):
        raise UserError(
            f"{file} holds a {type(content).__name__} and not a dictionary of weights: save the "
            "model's state_dict."
        )
    return dict(content)


def _harmless() -> list[Any]:
    """Types, beside tensors and containers, that the authors' training scripts save.

    Options (`args` of DINO) and numpy numbers (a best accuracy). They hold values and nothing else:
    a Namespace sets attributes on itself, and a scalar reads its bytes as the number that the dtype
    says. torch names both kinds in its own advice. Nothing else is ever added here.
    """
    import numpy as np
    from numpy._core.multiarray import scalar  # what numbers pickle as

    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
    # numpy 1 pickled under the other name.
    return [argparse.Namespace, np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar"), *dtypes]


def _why_unread(file: Path, error: Exception) -> str:
    message = str(error) if isinstance(error, pickle.UnpicklingError) else ""
    code = _CODE.search(message)
    if code or _UNREADABLE.search(message):
        what = f" ({code['name']})" if code and code["name"] else ""
        return (
            f"{file} {'contains' if code else 'is pickled so that it may hide'} objects that would "
            f"run code when loaded{what}, so it was not loaded: ask its authors for a file of "
            "tensors only, or save the state_dict again with torch.save where you trust the file."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"Cannot read {file}: {error.strerror}."
    if ".tar format" in str(error):
        return (
            f"{file} is in torch's oldest format, which cannot be read without running code: save "
            "its state_dict again with torch.save where you trust the file."
        )
    return f"{file} is cut short or no checkpoint of torch or safetensors: download it again."


def check_output(output: Path, file: Path) -> None:
    """Refuses to replace what is no model: `export` replaces whole folders."""
    if not output.exists():
        return
    if output.is_dir() and file.resolve().is_relative_to(output.resolve()):
        raise UserError(f"{file} lies in {output}, which would be replaced: give another --output.")
    if not output.is_dir() or (any(output.iterdir()) and not (output / "config.json").exists()):
        raise UserError(f"{output} exists and is no model's folder: give another --output.")
    check_replaceable(output, folders=("segmentation",))
