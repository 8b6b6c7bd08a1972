"""The two errors that end in one sentence instead of a traceback, and the Hub's told so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Status -> what it means, and whether the user can mend it.
_MEANINGS = {
    401: ("the token is not accepted: log in again with `hf auth login`, or set HF_TOKEN", True),
    403: ("the token may not do that: it needs write access to this namespace", True),
    404: ("there is no such repository or revision that this token may see", True),
    409: ("it exists already", True),
    412: ("somebody else changed the repository meanwhile: look at it, then run this again", False),
    413: ("the request is too large for the server", False),
    429: ("too many requests: wait a few minutes, then run this again", False),
    507: ("the server has no room left: free some, then run this again", False),
}
# The same of reading, where the Hub tells a stranger 401 of what is not there too.
_OF_READING = {
    401: ("there is no such repository, or it is private: log in with `hf auth login`", True),
    403: ("this token may not read it: ask for access on its page on the Hub", True),
}

# What torch says where memory ends: its GPU allocator and CUDA itself, the CPU's allocator, and the
# status of cuBLAS and cuDNN (CUBLAS_STATUS_ALLOC_FAILED).
_NO_MEMORY = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")


class UserError(ValueError):
    """Bad input, told in one sentence that names the file, row or key and says what to do.

    Scripts print the sentence and exit with code 2; a traceback would hide it.
    """


class ServiceError(RuntimeError):
    """A network or server that does not do its part; told in one sentence, exit code 1.

    The same command may work later.
    """


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine had no memory left.

    Libraries tell it by words: torch has a class of its own for one of the ways a GPU runs out (its
    allocator), and plain RuntimeErrors for cuBLAS, cuDNN, pinned memory and the CPU.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


@contextmanager
def hub_errors(doing: str, *, afterwards: str = "") -> Iterator[None]:
    """Turns the clients' errors into a sentence.

    Args:
        doing: What was tried, to begin the sentence: "Publishing rs/tov-resnet50".
        afterwards: A sentence about the state that things are left in.

    Raises:
        UserError: Not logged in, no access, no such repository, offline mode.
        ServiceError: Network and server troubles.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    end = f" {afterwards}" if afterwards else ""
    try:
        yield
    except (UserError, ServiceError):
        raise
    except OfflineModeIsEnabled as error:
        raise UserError(
            f"{doing} needs the network, but HF_HUB_OFFLINE is set: unset it.{end}"
        ) from error
    except LocalTokenNotFoundError as error:
        raise UserError(
            f"{doing} needs a login: run `hf auth login`, or set HF_TOKEN.{end}"
        ) from error
    except json.JSONDecodeError as error:
        raise ServiceError(
            f"{doing} failed: the server does not answer as the Hub does (its answer is no JSON); "
            f"check the network and HF_ENDPOINT, then run this again.{end}"
        ) from error
    except (HfHubHTTPError, http_error(), ConnectionError, TimeoutError, RuntimeError) as error:
        # An upload that fails comes wrapped in a RuntimeError.
        known = (HfHubHTTPError, http_error(), ConnectionError, TimeoutError)
        found: BaseException | None = error
        while found is not None and not isinstance(found, known):
            found = found.__cause__
        if found is None:
            raise
        raise server_error(doing, found, afterwards=end) from error


def server_error(
    doing: str, error: BaseException, *, afterwards: str = ""
) -> UserError | ServiceError:
    """What a client's error means, in a sentence, and whether the user can mend it.

    Args:
        doing: What was tried, to begin the sentence.
        error: The client's; its response's status decides.
        afterwards: The sentence's end, with its space before.
    """
    end = afterwards
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is None:
        return ServiceError(
            f"{doing} failed: the server cannot be reached ({type(error).__name__}); check the "
            f"network and HF_ENDPOINT, then run this again.{end}"
        )
    if _of_a_stranger(response):
        return ServiceError(
            f"{doing} failed (404): the answer is not the Hub's own, which names what is missing; "
            f"check the network and HF_ENDPOINT, then run this again.{end}"
        )
    said = " ".join(str(getattr(error, "server_message", None) or "it does not say why").split())
    meaning, mendable = _MEANINGS.get(status, (f"the server answers: {said}", False))
    kind = UserError if mendable else ServiceError
    return kind(f"{doing} failed ({status}): {meaning}.{end}")


def _of_a_stranger(response: Any) -> bool:
    """Whether a 404 is a proxy's or a store's: the Hub's own name what is missing."""
    return response.status_code == 404 and not response.headers.get("X-Error-Code")


def http_error() -> type[Exception]:
    """The error of the HTTP client that huggingface_hub brings: httpx before 2.0, httpx2 since."""
    return import_module("httpx2" if find_spec("httpx2") else "httpx").HTTPError


def first_line(error: BaseException) -> str:
    """Why something did not load: the server's status where that is the cause, or the first line.

    The clients wrap what happened in texts of many lines.
    """
    from safetensors import SafetensorError

    if isinstance(error, SafetensorError):
        return (
            f"its weights are damaged ({error}); `hf cache verify` tells which downloaded file it "
            "is, and removing that lets it be fetched again"
        )
    found: BaseException | None = error
    while found is not None:
        status = getattr(getattr(found, "response", None), "status_code", None)
        if status is not None and status >= 500:
            return f"the server answers with status {status}; try again later"
        found = found.__cause__ or found.__context__
    return str(error).strip().split("\n")[0]


def load_error(what: str, error: BaseException) -> UserError | ServiceError:
    """What to raise where a model's files could not be read, by what lies under the error.

    The clients wrap every fault alike, the network's as well as the user's.

    Args:
        what: Begins the sentence: "No model at 'rs/tov-resnet50'".
        error: What the client raised.

    Returns:
        A `ServiceError` for troubles of network and server, else a `UserError`.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        OfflineModeIsEnabled,
    )

    unreachable = (http_error(), ConnectionError, TimeoutError, FileMetadataError)
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(cause, OfflineModeIsEnabled):
            return UserError(f"{what}: HF_HUB_OFFLINE is set and the cache does not hold it.")
        if status is not None and _of_a_stranger(response):
            return ServiceError(
                f"{what}: the answer (404) is not the Hub's own, which names what is missing; "
                "check the network and HF_ENDPOINT, then run this again."
            )
        if status is not None and not isinstance(cause, EntryNotFoundError):
            meanings = {**_MEANINGS, **_OF_READING}
            other = (f"the server answers with status {status}; try again later", False)
            meaning, mendable = meanings.get(status, other)
            return (UserError if mendable else ServiceError)(f"{what}: {meaning}.")
        broken = isinstance(cause, OSError) and "Consistency check failed" in str(cause)
        if broken or (status is None and isinstance(cause, unreachable)):
            how = "the download broke off" if broken else "the server cannot be reached"
            return ServiceError(
                f"{what}: {how} ({type(cause).__name__}); check the network and HF_ENDPOINT, then "
                "run this again."
            )
        cause = cause.__cause__ or cause.__context__
    reason = first_line(error).rstrip(".")
    return UserError(f"{what}: {reason}.")
