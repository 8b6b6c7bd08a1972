"""What a command says while it works: its own lines and one bar for its job, and no library's.

The libraries' bars, log lines and warnings would cut through them. Whoever wants those sets the
libraries' own variables (`TRANSFORMERS_VERBOSITY=info`, `python -W default`), which come before
ours. The bars of downloads stay: they are a job too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

# Read by the libraries when they are imported, which is after a command has begun.
_VARIABLES = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


# Seconds before a bar of something that is mostly short is shown, and between two lines in a file.
_DELAY, _INTERVAL = 1.0, 30.0


def progress_bar(
    total: int,
    doing: str,
    unit: str,
    *,
    shown: bool = True,
    initial: int = 0,
    passing: bool = False,
) -> tqdm:
    """The bar of a job, the same everywhere.

    Args:
        total: How many units there are.
        doing: What is done, as "training".
        unit: What is counted, in the singular.
        shown: Whether this process draws it.
        initial: Units that were done before.
        passing: Whether it is a step of a larger job: shown if it takes long, then taken away.
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=doing,
        disable=not shown,
        initial=initial,
        leave=not passing,
        delay=_DELAY if passing else 0.0,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _INTERVAL,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} "
        + f"{unit}s"
        + ", {remaining} left{postfix}",
    )


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(3.14), duration(192), duration(7_500)
        ('3.1 s', '3 min 12 s', '2 h 05 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the libraries for a command: those that are loaded and those that it will load.

    Everything is as before at the end, for the sake of who runs commands from Python.
    """
    ours = {key: value for key, value in _VARIABLES.items() if key not in os.environ}
    os.environ.update(ours)
    last = logging.lastResort  # prints what loggers without a handler warn of
    level = last.level if last else logging.WARNING
    with no_progress_bars(), _own_output(), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        if last:
            last.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for key in ours:
                os.environ.pop(key, None)
            if last:
                last.setLevel(level)


class OutputError(OSError):
    """Standard output that cannot be written, told when all is done."""


class _Output(io.FileIO):
    """Standard output, whose fault is kept, so that no work is lost for what it prints."""

    fault: OSError | None = None

    def write(self, content: Any, /) -> int:
        """The bytes that are dealt with: written, or dropped where nothing can be written."""
        if self.fault is None:
            try:
                return super().write(content)
            except BrokenPipeError:  # a reader that has enough
                raise
            except OSError as error:
                self.fault = error
        return memoryview(content).nbytes


@contextlib.contextmanager
def _own_output() -> Iterator[None]:
    """Lets names be printed that a terminal, or any text, cannot hold: their bytes are shown.

    Raises:
        OutputError: Something could not be written; unless the block raises something else.
    """
    output = sys.stdout
    if not isinstance(output, io.TextIOWrapper):  # a notebook's
        yield
        return
    output.flush()
    raw: _Output | None = None
    with contextlib.suppress(OSError):  # a test's, which is no file
        raw = _Output(output.fileno(), "wb", closefd=False)
    ours = sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw) if raw else output.buffer,
        encoding=output.encoding,
        errors="backslashreplace",
        line_buffering=output.line_buffering,
        write_through=output.write_through,
    )
    try:
        try:
            yield
        except SystemExit:  # argparse's, which has printed the help
            _finish(ours, raw)
            raise
        _finish(ours, raw)
    finally:
        sys.stdout = output
        with contextlib.suppress(OSError):  # after a fault that is told already
            ours.detach()


def _finish(ours: io.TextIOWrapper, raw: _Output | None) -> None:
    """Writes what is left; at the process's exit a fault could not be told."""
    ours.flush()
    if raw is not None and raw.fault is not None:
        raise OutputError(raw.fault.errno, raw.fault.strerror)


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silences the bars of `transformers` and `datasets`, where they are loaded; not downloads'."""
    restore = []
    if "transformers.utils.logging" in sys.modules:
        from huggingface_hub import utils as hub
        from transformers.utils import logging as transformers_logging

        if transformers_logging.is_progress_bar_enabled():
            downloads = not hub.are_progress_bars_disabled()
            restore.append(transformers_logging.enable_progress_bar)
            transformers_logging.disable_progress_bar()  # and the Hub's with them
            if downloads:
                hub.enable_progress_bars()
    if "datasets.utils.tqdm" in sys.modules:
        import datasets

        if not datasets.are_progress_bars_disabled():
            restore.append(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
    try:
        yield
    finally:
        for enable in restore:
            enable()
