"""What the product sees in one raster or vector file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..bands import SENSORS, is_numbered, resolve_bands, told_sensor
from ..errors import UserError
from ..preprocessing import Preprocessing
from .geoparquet import PARQUET, is_geoparquet
from .vectors import GEOJSON, VECTORS

_SIDE = 512  # pixels of a scene that are read along a side
_VALUES = 12  # values of a property that are listed
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


@dataclass
class Report:
    """What was seen.

    Attributes:
        name: Path or id.
        facts: (title, what was seen), in order.
        problems: What would be refused, or is left out, and why.
    """

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One screen for people."""
        width = max((len(title) for title, _ in self.facts), default=0)
        lines = [self.name, *(f"  {title:<{width}}  {said}" for title, said in self.facts)]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines.append("  " + ("see the problems above" if self.problems else "nothing is amiss"))
        return "\n".join(lines)


def is_looked_at(path: Path, columns: Mapping[str, str] | None = None) -> bool:
    """Whether a file is a raster or a vector file, and no rows of a data set, named by columns."""
    suffix = path.suffix.lower()
    return suffix in LOOKS and (suffix not in PARQUET or (not columns and is_geoparquet(path)))


def look_at_file(path: Path, bands: str | None, report: Report) -> None:
    """Says what is in one file.

    Args:
        path: A raster or vector file, see `is_looked_at`.
        bands: Names of a raster's bands, where it does not tell.
        report: Takes what is seen.

    Raises:
        UserError: A file that cannot be read at all.
    """
    LOOKS[path.suffix.lower()](path, bands, report)


def _raster(path: Path, bands: str | None, report: Report) -> None:
    """Size, place, bands and values of a raster."""
    from rasterio.errors import RasterioError

    from ..rasters import SCENE_DRIVERS, open_raster

    with open_raster(path, vrt=True, drivers=SCENE_DRIVERS, max_bytes=None) as raster:
        report.facts.append(("scene", f"{raster.driver}, {raster.width:,} x {raster.height:,}"))
        _place(raster, report)
        kept = _bands(raster, bands, report)
        try:
            _values(raster, path, kept, report)
        except RasterioError as error:
            reason: BaseException = error
            while reason.__cause__ is not None:
                reason = reason.__cause__
            report.problems.append(f"Its pixels cannot be read ({str(reason).splitlines()[0]}).")


def _place(raster: Any, report: Report) -> None:
    if raster.crs is not None:
        side = f"{abs(raster.transform.a):g} x {abs(raster.transform.e):g}"
        report.facts.append(("place", f"{raster.crs.to_string():.60}, pixels of {side}"))
    elif raster.gcps[0]:
        report.facts.append(("place", f"{len(raster.gcps[0])} ground control points"))
    elif raster.rpcs is not None:
        report.facts.append(("place", "rational polynomials (RPC)"))
    elif raster.name.lower().endswith(_IMAGES):
        report.facts.append(("place", "none"))
    else:
        report.problems.append("It does not say where it lies (no CRS): maps have no place.")


def _bands(raster: Any, given: str | None, report: Report) -> list[int]:
    """Numbers of the bands that are no mask; what they are is told."""
    from .columns import has_alpha, raster_bands

    alpha = has_alpha(raster)
    kept = list(range(1, raster.count + 1 - alpha))
    names = resolve_bands(given) if given is not None else raster_bands(raster)
    described = [(text or "").split(",")[0].split(" (")[0] for text in raster.descriptions]
    told = ", ".join(names) if names else "not named: give --bands"
    numbered = [name for name in described if is_numbered(name)]
    tags = (f"{key}={value}" for key, value in raster.tags().items())
    where = " ".join([Path(raster.name).name, *tags])
    if given is None and numbered and told_sensor(where, described) is None:
        report.problems.append(
            f"It calls its bands {', '.join(numbered)}, which are other bands on Sentinel-2 than "
            "on Landsat: name the sensor (--sensor of predict) or the bands."
        )
        told = ", ".join(described)
    report.facts.append(("bands", f"{raster.count}: {told}{' and alpha, a mask' * alpha}"))
    return kept


def _values(raster: Any, path: Path, kept: list[int], report: Report) -> None:
    """Stored values, what they would become, and where there are none."""
    shape = len(kept), min(_SIDE, raster.height), min(_SIDE, raster.width)
    sample = raster.read(kept, out_shape=shape)
    hidden = raster.read_masks(kept, out_shape=shape) == 0
    values = sample[~hidden]
    if values.dtype.kind == "c":
        report.problems.append(
            f"Its values are complex numbers ({raster.dtypes[0]}): give amplitude or intensity."
        )
        return
    if values.size:
        whole = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        cuts = np.percentile(whole, [0, 2, 50, 98, 100]) if whole.size else []
        shown = ", ".join(f"{cut:g}" for cut in cuts)
        report.facts.append(
            ("values", f"{raster.dtypes[0]}; least, 2 %, half, 98 %, most: {shown}")
        )
        if len(whole) < len(values):
            report.problems.append("Some of its values are not finite.")
    report.facts.append(("without data", f"{hidden.mean():.1%} (nodata {raster.nodata})"))
    if raster.dtypes[0] == "uint8":
        return
    from .values import REFLECTANCE, plan_values

    names = SENSORS["rgb"]
    wanted = Preprocessing(names, (0.0, REFLECTANCE), (0.0,) * 3, (1.0,) * 3, 64)
    try:
        notes = plan_values(raster, kept, wanted, path.name).notes
    except UserError as error:
        report.problems.append(f"As reflectance: {error}")
        return
    for note in notes or ("taken for reflectance times 10,000",):
        report.facts.append(("reflectance", note.removeprefix(f"{path.name}: ")))


def _vectors(path: Path, bands: str | None, report: Report) -> None:
    """Features, their geometries, and the properties that may name classes."""
    from .vectors import class_key, read_features

    features, crs = read_features(str(path))
    kinds = Counter(_kind(geometry) for geometry, _ in features)
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    report.facts.append(("features", f"{len(features):,}: {shown or 'none'}"))
    report.facts.append(("place", f"{crs.to_string():.60}"))
    for name in sorted({name for _, stated in features for name in stated}):
        counts = Counter(
            "none" if stated.get(name) is None else class_key(stated[name])
            for _, stated in features
        )
        listed = ", ".join(f"{value} {count}" for value, count in counts.most_common(_VALUES))
        more = f" and {len(counts) - _VALUES} more" if len(counts) > _VALUES else ""
        report.facts.append((f"  {name:.30}", f"{listed:.150}{more}"))
    if not features:
        report.problems.append("It has no feature.")
    if kinds["without a geometry"]:
        report.problems.append(
            f"{kinds['without a geometry']} features have no geometry: they are left out."
        )


def _kind(geometry: Any) -> str:
    """The type of a GeoJSON geometry that holds anything."""
    if not isinstance(geometry, dict):
        return "without a geometry"
    if not (geometry.get("coordinates") or geometry.get("geometries")):
        return "without a geometry"
    return str(geometry.get("type"))


LOOKS: dict[str, Callable[[Path, str | None, Report], None]] = {
    **dict.fromkeys((".tif", ".tiff", ".vrt", ".jp2", ".img", *_IMAGES), _raster),
    **dict.fromkeys((*GEOJSON, *VECTORS), _vectors),
}
"""Ending of a file -> what looks at it."""
