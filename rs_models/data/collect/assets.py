"""Which asset of a STAC item holds a band: by its key, by its metadata, by its sensor's numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...bands import BANDS, LANDSAT, band_name, is_numbered, numbered_band, told_sensor
from ...errors import UserError
from .stac import group

_MAKER = re.compile(r"^(?:OLI|TM|ETM|MSI)_", re.I)  # instruments that stand before a number


def asset_key(wanted: str, item: Mapping[str, Any], assets: Mapping[str, Any], name: str) -> str:
    """Key of an asset by itself, or by the one band that it says it holds.

    Raises:
        UserError: There is none, or more than one, or a band's number without a sensor.
    """
    if wanted in assets:
        return wanted
    sensor = _sensor(item, assets)
    if is_numbered(wanted) and sensor is None:
        raise UserError(
            f"The item {name} does not say which sensor it is from, and {wanted!r} is another band "
            "on Sentinel-2 than on Landsat: name the band (red, nir) or the asset (it has "
            f"{', '.join(assets) or 'none with an address'})."
        )
    band = _canonical(wanted, sensor)
    matches = [key for key, value in assets.items() if band == _band_of(key, value, sensor)]
    # Earth Search has each band as GeoTIFF and as JPEG 2000.
    matches = [key for key in matches if is_geotiff(assets[key])] or matches
    if len(matches) != 1:
        raise UserError(
            f"The item {name} has {len(matches) or 'no'} asset{'s' * (len(matches) > 1)} "
            f"{wanted!r}: it has {', '.join(assets) or 'none with an address'}; name one of them."
        )
    return matches[0]


def is_geotiff(asset: Mapping[str, Any]) -> bool:
    """Whether an asset says, or is named as, a GeoTIFF."""
    return "tiff" in str(asset.get("type", "")) or asset["href"].lower().endswith((".tif", ".tiff"))


def stated_scale(item: Mapping[str, Any], asset: Mapping[str, Any]) -> tuple[float, float] | None:
    """Scale and offset of an asset's values (STAC's raster extension); None where it says none.

    Args:
        item: The item that the asset is of.
        asset: One of its assets.
    """
    for extension in ("raster:bands", "bands"):
        bands = asset.get(extension)
        band = bands[0] if isinstance(bands, list) and bands else None
        if not isinstance(band, dict):
            continue
        scale = band.get("raster:scale", band.get("scale"))
        offset = band.get("raster:offset", band.get("offset"))
        if not isinstance(scale, int | float):
            continue
        # Earth Search names Sentinel-2's offset even where its files have it subtracted already.
        if group(item, "properties").get("earthsearch:boa_offset_applied") is True:
            offset = 0.0
        return float(scale), float(offset) if isinstance(offset, int | float) else 0.0
    return None


def _sensor(item: Mapping[str, Any], assets: Mapping[str, Any]) -> str | None:
    """The sensor that an item tells by its name, platform or assets."""
    properties = group(item, "properties")
    stated = [item.get("id"), item.get("collection")]
    stated += [properties.get(key) for key in ("platform", "constellation")]
    return told_sensor(" ".join(str(value) for value in stated if value), list(assets))


def _canonical(name: str, sensor: str | None) -> str:
    """Canonical name of a band; a name that is none of ours stays."""
    if is_numbered(name):
        return (numbered_band(name, sensor) if sensor else None) or name
    try:
        band = band_name(name)
    except UserError:
        return name
    # STAC calls Landsat 8's narrow infrared `nir08`; of Landsat's it is the only one.
    return "nir" if band == "nir_narrow" and sensor in LANDSAT else band


def _band_of(key: str, value: Mapping[str, Any], sensor: str | None) -> str | None:
    """Canonical name of the one band of an asset, by STAC's extensions, its number or its key."""
    names: list[str] = []
    for extension in ("eo:bands", "bands"):
        bands = value.get(extension)
        if not isinstance(bands, list) or not all(isinstance(band, dict) for band in bands):
            continue
        if len(bands) > 1:
            return None  # a composite
        for band in bands:
            common = band.get("eo:common_name") or band.get("common_name")
            names += [name for name in (common, band.get("name")) if isinstance(name, str)]
    for name in (*names, key.removesuffix("-jp2")):
        name = _MAKER.sub("", name)
        band = _canonical(name, sensor)
        if band in BANDS:  # of "rededge", which is any of three, the number tells which
            return band
    return None
