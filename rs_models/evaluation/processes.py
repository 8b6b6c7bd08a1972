"""The processes of one job, on GPUs and on CPU cores alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def processes() -> PartialState:
    """The state of the processes that accelerate or torchrun started.

    `PartialState` alone takes no notice of ACCELERATE_USE_CPU: each of several CPU processes would
    then take itself for the only one, and do the whole work.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
