"""STAC catalogues: read politely, and no further than they may lead.

Files, catalogues and item collections are walked here; APIs are searched by `search`. Either way
every request goes through one client, which keeps to one rate, and what a catalogue of strangers
names is looked at before it is asked for.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ServiceError, UserError

_MOST_PAGES = 10_000
_LONGEST_WAIT = 60.0  # seconds that a server may ask for before another try
_BUCKETS = {"s3://": "/vsis3/", "gs://": "/vsigs/"}


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


_OPENER = urllib.request.build_opener(_Redirects)


class Client:
    """Reads JSON, slowly enough and again where it fails."""

    def __init__(self, retries: int, rate: float | None) -> None:
        """Nothing is asked yet.

        Args:
            retries: Number of retries of a request that fails, each after twice the wait.
            rate: Requests a second at most.
        """
        self.retries, self.pause, self.last = retries, 1 / rate if rate else 0.0, 0.0

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
                with _OPENER.open(request, timeout=60) as answer:  # http(s) only
                    return json.load(answer)
            except urllib.error.HTTPError as error:
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
                reason, wait = str(getattr(error, "reason", error)), None
            if attempt < self.retries:
                asked = float(wait) if wait and wait.isdigit() else 0.5 * 2**attempt
                time.sleep(min(_LONGEST_WAIT, asked))
        raise ServiceError(f"{where} does not answer ({reason}): try again later.")


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
        if key in seen or len(seen) > _MOST_PAGES:
            continue
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


def resolved(base: str, href: str) -> str:
    """Where a link leads, seen from the document that it stands in.

    What comes from a server may name no file of this machine and no address of a private network
    but that server's own.

    Args:
        base: Path or address of the document.
        href: As it stands there.

    Raises:
        UserError: A link that leads where it may not.
    """
    if "\0" in urllib.parse.unquote(href):
        raise UserError(f"{base} names {href!r}, which holds a null character: it is damaged.")
    bucket = href.startswith(tuple(_BUCKETS))
    if not is_url(base):
        if is_url(href) or bucket:
            return href
        if "://" in href and not href.startswith("file://"):
            raise UserError(f"{base} names {href}, which cannot be read here: download it first.")
        path = Path(urllib.parse.unquote(href.removeprefix("file://")))
        return str((Path(base).parent / path).resolve())
    if bucket:
        return href
    address = urllib.parse.urljoin(base, href)
    if not is_url(address) or href.startswith("/vsi") or "/vsi" in href[:12]:
        raise UserError(
            f"{base} names {href}, which is no address on a server: a catalogue that was fetched "
            "may name nothing else."
        )
    host, own = (urllib.parse.urlsplit(part).hostname for part in (address, base))
    if host != own and _is_private(host or ""):
        raise UserError(
            f"{base} names {address}, an address of a private network: a catalogue that was "
            "fetched may not; give that address yourself if you trust it."
        )
    return address


def _is_private(host: str) -> bool:
    """Whether a host's name stands for an address that the public network does not have."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return host == "localhost" or host.endswith((".local", ".internal"))
    return any(not ipaddress.ip_address(str(text).partition("%")[0]).is_global for text in found)


def is_url(text: str) -> bool:
    """Whether it is an address of a web server."""
    return text.lower().startswith(("http://", "https://"))


def gdal_address(href: str) -> str:
    """What GDAL opens: range requests for what is on a server."""
    for scheme, prefix in _BUCKETS.items():
        if href.startswith(scheme):
            return prefix + href.removeprefix(scheme)
    return f"/vsicurl/{href}" if is_url(href) else href
