"""The last net of every script: what ends it becomes one sentence and the right exit code."""

from __future__ import annotations

import errno
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from ..errors import ServiceError, UserError, http_error, out_of_memory, server_error
from .output import OutputError, quiet

_NO_MEMORY = (
    "No memory was left: work on fewer or smaller images at once (batch_size, --batch-size, "
    "--tile, --size), or end what else holds memory on this machine and its GPU."
)
_NO_ROOM = re.compile(r"os error (27|28|122)\b")  # the same numbers, in the words of Rust
_LONGEST = 1000  # characters of a sentence; names and values from files may have any length


def run_script(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """The exit code of a script; what ends it is one sentence on stderr.

    The last net: 2 for bad input and for what cannot be read or written, 1 for a network's or a
    server's fault. A defect of ours is none of these and stays a traceback.

    Args:
        main: Takes the arguments and gives an exit code, or None for 0.
        argv: Its arguments.
    """
    if sys.stderr is None:  # closed, and the next file that is opened would be taken for it
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        return _told("Standard output is closed: send it to a file, or to /dev/null.", 2)
    try:
        with quiet():
            return main(argv) or 0
    except OutputError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        return _told(f"Standard output cannot be written: {why}. Send it elsewhere.", 2)
    except UserError as error:
        return _told(error, 2)
    except ServiceError as error:
        return _told(error, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError as error:
        if _reader_has_left():
            return 0
        return _told(f"A server has closed the connection ({error}): try again later.", 1)
    except RecursionError:
        return _told("What was given is nested too deeply: flatten it.", 2)
    except UnicodeEncodeError as error:
        return _told(_no_text(error), 2)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return _told(_NO_MEMORY, 2)
    except _library_errors() as error:
        # Libraries write and fetch for us, and some wrap the system's error in one of theirs.
        told = sentence_of(error)
        if told is None:
            raise
        return _told(*told)


def _reader_has_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as behind `| head`.

    Nothing may then be written at exit either, so the output is turned away.
    """
    try:
        output = sys.stdout.fileno()
    except OSError:  # not a file at all
        return False
    if hasattr(select, "poll"):
        watched = select.poll()
        watched.register(output, 0)
        if not any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0)):
            return False
    _turn_away(sys.stdout)
    return True


def _turn_away(stream: TextIO) -> None:
    """Sends a stream nowhere from now on."""
    with suppress(OSError):  # not a file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _library_errors() -> tuple[type[Exception], ...]:
    """Errors of files and connections: OSError, and those of the libraries that are loaded."""
    kinds: list[type[Exception]] = [OSError]
    if "safetensors" in sys.modules:
        from safetensors import SafetensorError

        kinds.append(SafetensorError)
    if "huggingface_hub" in sys.modules:
        kinds.append(http_error())
    return tuple(kinds)


def one_line(error: object) -> str:
    """A sentence as one line of a terminal, whatever names and values from files stand in it.

    Line ends, escape codes and bytes that are no text are shown, and do nothing.
    """
    text = " ".join(str(error).splitlines())
    shown = "".join(
        letter if letter.isprintable() or letter.isspace() else ascii(letter)[1:-1]
        for letter in text
    )
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"
    return shown if shown.endswith((".", "?")) else f"{shown}."


def _told(error: object, code: int) -> int:
    try:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.stderr.flush()
    except OSError:  # the exit code alone tells, and at exit it is not tried again
        _turn_away(sys.stderr)
    return code


def _no_text(error: UnicodeEncodeError) -> str:
    """What is told of a name, or a value of a file, that was to be written as text and is none."""
    place = error.object[max(0, error.start - 40) : error.end + 40]
    return (
        f"A name or value holds bytes that are no text in {error.encoding.upper()} "
        f"({place!a}): rename the file, or repair the value."
    )


def sentence_of(error: Exception) -> tuple[str, int] | None:
    """What is told of an error of files or connections, with the exit code; None for a defect."""
    if not isinstance(error, _library_errors()):
        return None
    text = " ".join(str(error).split())
    if (cause := _network_cause(error)) is not None:
        told = server_error("A request to a server", cause)
        return str(told), 2 if isinstance(told, UserError) else 1
    name = _name_of(error)
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _NO_ROOM.search(text):
        where = f" for {name}" if name else ""
        return f"There is no room left{where}: free some, or choose another disk; run it again.", 2
    if number is not None:
        why = os.strerror(number)
        return f"{name or 'A file'} cannot be read or written: {why}. Choose another place.", 2
    if "is not valid UTF-8" in text:  # safetensors' word of a file's name
        return f"A name is no text ({text[:200]}): rename the file or its folder.", 2
    if "I/O error" in text:
        return f"An output cannot be written ({text[:200]}): choose another place.", 2
    return None


def _name_of(error: Exception) -> str:
    names = [getattr(error, "filename2", None), getattr(error, "filename", None)]
    name = next((os.fsdecode(n) for n in names if isinstance(n, str | bytes)), "")
    return name if len(name) <= 200 else f"{name[:200]}..."


def _network_cause(error: BaseException) -> BaseException | None:
    """The connection's error that an error is or was raised from; None where there is none."""
    from urllib.error import URLError

    known: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError, URLError)
    if "huggingface_hub" in sys.modules:  # else no client of the Hub can have failed
        known = (*known, http_error())
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, known):
        cause = cause.__cause__
    return cause
