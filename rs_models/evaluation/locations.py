"""Where the images of a data set came from: their files, and where they lie on the Earth."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

_BLOCK = 1024  # rows looked at together
# Longitude and latitude: what GeoParquet takes a geometry for that names no system.
_LONLAT = "OGC:CRS84"
_POLYGON = 3  # WKB's number of the type


@dataclass(frozen=True)
class Place:
    """Where a tile lies.

    Attributes:
        x: First coordinate of its centre, in its own coordinate system.
        y: Second coordinate of its centre, in the same system.
        crs: Its coordinate system, "EPSG:32634" or WKT.
        geometry: Its outline in longitude and latitude, as WKB.
    """

    x: float
    y: float
    crs: str
    geometry: bytes


def place_of(raster: Any, window: Any = None) -> Place | None:
    """Where an open raster, or a window of it, lies; None where it does not tell.

    Args:
        raster: From `rasters.open_raster`.
        window: rasterio's; None is all of it.
    """
    if raster.crs is None:
        return None
    from rasterio.warp import transform

    left, top = (0, 0) if window is None else (window.col_off, window.row_off)
    size = (raster.width, raster.height) if window is None else (window.width, window.height)
    right, bottom = left + size[0], top + size[1]
    corners = [
        raster.transform @ corner
        for corner in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
    longitudes, latitudes = transform(raster.crs, _LONLAT, *zip(*corners, strict=True))
    x, y = raster.transform @ ((left + right) / 2, (top + bottom) / 2)
    code = raster.crs.to_epsg()
    crs = f"EPSG:{code}" if code is not None else raster.crs.to_wkt()
    return Place(x, y, crs, _polygon(list(zip(longitudes, latitudes, strict=True))))


def _polygon(corners: Sequence[tuple[float, float]]) -> bytes:
    """A polygon of one ring as WKB, little-endian."""
    ring = [*corners, corners[0]]
    numbers = [number for corner in ring for number in corner]
    return struct.pack(f"<BIII{len(numbers)}d", 1, _POLYGON, 1, len(ring), *numbers)


def file_names(rows: Any) -> list[str | None] | None:
    """Names of the files behind a data set's rows, without decoding an image.

    Args:
        rows: From `rs_models.data.load`.

    Returns:
        One a row: the column `file` where there is one, else what the images say. None where
        neither tells.
    """
    if "file" in rows.features:
        return list(rows["file"])
    return image_paths(rows)


def image_paths(rows: Any) -> list[str | None] | None:
    """Paths of a data set's images as they stand in its `image` column; None where none do."""
    from datasets import Image

    from ..data.columns import GeoTiff

    if not isinstance(rows.features.get("image"), Image | GeoTiff):
        return None
    names: list[str | None] = []
    for block in rows.select_columns(["image"]).with_format("arrow").iter(_BLOCK):
        for chunk in block["image"].chunks:
            names += chunk.field("path").to_pylist()
    return names if any(names) else None


@dataclass(frozen=True)
class Listing:
    """Files of a table that may grow, in the order of its rows.

    Attributes:
        files: Paths below the source's folder.
        stamps: Size and time of change of each.
        parts: Number of files of each run that added some.
    """

    files: list[str]
    stamps: list[str]
    parts: list[int]

    @classmethod
    def of(cls, paths: Sequence[str | None], folder: Path) -> Listing | None:
        """Lists local files below a folder; None where the images are no such files."""
        files, stamps = [], []
        # Paths stand as the folder was named (`..` and links in it), or as it is really called.
        roots = dict.fromkeys(
            (str(folder.absolute()), os.path.abspath(folder), os.path.realpath(folder))
        )
        for path in paths:
            root = next((root for root in roots if path and path.startswith(root + os.sep)), None)
            if path is None or root is None or not os.path.isfile(path):
                return None
            facts = os.stat(path)
            files.append(Path(path).relative_to(root).as_posix())
            stamps.append(f"{facts.st_size}-{facts.st_mtime_ns}")
        return cls(files, stamps, [len(files)])

    def grown_to(self, now: Listing) -> Listing:
        """This listing and, behind it, the files that are new.

        Raises:
            UserError: A file of this listing that is gone or was changed.
        """
        stamps = dict(zip(now.files, now.stamps, strict=True))
        for file, stamp in zip(self.files, self.stamps, strict=True):
            if stamps.get(file) != stamp:
                what = "was changed" if file in stamps else "is gone"
                raise UserError(
                    f"{file} {what} since it was embedded, and the table would no longer fit: "
                    "choose another folder, or put the file back."
                )
        old = set(self.files)
        new = [file for file in now.files if file not in old]
        return Listing(
            [*self.files, *new],
            [*self.stamps, *(stamps[file] for file in new)],
            [*self.parts, len(new)] if new else self.parts,
        )

    def write(self, path: Path) -> None:
        """Writes it at once as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from ..files import written

        parts = [number for number, count in enumerate(self.parts) for _ in range(count)]
        table = pa.table({"file": self.files, "stamp": self.stamps, "part": parts})
        with written(path) as partial:
            pq.write_table(table, partial)

    @classmethod
    def read(cls, path: Path) -> Listing:
        """Reads what `write` wrote.

        Raises:
            UserError: A file that is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            columns = pq.read_table(path).to_pydict()
            parts: dict[int, int] = {}
            for part in columns["part"]:
                parts[part] = parts.get(part, 0) + 1
            return cls(columns["file"], columns["stamp"], [parts[key] for key in sorted(parts)])
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(f"{path} is damaged: choose another folder.") from error
