"""What goes wrong between the Hub's servers and us: tried again where that helps, then told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import ServiceError, UserError, http_error, hub_errors

T = TypeVar("T")

_TRIES = 3  # of a request that a server refuses for a moment; the clients try again themselves too
_WAIT = 1.0  # seconds before the second try, twice as long before the third
_LONGEST_WAIT = 30.0  # of what a server asks for
_PASSING = {408, 429, 500, 502, 503, 504}


def again(ask: Callable[[], T]) -> T:
    """What a request gives, tried again where the server may only be busy.

    Args:
        ask: Does the request.
    """
    import time

    for attempt in range(_TRIES - 1):
        try:
            return ask()
        except Exception as error:  # sorted by its cause; anything else is raised as it is
            wait = _wait(error, attempt)
            if wait is None:
                raise
        time.sleep(wait)
    return ask()


def _wait(error: BaseException, attempt: int) -> float | None:
    """Seconds before the next try; None where another would not help."""
    status, response = status_of(error)
    if status is None:
        return None
    if status not in _PASSING:
        return None
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    wait = float(asked) if asked.isdigit() else _WAIT * 2**attempt
    return wait if wait <= _LONGEST_WAIT else None


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the last one first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def status_of(error: BaseException) -> tuple[int | None, Any]:
    """Status and response of the server's answer that led to an error, if one did."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            return status, response
    return None, None


@contextmanager
def told(hub_id: str) -> Iterator[None]:
    """Turns what the clients and readers raise into a sentence.

    Raises:
        UserError: What the user can mend: access, a missing repository, a configuration to name,
            damaged files in the cache.
        ServiceError: Network and server troubles.
    """
    import json

    import pyarrow as pa
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        with hub_errors(f"Loading the Hub data set {hub_id}"):
            yield
    except (UserError, ServiceError, ConnectionError):
        raise
    except (
        *(http_error(), json.JSONDecodeError, DatasetNotFoundError, DatasetGenerationError),
        *(pa.ArrowException, OSError, ValueError, RuntimeError),
    ) as error:
        raise sentence(hub_id, error) from error


def sentence(hub_id: str, error: BaseException) -> Exception:
    """The error with a sentence for what went wrong in loading a data set."""
    import json

    import pyarrow as pa

    said = " ".join(str(error).split())
    configs = re.search(r"available configs: \[([^\]]*)\]", said)
    if configs or "BuilderConfig" in said:
        names = [name.strip(" '\"") for name in configs[1].split(",")] if configs else []
        listed = f" ({', '.join(names)})" if names else ""
        first = names[0] if names else "CONFIGURATION"
        return UserError(
            f"The Hub data set {hub_id} has several configurations{listed}: name one behind its "
            f"id, as in {hub_id}:{first}."
        )
    if "scripts are no longer supported" in said:
        return UserError(
            f"The Hub data set {hub_id} needs a script, which is not supported: try "
            "revision='refs/convert/parquet'."
        )
    status, _ = status_of(error)
    if status in (401, 403, 404):
        return UserError(not_found(hub_id, None))
    if status is not None:
        return ServiceError(
            f"The Hub data set {hub_id} cannot be fetched: the server answers with status "
            f"{status}; try again later."
        )
    chain = list(causes(error))
    if any(isinstance(cause, http_error()) for cause in chain):
        return ServiceError(
            f"The Hub data set {hub_id} cannot be fetched: the connection failed "
            f"({type(chain[-1]).__name__}); run this again."
        )
    if any(isinstance(cause, json.JSONDecodeError) for cause in chain):
        return ServiceError(
            f"The server of the Hub data set {hub_id} answers with something that is not JSON: "
            "check HF_ENDPOINT and whether a proxy or a login page stands between, then run this "
            "again."
        )
    if "Consistency check failed" in said:
        return ServiceError(
            f"A file of the Hub data set {hub_id} arrived with another size than the server "
            "states; run this again."
        )
    if any(isinstance(cause, pa.ArrowException) for cause in chain):
        return UserError(
            f"A downloaded file of the Hub data set {hub_id} is damaged "
            f"({str(chain[-1]).splitlines()[0]}): remove it with `hf cache rm dataset/{hub_id}`, "
            "then run this again."
        )
    if any(isinstance(cause, FileNotFoundError) for cause in chain):
        return ServiceError(
            f"The Hub data set {hub_id} cannot be fetched whole: the server did not give one of "
            "its files; try again later."
        )
    if any(type(cause).__name__ == "DatasetNotFoundError" for cause in chain):
        return UserError(not_found(hub_id, None))
    return UserError(f"The Hub data set {hub_id} cannot be opened ({said[:300].rstrip('.')}).")


def not_found(hub_id: str, revision: str | None) -> str:
    """The sentence for a data set that is not there, or that may not be read."""
    at = f" at revision {revision!r}" if revision else ""
    return (
        f"The Hub has no data set {hub_id}{at} that you may read: check the spelling, or log in "
        "with `hf auth login` if it is private."
    )
