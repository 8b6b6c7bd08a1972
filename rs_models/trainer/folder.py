"""A run's folder: whose it is, what was made there before, and what must agree to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..errors import UserError
from ..files import claim
from .config import RunConfig

# What only a run that has come somewhere leaves; a new one does not begin over it.
MADE = ("checkpoints", "pretraining", "stages")
# Settings that a run may change when it goes on: they do not change what is learned.
FREE = {"resume", "dry_run", "output_dir", "log_every", "keep_last", "checkpoint_every"}
FREE |= {"trackers", "evaluation", "stop_on_collapse", "stages", "data"}
FREE |= {"small_maps", "deterministic"}  # they differ in rounding alone


def comparable(config: RunConfig) -> dict[str, Any]:
    """The settings that a resumed run must share with its checkpoint, as plain JSON values."""
    values = {key: value for key, value in asdict(config).items() if key not in FREE}
    # Which images these are is told by their fingerprint; how they are drawn is a setting.
    data = config.data
    values["sampling"] = [data.sampling, data.guidance, data.place, data.limit]
    return json.loads(json.dumps(values))


def changed(config: RunConfig, theirs: dict[str, Any]) -> list[str]:
    """Settings that differ from those of a checkpoint.

    Args:
        config: This run's.
        theirs: The checkpoint's, of this version or one that knew fewer settings: what it does not
            name it had at the default.
    """
    mine, defaults = comparable(config), comparable(RunConfig())
    keys = [key for key in {**mine, **theirs} if key not in FREE and key not in ("data", "steps")]
    return [key for key in keys if mine.get(key) != theirs.get(key, defaults.get(key))]


def job_of(stages: list[RunConfig]) -> dict[str, Any]:
    """What makes a run this one: its settings that are not the defaults, by dotted key."""
    defaults = _flat(comparable(RunConfig()))
    job: dict[str, Any] = {"command": "pretrain"}
    for number, stage in enumerate(stages, start=1):
        prefix = "" if len(stages) == 1 else f"stages[{number}]."
        for key, value in _flat(comparable(stage)).items():
            if value != defaults.get(key):
                job[prefix + key] = value
    return job


@contextmanager
def claimed(config: RunConfig, stages: list[RunConfig], accelerator: Accelerator) -> Iterator[None]:
    """Holds the run's folder for it: the main process claims it, the others are told.

    Folders of runs that were made before folders were claimed are taken over.

    Raises:
        UserError: In every process, if the folder is another run's or one works there now.
    """
    with ExitStack() as held:
        refusal: list[str | None] = [None]
        if accelerator.is_main_process:
            try:
                _refuse_to_overwrite(config)
                folder = claim(config.output_dir, job_of(stages), adopts=lambda _: True)
                held.enter_context(folder)
            except UserError as error:
                refusal = [str(error)]
        broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise UserError(refusal[0])
        yield


def _refuse_to_overwrite(config: RunConfig) -> None:
    """A folder with a run in it is continued or left alone, never overwritten."""
    if config.resume:
        return
    for part in MADE:
        if (Path(config.output_dir) / part).exists():
            raise UserError(
                f"{config.output_dir} already holds a run ({part}/): add --resume to continue it, "
                "or choose another output_dir."
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
