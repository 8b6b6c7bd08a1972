"""Large scenes: GeoTIFFs of a folder, or the items of a STAC catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import ServiceError, UserError
from ..folders import files_below
from ..values import Values, stated_values
from .addresses import BUCKETS, is_trusted, is_url, resolved, trust
from .assets import asset_key, stated_scale
from .guard import guarded, refused_hosts
from .search import searched
from .stac import Client, Search, group, items

_ASSETS = ("visual", "image", "data")
# In GDAL's words of an address, and in curl's of a tunnel.
_ANSWER = re.compile(r"response(?: code:)? (\d{3})\b")
_SUFFIXES = (".tif", ".tiff")
_RESOLUTION = 1.25  # how much larger one scene's pixels may be than another's
# One scene may be opened by several readers; headers are read once, and only what is asked for.
GDAL = {
    "GDAL_CACHEMAX": 256,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_TIMEOUT": 60,
    # GDAL remembers a file that a busy server refused as missing, so it has to try again itself.
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "VSI_CACHE": True,
}


@dataclass(frozen=True)
class Scene:
    """One raster, or several of a band each.

    Attributes:
        href: Path or address.
        date: Date in ISO 8601; empty where it is not known.
        name: Name of the STAC item or of the file, for the rows.
        parts: Paths or addresses of the bands where each is a file of its own; empty where `href`
            holds all.
        scales: Scale and offset of each file that the catalogue says; empty or None where it says
            none.
    """

    href: str
    date: str
    name: str
    parts: tuple[str, ...] = ()
    scales: tuple[tuple[float, float] | None, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What GDAL opens, one or one a band."""
        return tuple(gdal_address(href) for href in self.parts or (self.href,))

    @property
    def remote(self) -> bool:
        """Whether it is read from a server."""
        return self.addresses[0].startswith("/vsi")


@dataclass(frozen=True)
class Source:
    """Bands of one file, and what becomes of their values.

    Attributes:
        raster: Open file.
        bands: Numbers of its bands to read.
        values: From stored values to reflectance times 10,000, where the file or catalogue tells.
    """

    raster: Any
    bands: list[int]
    values: Values


def gdal_address(href: str) -> str:
    """What GDAL opens: range requests for what is on a server."""
    for scheme, prefix in BUCKETS.items():
        if href.startswith(scheme):
            return prefix + href.removeprefix(scheme)
    return guarded(href) if is_url(href) else href


def unread(href: str, error: Exception, before: Sequence[str]) -> Exception:
    """What is told of a scene on a server that cannot be opened.

    Args:
        href: Address of the scene.
        error: What GDAL said, in a sentence.
        before: `refused_hosts` from before it was asked for.
    """
    answer = _ANSWER.search(str(error))
    code = int(answer.group(1)) if answer else 0
    own = (urlsplit(href).hostname or "").lower()
    hosts = refused_hosts()
    private = set(hosts[len(before) :]) or {own}.intersection(() if is_trusted(own) else hosts)
    if code == 403 and private:
        named = ", ".join(sorted(private))
        return UserError(
            f"The scene {href} lies at an address of a private network ({named}), which was not "
            "asked: if you trust it, name that host yourself, in the address that you give or in a "
            "catalogue file on this machine."
        )
    if 400 <= code < 500 and code not in (408, 429):
        return UserError(
            f"The scene {href} cannot be read: its server answers {code}. Check its address and "
            "whether it needs a login."
        )
    return ServiceError(f"{href} does not answer ({error}): try later.")


def sources(scene: Scene, rasters: Sequence[Any], bands: Sequence[int] | None) -> list[Source]:
    """The bands to keep of a scene, file by file.

    Args:
        scene: What the rasters were opened from.
        rasters: Open files, one a band where the scene has parts.
        bands: Numbers of the bands to keep; None is the first three (all of a scene of parts).

    Raises:
        UserError: A product whose values are no reflectance.
    """
    scales = scene.scales or (None,) * len(rasters)
    hrefs = scene.parts or (scene.href,)
    if not scene.parts:
        own = list(bands or range(1, min(3, rasters[0].count) + 1))
        return [Source(rasters[0], own, stated_values(rasters[0], own, scene.href, scales[0]))]
    return [
        Source(rasters[i - 1], [1], stated_values(rasters[i - 1], [1], hrefs[i - 1], scales[i - 1]))
        for i in (bands or range(1, len(rasters) + 1))
    ]


def finest(rasters: Sequence[Any]) -> Any:
    """The file of the smallest pixels, whose grid a scene of several files has."""
    return min(rasters, key=lambda raster: abs(raster.transform.a))


def open_scene(address: str, name: str | None = None) -> Any:
    """An open scene, by the drivers of GeoTIFF alone.

    Args:
        address: Path, or what GDAL opens for an address.
        name: What error sentences call it; None is the address.

    Raises:
        UserError: It cannot be read.
    """
    from ...rasters import open_raster

    return open_raster(
        address,
        name=name,
        addresses=address.startswith("/vsi"),
        drivers=("GTiff",),
        max_bytes=None,
    )


def find_scenes(
    where: str,
    *,
    asset: str | None = None,
    max_cloud: float = 100.0,
    retries: int = 4,
    rate: float | None = None,
    search: Search | None = None,
) -> list[Scene]:
    """The scenes of a folder or of a STAC catalogue, sorted by address.

    Args:
        where: Folder, GeoTIFF, STAC file or address: a catalogue or collection (links are
            followed), an item, an item collection (`next` links are followed), or an API to search.
        asset: Key of the asset to read, or several with commas where each is a band of its own, by
            key or band name ("red,green,blue", "B04,B03,B02"); None is the first of visual, image
            and data that there is, or the only GeoTIFF.
        max_cloud: Largest `eo:cloud_cover` (percent) of an item.
        retries: How often a request that fails is repeated, each time after twice the wait.
        rate: Requests a second at most.
        search: What an API is asked for.

    Raises:
        UserError: Nothing there, no STAC, or an item without a raster to read.
        ServiceError: The server did not answer.
    """
    search = search or Search()
    if is_url(where):
        trust(where)
    if Path(where).is_dir() or where.lower().endswith(_SUFFIXES):
        if search:
            raise UserError(f"{where} is no STAC API: leave bbox, dates and collections out.")
        folder = Path(where)
        files = files_below(folder, _SUFFIXES) if folder.is_dir() else [folder]
        scenes = [Scene(str(path), _tiff_date(path), path.stem) for path in files]
    else:
        client = Client(retries, rate)
        stated = searched(where, client, search) if search else items(where, client)
        clear = [item for item in stated if _cloud(item) <= max_cloud]
        if stated and not clear:
            raise UserError(f"Every one of {where}'s items has more than {max_cloud:g} % cloud.")
        scenes = [_scene(item, item["_from"], asset) for item in clear]
    if not scenes:
        raise UserError(f"{where} holds no scenes: give a folder of GeoTIFFs or a STAC catalogue.")
    return sorted(scenes, key=lambda scene: scene.href)


def _scene(item: dict[str, Any], base: str, asset: str | None) -> Scene:
    name = str(item.get("id", "item"))
    assets = {
        key: value
        for key, value in group(item, "assets").items()
        if isinstance(value, dict) and isinstance(value.get("href"), str)
    }
    properties = group(item, "properties")
    date = str(properties.get("datetime") or properties.get("start_datetime") or "")
    if asset is not None:
        keys = [
            asset_key(part.strip(), item, assets, name) for part in asset.split(",") if part.strip()
        ]
        parts = tuple(resolved(base, assets[key]["href"]) for key in keys)
        if not parts:
            raise UserError("The setting asset is empty: name an asset, or several with commas.")
        scales = tuple(stated_scale(item, assets[key]) for key in keys)
        return Scene(parts[0], date, name, parts if len(parts) > 1 else (), scales)
    rasters = [
        key
        for key, value in assets.items()
        if "tiff" in str(value.get("type", "")) or value["href"].lower().endswith(_SUFFIXES)
    ]
    chosen = next((key for key in _ASSETS if key in rasters), None)
    if chosen is None:
        if len(rasters) != 1:
            listed = f" ({', '.join(rasters)})" if rasters else ""
            raise UserError(
                f"The item {name} has {len(rasters)} GeoTIFFs{listed}: name one with asset, or one "
                "a band (asset=red,green,blue)."
            )
        (chosen,) = rasters
    scales = (stated_scale(item, assets[chosen]),)
    return Scene(resolved(base, assets[chosen]["href"]), date, name, (), scales)


def _cloud(item: dict[str, Any]) -> float:
    value = group(item, "properties").get("eo:cloud_cover")
    try:
        return float(value) if value is not None else 0.0
    except (TypeError, ValueError):
        return 0.0


def _tiff_date(path: Path) -> str:
    """The date that a GeoTIFF says itself, as ISO 8601."""
    try:
        with open_scene(str(path)) as raster:
            tags = raster.tags()
    except UserError:
        return ""
    value = tags.get("TIFFTAG_DATETIME") or tags.get("ACQUISITIONDATETIME") or ""
    return value.replace(":", "-", 2).replace(" ", "T") if value[4:5] == ":" else value


def check_alike(
    profiles: Sequence[tuple[Scene, Any]], bands: Sequence[int] | None, any_resolution: bool
) -> None:
    """Refuses scenes that cannot become tiles of one data set.

    Args:
        profiles: Scenes with their `Profile`.
        bands: Numbers of the bands to keep; None is the first three.
        any_resolution: Whether pixels may differ in size.

    Raises:
        UserError: Naming two scenes that differ, or one that has no such band or type.
    """
    first_scene, first = profiles[0]
    for scene, profile in profiles:
        if profile.dtype not in ("uint8", "uint16"):
            raise UserError(
                f"The scene {scene.href} has {profile.dtype} pixels: convert it to uint8 (0 to "
                "255), or to uint16 reflectance x 10000, as gdal_translate -ot does."
            )
        if bands is None and profile.count < 3:
            raise UserError(
                f"The scene {scene.href} has {profile.count} band{'s' * (profile.count > 1)}, and "
                "the first three are kept: name the ones to keep, as in bands=[1]."
            )
        if bands is not None and not all(1 <= band <= profile.count for band in bands):
            raise UserError(
                f"The setting bands={list(bands)} are not all in the scene {scene.href}, which has "
                f"{profile.count}: count them from 1."
            )
        if (profile.dtype, profile.count) != (first.dtype, first.count):
            raise UserError(
                f"The scene {scene.href} has {profile.count} bands of {profile.dtype}, "
                f"{first_scene.href} has {first.count} of {first.dtype}: collect them one by one, "
                "or convert them to one type."
            )
        ratio = profile.metres / first.metres if first.metres else 1.0
        if not any_resolution and not 1 / _RESOLUTION <= ratio <= _RESOLUTION:
            raise UserError(
                f"The scene {scene.href} has pixels of {profile.metres:.3g} m, {first_scene.href} "
                f"of {first.metres:.3g} m: collect them one by one, bring them to one resolution, "
                "or set any_resolution=true."
            )
