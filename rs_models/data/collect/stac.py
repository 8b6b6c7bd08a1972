"""STAC catalogues: read politely, and no further than they may lead.

Files, catalogues and item collections are walked here; APIs are searched by `search`. Either way
every request goes through one client, which keeps to one rate, and what a catalogue of strangers
names is looked at before it is asked for.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ServiceError, UserError
from .addresses import is_url, resolved
from .guard import REFUSED, ThroughGuard

_MOST_PAGES = 10_000
_LARGEST = 64 * 2**20  # bytes of one answer; pages of APIs have a tenth of that
_MOST_BYTES = 2**30  # of all answers
_LONGEST = 300.0  # seconds that one answer may take, however slowly it comes
_CHUNK = 1 << 16
_LONGEST_WAIT = 60.0  # seconds that a server may ask for before another try


@dataclass(frozen=True)
class Search:
    """Which items a STAC API is asked for.

    Attributes:
        bbox: West, south, east, north in degrees.
        dates: A date, or two with a slash between; ".." is open.
        collections: Names of collections.
    """

    bbox: Sequence[float] | None = None
    dates: str | None = None
    collections: Sequence[str] | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any((self.bbox, self.dates, self.collections))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server's redirect as a link of its documents: not into a private network."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """The next request; the address is looked at first."""
        resolved(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Client:
    """Reads JSON, slowly enough and again where it fails."""

    def __init__(self, retries: int, rate: float | None) -> None:
        """Nothing is asked yet.

        Args:
            retries: Number of retries of a request that fails, each after twice the wait.
            rate: Requests a second at most.
        """
        self.retries, self.pause, self.last = retries, 1 / rate if rate else 0.0, 0.0
        self.received = 0
        # The guard looks at every connection, and goes through this machine's own proxy.
        self.opener = urllib.request.build_opener(
            _Redirects, urllib.request.ProxyHandler({}), ThroughGuard
        )

    def read(self, where: str, body: Any = None) -> Any:
        """The JSON at a path or address.

        Raises:
            UserError: Not there, or no JSON.
            ServiceError: A server that does not answer.
        """
        if not is_url(where):
            return _local_json(where)
        for attempt in range(self.retries + 1):
            time.sleep(max(0.0, self.last + self.pause - time.monotonic()))
            self.last = time.monotonic()
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                where, data, {"Content-Type": "application/json", "User-Agent": "rs_models"}
            )
            try:
                with self.opener.open(request, timeout=60) as answer:  # http(s) only
                    return json.loads(self._content(answer, where))
            except urllib.error.HTTPError as error:
                if error.reason == REFUSED:
                    raise _led_astray(where) from error
                if error.code not in (408, 429) and error.code < 500:
                    raise UserError(f"{where} answers {error.code} {error.reason}.") from error
                reason, wait = f"{error.code} {error.reason}", error.headers.get("Retry-After")
            except http.client.InvalidURL as error:
                raise UserError(f"{where} is no address ({error}): give a STAC address.") from error
            except UserError:
                raise
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not JSON ({error}): give a STAC address.") from error
            except (OSError, http.client.HTTPException) as error:
                if REFUSED in str(error):  # of a tunnel
                    raise _led_astray(where) from error
                reason, wait = str(getattr(error, "reason", error)), None
            if attempt < self.retries:
                asked = float(wait) if wait and wait.isdigit() else 0.5 * 2**attempt
                time.sleep(min(_LONGEST_WAIT, asked))
        raise ServiceError(f"{where} does not answer ({reason}): try again later.")

    def _content(self, answer: Any, where: str) -> bytes:
        """An answer's bytes, as far as they can be those of a catalogue."""
        content, until = bytearray(), time.monotonic() + _LONGEST
        while chunk := answer.read1(_CHUNK):
            content += chunk
            self.received += len(chunk)
            if len(content) > _LARGEST or self.received > _MOST_BYTES:
                raise UserError(
                    f"{where} answers with more than a catalogue of {_LARGEST >> 20} MB a page and "
                    f"{_MOST_BYTES >> 20:,} MB in all: name a smaller part of it."
                )
            if time.monotonic() > until:
                raise TimeoutError("its answer does not end")
        if answer.length:  # what urllib says was still to come
            raise http.client.IncompleteRead(b"", answer.length)
        return bytes(content)


def _led_astray(where: str) -> UserError:
    return UserError(
        f"{where} leads to an address of a private network: a catalogue that was fetched may not; "
        "give that address yourself if you trust it."
    )


def _local_json(where: str) -> Any:
    try:
        return json.loads(Path(where).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"Cannot read {where}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): give a STAC file.") from error


def items(where: str, client: Client) -> list[dict[str, Any]]:
    """All items under an address, each with `_from`.

    Args:
        where: Path or address of a catalogue, collection, item, or item collection.
        client: Reads it.

    Raises:
        UserError: No STAC.
        ServiceError: A server that does not answer.
    """
    collected: list[dict[str, Any]] = []
    waiting: list[tuple[str, Any]] = [(where, None)]
    seen: set[str] = set()
    while waiting:
        address, body = waiting.pop(0)
        key = f"{address} {json.dumps(body, sort_keys=True)}"
        if key in seen:
            continue
        if len(seen) >= _MOST_PAGES:
            raise UserError(
                f"{where} leads to more than {_MOST_PAGES:,} documents: name a part of it."
            )
        seen.add(key)
        page = client.read(address, body)
        kind = page.get("type") if isinstance(page, dict) else None
        if kind == "FeatureCollection":
            features = page.get("features")
            for item in features if isinstance(features, list) else ():
                if not isinstance(item, dict):
                    raise UserError(f"An item of {address} is {item!r:.60} and no STAC item.")
                collected.append({**item, "_from": address})
            follow: tuple[str, ...] = ("next",)
        elif kind == "Feature":
            collected.append({**page, "_from": address})
            follow = ()
        elif kind in ("Catalog", "Collection"):
            follow = ("item", "items", "child")
        else:
            raise UserError(f"{address} is no STAC catalogue, item or item collection.")
        for link in links(page, follow):
            waiting.append((resolved(address, link["href"]), link.get("body")))
    return collected


def links(page: Mapping[str, Any], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """A document's links of some kinds; what is no link is passed over."""
    stated = page.get("links")
    return [
        link
        for link in (stated if isinstance(stated, list) else ())
        if isinstance(link, dict) and link.get("rel") in kinds and isinstance(link.get("href"), str)
    ]


def group(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A group of an item; an empty one where it says something else.

    Args:
        item: A STAC item.
        key: "properties" or "assets", say.
    """
    value = item.get(key)
    return value if isinstance(value, dict) else {}
