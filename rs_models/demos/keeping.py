"""Files of a page: where uploads and results lie, who may name them, and when they go."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .uploads import no_upload

KEEP_VARIABLE = "RS_MODELS_DEMO_KEEP"
"""Seconds that uploads and results are kept; unset, ten minutes."""
_KEEP = 600
_log = logging.getLogger(__name__)

# Folders that the request at work has made; None outside of requests.
_own: ContextVar[list[str] | None] = ContextVar("own", default=None)


@functools.cache
def workspace() -> Path:
    """A folder of this process for uploads and results; removed when it ends, also by a signal.

    Called before any component is made: gradio asks for the folder then.
    """
    folder = tempfile.mkdtemp(prefix="rs-models-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, functools.partial(_end, folder))
    os.environ["GRADIO_TEMP_DIR"] = folder
    return Path(folder)


def _end(folder: str, number: int, frame: object) -> None:
    """Removes the folder and ends as the signal would have: it runs nothing at exit."""
    shutil.rmtree(folder, ignore_errors=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def keep_seconds() -> int:
    """Seconds that files are kept.

    Raises:
        UserError: `RS_MODELS_DEMO_KEEP` is no whole number of seconds from 1 on.
    """
    text = os.environ.get(KEEP_VARIABLE, "").strip() or str(_KEEP)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{KEEP_VARIABLE} is {text!r}: give whole seconds, 1 or more.")
    return int(text)


def result_folder() -> Path:
    """A fresh folder for a request's files; they are kept from the end of the request on."""
    folder = tempfile.mkdtemp(dir=workspace())
    own = _own.get()
    if own is not None:
        cleaner().held.add(folder)
        own.append(folder)
    return Path(folder)


def kept(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a file of its own for the page to show.

    Gradio names files by their content, so two users with the same result would write one file
    while the other reads it.
    """
    from PIL import Image

    path = result_folder() / "picture.webp"
    Image.fromarray(picture).save(path, quality=90, method=0)
    return str(path)


@contextmanager
def request() -> Iterator[None]:
    """A request at work: nothing that it makes grows old before it ends."""
    own: list[str] = []
    token = _own.set(own)
    try:
        yield
    finally:
        _own.reset(token)
        for folder in own:
            for path in (*Path(folder).rglob("*"), Path(folder)):
                try:
                    os.utime(path)
                except FileNotFoundError:  # the request has removed it itself
                    continue
            cleaner().held.discard(folder)


def named_files(payload: Any) -> Iterator[str]:
    """Every path that a request's values name, whatever else they say beside it."""
    waiting = [payload]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if path is not None and not isinstance(path, dict | list):
                yield str(path)
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def check_uploaded(payload: Any) -> None:
    """Refuses files that were not uploaded here and are no examples, which lie here as well.

    Args:
        payload: Values of a request as they came.

    Raises:
        UserError: One and the same sentence whether the server has such a file or not.
    """
    folder = os.path.realpath(workspace())
    for path in named_files(payload):
        try:
            real = os.path.realpath(path)
            here = real.startswith(folder + os.sep) and os.path.isfile(real)
        except (OSError, ValueError):  # too long, or a NUL
            here = False
        if not here:
            raise UserError(no_upload(path))


class Cleaner:
    """Deletes what lies in a folder longer than it is kept and no request needs.

    Gradio's own walks over sets of names that requests change meanwhile, and ends for good when it
    meets that; this one walks over the folder, whatever wrote there.

    Args:
        folder: All below it is cleaned.
        keep: Seconds since a file was last written.
    """

    def __init__(self, folder: Path, keep: float) -> None:
        """Keeps the two; `start` begins to clean."""
        self.folder, self.keep = folder, keep
        self.held: set[str] = set()
        self._pages: list[Any] = []
        self._examples: set[str] = set()
        self._thread: threading.Thread | None = None

    def watch(self, page: Any) -> None:
        """Spares the files of a page's waiting and running requests, and its examples.

        Args:
            page: One that nobody has used yet: what it has put here by now belongs to it.
        """
        waiting_files(page)  # an error here, and not in the thread, where gradio has changed
        self._pages.append(page)
        self._examples |= _files_of(page)

    def start(self) -> None:
        """Cleans in a thread of its own until the process ends."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cleaner", daemon=True)
            self._thread.start()

    def sweep(self, now: float | None = None) -> list[str]:
        """Cleans once.

        Args:
            now: Seconds since the epoch; None is the clock's.

        Returns:
            Paths of the files that were deleted.
        """
        limit = (time.time() if now is None else now) - self.keep
        removed = []
        for root, _, names in os.walk(self.folder, topdown=False):
            old = [path for name in names if _older(path := os.path.join(root, name), limit)]
            # Asked anew for each folder: a request may have come since the last.
            needed = self._examples | self.needed() if old else set()
            for path in old:
                if not _below(path, needed) and _removed(path):
                    removed.append(path)
            if root != str(self.folder) and _older(root, limit) and root not in self.held:
                try:
                    os.rmdir(root)
                except OSError:  # not empty, or gone
                    continue
        for page in self._pages:
            for names_of_gradio in list(page.temp_file_sets):
                names_of_gradio.difference_update(removed)
        return removed

    def needed(self) -> set[str]:
        """Files and folders that waiting or running requests need."""
        return set(self.held).union(*(waiting_files(page) for page in self._pages))

    def _run(self) -> None:
        while True:
            time.sleep(max(0.5, self.keep / 10))
            try:
                self.sweep()
            except Exception:  # the next round may do better; without one the disk fills
                _log.exception("Cleaning failed")


@functools.cache
def cleaner() -> Cleaner:
    """The cleaner of this process's workspace."""
    return Cleaner(workspace(), keep_seconds())


def waiting_files(page: Any) -> set[str]:
    """Files that the requests in a page's queue name, those at work included."""
    events = list(page._queue.event_ids_to_events.values())
    bodies = [event.data for event in events if event.data is not None]
    return {os.path.abspath(path) for body in bodies for path in named_files(body.data)}


def _files_of(page: Any) -> set[str]:
    """Files that a page has put into its folder itself.

    Gradio keeps the examples of some components in one place and those of others (File) in another.
    """
    names: set[str] = set().union(*page.temp_file_sets)
    for component in list(page.blocks.values()):
        names.update(getattr(component, "keep_in_cache", ()))
    return {os.path.abspath(name) for name in names}


def _below(path: str, paths: set[str]) -> bool:
    """Whether it, or a folder that it lies in, is one of some."""
    return not paths.isdisjoint((path, *map(str, Path(path).parents)))


def _older(path: str, limit: float) -> bool:
    """Whether a file's last change (of content, name or place) lies before a time."""
    try:
        return os.lstat(path).st_ctime < limit
    except OSError:
        return False


def _removed(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:  # another has it removed, or it cannot be: the next round tries again
        return False
    return True
