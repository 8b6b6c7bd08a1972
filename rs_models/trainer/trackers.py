"""Experiment trackers that a run may write to beside its `metrics.jsonl`.

Adding one is its name here, and its check; it must be one that accelerate knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import UserError

Tracker = Literal["tensorboard", "trackio", "wandb"]


def refuse_missing(trackers: Sequence[Tracker]) -> None:
    """Tells of trackers that are not installed, which accelerate leaves out without a word.

    Args:
        trackers: Names that a run asks for.

    Raises:
        UserError: Naming the first that is not installed.
    """
    from accelerate import utils

    installed = {
        "tensorboard": utils.is_tensorboard_available,
        "trackio": utils.is_trackio_available,
        "wandb": utils.is_wandb_available,
    }
    for tracker in trackers:
        if not installed[tracker]():
            raise UserError(
                f"The setting trackers names {tracker!r}, which is not installed: pip install "
                f"{tracker}, or leave it out (metrics.jsonl is always written)."
            )
