"""Items of a STAC API by box, date and collection, through pystac-client and our one client."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from ...errors import UserError
from .addresses import resolved
from .stac import Client, Search

_PAGE = 100  # items that a page of an answer may hold
_MOST_PAGES = 10_000
_MOST_REPEATS = 3  # of one request: the first page and what leads to it may be read again
_DATE = re.compile(r"(?:\.\.|\d{4}(?:-\d{2}(?:-\d{2}(?:T[\d:.]+(?:Z|[+-]\d{2}:\d{2})?)?)?)?)?")


def searched(where: str, client: Client, search: Search) -> list[dict[str, Any]]:
    """The items that an API has, each with `_from`, the address that its links are seen from.

    Args:
        where: Address of the API.
        client: Asks it.
        search: What is asked for.

    Raises:
        UserError: No API that can be searched, or a search that it cannot take.
        ServiceError: A server that does not answer.
    """
    try:
        from pystac import STACError, STACTypeError
        from pystac_client import Client as Api
        from pystac_client.errors import ClientTypeError
        from pystac_client.exceptions import APIError
        from pystac_client.stac_api_io import StacApiIO
    except ImportError:
        raise UserError(
            "A search by bbox, dates and collections needs pystac-client: pip install "
            "'rs-models[geo]'."
        ) from None

    asked: Counter[str] = Counter()

    class PoliteIO(StacApiIO):
        """What pystac-client asks with: our client, and no address but where the API leads."""

        def read_text(self, source: Any, *args: Any, **keys: Any) -> str:
            """The text of a link, which is never a file of this machine."""
            if isinstance(source, str):  # else a link, which is asked for by `request`
                return self.request(source, *args, **keys)
            return super().read_text(source, *args, **keys)

        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            """The answer's text."""
            address = resolved(where, href)
            asked[json.dumps([address, parameters], sort_keys=True, default=str)] += 1
            if max(asked.values()) > _MOST_REPEATS:
                raise UserError(f"{where} leads from a page to the same page: ask another API.")
            if (method or "GET").upper() == "POST":
                return json.dumps(client.read(address, parameters or {}))
            return json.dumps(client.read(_with_query(address, parameters)))

    for date in (search.dates or "..").split("/"):
        if not _DATE.fullmatch(date):
            raise UserError(
                f"The setting dates is {search.dates!r}: give a date, or two with a slash between, "
                "as in 2024-05-01/2024-09-30."
            )
    if not where.lower().startswith(("http://", "https://")):
        raise UserError(
            f"{where} is no STAC API: leave bbox, dates and collections out, or give an API's "
            "address."
        )
    try:
        api = Api.open(where, stac_io=PoliteIO())
        pages = api.search(
            method="POST" if _posts(api) else "GET",
            bbox=list(search.bbox) if search.bbox else None,
            datetime=search.dates,
            collections=list(search.collections) if search.collections else None,
            limit=_PAGE,
        ).pages_as_dicts()
        items: list[dict[str, Any]] = []
        for number, page in enumerate(pages):
            if number >= _MOST_PAGES:
                raise UserError(f"{where} has more than {_MOST_PAGES:,} pages: ask for less.")
            items += [{**item, "_from": _base(where, item)} for item in page.get("features") or ()]
    except UserError:
        raise
    except (
        *(APIError, ClientTypeError, STACError, STACTypeError, ValueError, TypeError),
        *(KeyError, NotImplementedError, AttributeError),
    ) as error:
        raise UserError(
            f"{where} cannot be searched ({error or type(error).__name__}): give the address of "
            "a STAC API."
        ) from error
    if not items:
        raise UserError(f"{where} has no item of this bbox, dates and collections: ask for others.")
    return items


def _posts(api: Any) -> bool:
    """Whether the API says that it takes a search as JSON."""
    methods = {link.extra_fields.get("method", "GET") for link in api.get_links("search")}
    return "POST" in methods


def _with_query(address: str, parameters: dict[str, Any] | None) -> str:
    from urllib.parse import urlencode

    if not parameters:
        return address
    texts = {
        key: ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        for key, value in parameters.items()
    }
    return f"{address}{'&' if '?' in address else '?'}{urlencode(texts)}"


def _base(where: str, item: dict[str, Any]) -> str:
    """Address of an item by its own link, where it has one on the API's server; else the API's."""
    for link in item.get("links") or ():
        if isinstance(link, dict) and link.get("rel") == "self" and isinstance(link["href"], str):
            return resolved(where, link["href"])
    return where
