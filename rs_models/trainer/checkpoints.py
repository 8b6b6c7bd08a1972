"""Checkpoints that a kill at any instant cannot spoil: written beside, renamed into place."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

STATE = "trainer_state.json"


def save(accelerator: Accelerator, folder: Path, state: dict[str, Any], *, keep_last: int) -> Path:
    """Save everything that a run needs to continue to the bit.

    Args:
        accelerator: Holds model, optimizer, schedule and random states.
        folder: `<output_dir>/checkpoints`.
        state: Position in the run; `state["step"]` names the checkpoint.
        keep_last: Older ones beyond this number are removed, after the new one is in place.

    Returns:
        The new checkpoint's folder, `step-N`.
    """
    final = folder / f"step-{state['step']}"
    partial = folder / f"step-{state['step']}.partial"
    if accelerator.is_main_process and partial.exists():
        shutil.rmtree(partial)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
        replace_folder(partial, final)
        for old in complete(folder)[:-keep_last]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def complete(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    named = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    found = [p for p in named if (p / STATE).is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The position that a checkpoint was saved at."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def write_folder(final: Path, write: Callable[[Path], None]) -> Path:
    """Fill a folder beside `final` with `write(folder)`, then put it in the place of `final`."""
    partial = final.with_name(final.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    write(partial)
    replace_folder(partial, final)
    return final


def replace_folder(new: Path, final: Path) -> None:
    """Rename `new` to `final`; an old `final` is moved away first and removed last."""
    old = final.with_name(final.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    if final.exists():
        os.replace(final, old)
    os.replace(new, final)
    if old.exists():
        shutil.rmtree(old)
