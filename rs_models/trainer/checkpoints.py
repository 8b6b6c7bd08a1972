"""Checkpoints that a kill at any instant cannot spoil: written beside, renamed into place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..files import PARTIAL, replace_folder, settle, write_json

# Written last and removed first: a checkpoint is complete while it has this file.
STATE = "trainer_state.json"


def save(accelerator: Accelerator, folder: Path, state: dict[str, Any], *, keep_last: int) -> Path:
    """Saves everything that a run needs to continue to the bit.

    Args:
        accelerator: Holds model, optimizer and random states.
        folder: `<output_dir>/checkpoints`.
        state: Position in the run; `state["step"]` names the checkpoint.
        keep_last: Older ones beyond this number are removed, after the new one is in place.

    Returns:
        The new checkpoint's folder, `step-N`.
    """
    final = folder / f"step-{state['step']}"
    partial = folder / f".{final.name}.{PARTIAL}"  # one name for all processes
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(partial / STATE, state)
        replace_folder(partial, final)
        tidy(folder, keep_last=keep_last)
    accelerator.wait_for_everyone()
    return final


def complete(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    steps = [p for p in _step_folders(folder) if (p / STATE).is_file()]
    return sorted(steps, key=lambda p: int(p.name.removeprefix("step-")))


def tidy(folder: Path, *, keep_last: int) -> None:
    """Removes what a kill left half written or half removed, and all but the last checkpoints."""
    for previous in folder.glob(".step-*.previous"):
        settle(folder / previous.name.removeprefix(".").removesuffix(".previous"))
    for leftover in [*folder.glob(f".step-*.{PARTIAL}"), *folder.glob("step-*.partial")]:
        shutil.rmtree(leftover, ignore_errors=True)
    for old in folder.glob("step-*.old"):  # set aside by an earlier version
        shutil.rmtree(old, ignore_errors=True)
    kept = complete(folder)[-keep_last:]
    for checkpoint in _step_folders(folder):
        if checkpoint not in kept:
            (checkpoint / STATE).unlink(missing_ok=True)
            shutil.rmtree(checkpoint, ignore_errors=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The position that a checkpoint was saved at."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def _step_folders(folder: Path) -> list[Path]:
    return [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
