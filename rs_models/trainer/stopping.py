"""How a run ends before its time: asked to, or dead."""

from __future__ import annotations

import os
import signal
from typing import Any

# Recorded at import: a launcher that dies while the data is decoded has to be noticed too.
_PARENT = os.getppid()


class TrainingStopped(RuntimeError):
    """A run that cannot go on: collapsed features or a loss that is not a number."""


class StopRequest:
    """Turns SIGTERM, SIGINT and the launcher's death into a flag that the loop reads.

    `accelerate launch` does not pass SIGTERM on: its child notices that its parent has changed.
    """

    def __init__(self) -> None:
        """Installs the handlers (in the main thread only; elsewhere signals are not ours)."""
        self.asked = False
        self._launched = "ACCELERATE_MIXED_PRECISION" in os.environ
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        """Starts to listen."""
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        except ValueError:  # not in the main thread
            pass
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        """True once the run should save and stop."""
        return self.asked or (self._launched and os.getppid() != _PARENT)
