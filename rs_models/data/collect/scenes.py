"""Large scenes: GeoTIFFs of a folder, or the items of a STAC catalogue."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ServiceError, UserError

_ASSETS = ("visual", "image", "data")
_SUFFIXES = (".tif", ".tiff")
_MOST_PAGES = 10_000


@dataclass(frozen=True)
class Scene:
    """One raster.

    Attributes:
        href: Path, or http(s) address.
        date: ISO 8601; empty where it is not known.
        name: For the rows: of the STAC item or of the file.
    """

    href: str
    date: str
    name: str

    @property
    def address(self) -> str:
        """What GDAL opens: range requests for what is on a server."""
        return f"/vsicurl/{self.href}" if _is_url(self.href) else self.href


def find_scenes(
    where: str,
    *,
    asset: str | None = None,
    max_cloud: float = 100.0,
    retries: int = 4,
    rate: float | None = None,
) -> list[Scene]:
    """The scenes of a folder or of a STAC catalogue, sorted by address.

    Args:
        where: Folder, STAC file or address: a catalogue or collection (links are followed), an
            item, or an item collection (`next` links are followed).
        asset: Key of the asset to read; None is the first of visual, image and data that there is,
            or the only GeoTIFF.
        max_cloud: Items with a higher `eo:cloud_cover` (percent) are left out.
        retries: Of a request that fails, each after twice the wait.
        rate: Requests a second at most.

    Raises:
        UserError: Nothing there, no STAC, or an item without a raster to read.
        ServiceError: The server did not answer.
    """
    if not _is_url(where) and Path(where).is_dir():
        files = [path for path in Path(where).rglob("*") if path.suffix.lower() in _SUFFIXES]
        found = [Scene(str(path), _tiff_date(path), path.stem) for path in files]
    else:
        items = _items(where, _Client(retries, rate))
        clear = [item for item in items if _cloud(item) <= max_cloud]
        if items and not clear:
            raise UserError(f"Every one of {where}'s items has more than {max_cloud:g} % cloud.")
        found = [_scene(item, item["_from"], asset) for item in clear]
    if not found:
        raise UserError(f"{where} holds no scenes: give a folder of GeoTIFFs or a STAC catalogue.")
    return sorted(found, key=lambda scene: scene.href)


class _Client:
    """Reads JSON, slowly enough and again where it fails."""

    def __init__(self, retries: int, rate: float | None) -> None:
        self.retries, self.pause, self.last = retries, 1 / rate if rate else 0.0, 0.0

    def read(self, where: str, body: Any = None) -> Any:
        if not _is_url(where):
            try:
                return json.loads(Path(where).read_text(encoding="utf-8"))
            except OSError as error:
                raise UserError(f"Cannot read {where}: {error.strerror}.") from error
            except ValueError as error:
                raise UserError(f"{where} is not JSON: {error}.") from error
        for attempt in range(self.retries + 1):
            time.sleep(max(0.0, self.last + self.pause - time.monotonic()))
            self.last = time.monotonic()
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                where, data, {"Content-Type": "application/json", "User-Agent": "rs_models"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in (408, 429) and error.code < 500:
                    raise UserError(f"{where} answers {error.code} {error.reason}.") from error
                reason, wait = f"{error.code} {error.reason}", error.headers.get("Retry-After")
            except (urllib.error.URLError, OSError) as error:
                reason, wait = str(getattr(error, "reason", error)), None
            except ValueError as error:
                raise UserError(f"{where} is not JSON: {error}.") from error
            if attempt < self.retries:
                time.sleep(min(60.0, float(wait)) if wait and wait.isdigit() else 0.5 * 2**attempt)
        raise ServiceError(f"{where} does not answer ({reason}): try again later.")


def _items(where: str, client: _Client) -> list[dict[str, Any]]:
    """All items under an address, each with `_from`."""
    found: list[dict[str, Any]] = []
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
            found += [{**item, "_from": address} for item in page.get("features", [])]
            follow: tuple[str, ...] = ("next",)
        elif kind == "Feature":
            found.append({**page, "_from": address})
            follow = ()
        elif kind in ("Catalog", "Collection"):
            follow = ("item", "items", "child")
        else:
            raise UserError(f"{address} is no STAC catalogue, item or item collection.")
        for link in page.get("links", []):
            if link.get("rel") in follow:
                waiting.append((_joined(address, link["href"]), link.get("body")))
    return found


def _scene(item: dict[str, Any], base: str, asset: str | None) -> Scene:
    name = str(item.get("id", "item"))
    assets = item.get("assets", {})
    if asset is not None and asset not in assets:
        raise UserError(f"The item {name} has no asset {asset!r}: it has {', '.join(assets)}.")
    rasters = [
        key
        for key, value in assets.items()
        if "tiff" in str(value.get("type", "")) or value["href"].lower().endswith(_SUFFIXES)
    ]
    chosen = asset or next((key for key in _ASSETS if key in rasters), None)
    if chosen is None:
        if len(rasters) != 1:
            raise UserError(
                f"The item {name} has {len(rasters)} GeoTIFFs ({', '.join(rasters)}): name one "
                "with asset."
            )
        (chosen,) = rasters
    told = item.get("properties", {})
    date = told.get("datetime") or told.get("start_datetime") or ""
    return Scene(_joined(base, assets[chosen]["href"]), str(date), name)


def _cloud(item: dict[str, Any]) -> float:
    value = item.get("properties", {}).get("eo:cloud_cover")
    return float(value) if value is not None else 0.0


def _joined(base: str, href: str) -> str:
    if _is_url(href) or Path(href).is_absolute():
        return href
    if _is_url(base):
        return urllib.parse.urljoin(base, href)
    return str((Path(base).parent / href).resolve())


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _tiff_date(path: Path) -> str:
    """The date that a GeoTIFF says itself, as ISO 8601."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as raster:
            said = raster.tags()
    except RasterioError:
        return ""
    value = said.get("TIFFTAG_DATETIME") or said.get("ACQUISITIONDATETIME") or ""
    return value.replace(":", "-", 2).replace(" ", "T") if value[4:5] == ":" else value


# One scene may be opened by several readers; headers are read once, and only what is asked for.
GDAL = {
    "GDAL_CACHEMAX": 256,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_TIMEOUT": 60,
    # GDAL remembers a file that a busy server refused as missing, so it has to try again itself.
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff",
    "VSI_CACHE": True,
}
