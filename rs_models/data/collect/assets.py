"""Which asset of a STAC item holds a band: by its key, by its metadata, by its sensor's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...bands import band_name, is_numbered, numbered_band, told_sensor
from ...errors import UserError
from .stac import group


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
    matches = [key for key, value in assets.items() if band in _bands_of(key, value, sensor)]
    if len(matches) != 1:
        raise UserError(
            f"The item {name} has {len(matches) or 'no'} asset{'s' * (len(matches) > 1)} "
            f"{wanted!r}: it has {', '.join(assets) or 'none with an address'}; name one of them."
        )
    return matches[0]


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
        return band_name(name)
    except UserError:
        return name


def _bands_of(key: str, value: Mapping[str, Any], sensor: str | None) -> set[str]:
    """Names of the one band of an asset, by STAC's extensions or by its sensor's number."""
    names = [key] if is_numbered(key) else []
    for extension in ("eo:bands", "bands"):
        bands = value.get(extension)
        if not isinstance(bands, list) or not all(isinstance(band, dict) for band in bands):
            continue
        if len(bands) > 1:
            return set()  # a composite
        for band in bands:
            common = band.get("eo:common_name") or band.get("common_name")
            number = band.get("name")
            if isinstance(common, str):
                names = [common]  # it tells by itself, a number only with its sensor
            elif isinstance(number, str) and is_numbered(number):
                names.append(number)
    return {_canonical(name, sensor) for name in names}
