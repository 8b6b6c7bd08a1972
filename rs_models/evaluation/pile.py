"""What `embed` reads: the rows of a data set, or the windows of a scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .locations import Listing, Place, image_paths, place_of

# Columns that are pixels, or too heavy to be copied beside a vector.
_PIXELS = {"image", "nir", "mask"}
# Columns of the table's own.
OWN = ("row", "embedding", "scale")
_SCENES = (".tif", ".tiff", ".vrt", ".jp2")


class Item(NamedTuple):
    """An image of a pile.

    Attributes:
        image: (H, W, C) stored integers, or why it cannot be read.
        beside: Values of the columns beside its vector.
    """

    image: np.ndarray | str
    beside: dict[str, Any]


class Rows:
    """The rows of a data set.

    Attributes:
        name: For records.
        revision: Commit, or a fingerprint; None where the listing tells.
        listing: Its files, where it is a folder of files to which more may come.
        features: Types of the columns beside the vectors.
    """

    def __init__(
        self, source: str, bands: Sequence[str], columns: Sequence[str] | None, **where: Any
    ) -> None:
        """Opens a data set.

        Args:
            source: As for `rs_models.data.load`.
            bands: Bands to read.
            columns: To copy; None copies all that hold no pixels.
            **where: `split` and `revision`.

        Raises:
            UserError: No such data, columns or bands.
        """
        from datasets import Value

        from ..data import load, resolve_revision
        from ..data.columns import GeoTiff, RowReader
        from ..data.names import data_name

        self.rows = load(
            source, where["split"], bands=bands, revision=where["revision"], annotations=False
        )
        self.reader = RowReader(self.rows.features, bands)
        self.light = _light_columns(self.rows.features, columns)
        self.name = data_name(source)
        paths = image_paths(self.rows) if "file" not in self.light else None
        folder = Path(source)
        self.listing = Listing.of(paths, folder) if paths and folder.is_dir() else None
        # datasets has no public name for it: what identifies rows that are no files.
        fingerprint = self.rows._fingerprint
        self.fingerprint = resolve_revision(source, where["revision"]) or fingerprint
        self.revision = None if self.listing else self.fingerprint
        self.features = {name: self.rows.features[name] for name in self.light}
        self.paths = self.listing.files if self.listing else paths
        wanted = columns is None
        self.with_file = wanted and self.paths is not None
        is_raster = isinstance(self.rows.features["image"], GeoTiff)
        self.with_place = False
        if wanted and is_raster:
            self.with_place = self._has_places()
        if self.with_file:
            self.features["file"] = Value("string")
        if self.with_place:
            self.features |= place_features()
        self.order: np.ndarray | None = None  # place in the table -> row of the data set

    def _has_places(self) -> bool:
        """Whether the first raster that can be opened says where it lies."""
        for row in self.reader.undecoded(self.rows.select_columns(["image"])):
            with suppress(UserError):  # a damaged one is told when it is read
                return _stored_place(row["image"]) is not None
        return False

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def leave_places_out(self) -> None:
        """Leaves files and places out of the columns, as tables of the first layout do."""
        self.listing, self.with_file, self.with_place = None, False, False
        self.features = {name: self.rows.features[name] for name in self.light}

    def arrange(self, listing: Listing) -> None:
        """Takes the order of a table's listing, in which new files come last."""
        assert self.listing is not None
        places = {file: row for row, file in enumerate(self.listing.files)}
        self.order = np.asarray([places[file] for file in listing.files], np.int64)

    def read(self, span: range, pool: Any, block: int) -> Iterator[list[Item]]:
        """Reads images of places in the table, a block at a time.

        Args:
            span: Places.
            pool: Pool of threads.
            block: Images at a time.
        """
        from ..data.columns import BandArray

        numbers = list(span) if self.order is None else self.order[span.start : span.stop].tolist()
        part = self.rows.select(numbers).select_columns([*self.reader.columns, *self.light])
        part = self.reader.undecoded(part)
        if isinstance(self.reader.feature, BandArray):
            part = part.with_format("numpy")  # else pixels come as lists, far slower
        for first in range(0, len(part), block):
            rows = [(number, part[i + first]) for i, number in enumerate(numbers[first:][:block])]
            yield list(pool.map(self._item, rows))

    def _item(self, numbered: tuple[int, dict[str, Any]]) -> Item:
        from ..data.columns import CorruptImageError

        number, row = numbered
        beside = {name: row[name] for name in self.light}
        if self.with_file:
            assert self.paths is not None
            beside["file"] = self.paths[number]
        if self.with_place:
            beside |= place_values(None)
            with suppress(UserError):  # the reader of its pixels tells why
                beside |= place_values(_stored_place(row["image"]))
        try:
            return Item(self.reader(row), beside)
        except CorruptImageError as error:
            return Item(str(error), beside)


def _stored_place(stored: dict[str, Any] | None) -> Place | None:
    """Where a stored raster, {"bytes", "path"}, lies.

    Raises:
        UserError: It cannot be opened.
    """
    from ..rasters import open_raster

    if stored is None:
        return None
    content = stored["path"] if stored["bytes"] is None else stored["bytes"]
    with open_raster(content, name=stored["path"]) as raster:
        return place_of(raster)


class Windows:
    """The tiles of one scene, side by side; tiles at the right and lower edge are moved inward.

    Attributes:
        name: For records.
        revision: Size and time of change of the file.
        listing: None: a scene does not grow.
        features: Types of the columns beside the vectors.
    """

    listing = None

    def __init__(self, source: str, bands: Sequence[str], side: int) -> None:
        """Opens a scene.

        Args:
            source: A raster file.
            bands: Bands to read, by the names in the file or in its order.
            side: Pixels of a tile.

        Raises:
            UserError: No raster, other bands, or a scene smaller than a tile.
        """
        from datasets import Value

        from ..bands import band_indices
        from ..data.columns import raster_bands
        from ..rasters import open_raster

        path = Path(source)
        self.raster = open_raster(path, vrt=True, max_bytes=None)
        height, width = self.raster.height, self.raster.width
        if min(height, width) < side:
            raise UserError(
                f"{source} has {width} x {height} pixels, less than a tile of {side}: give a "
                "smaller --size, or put it into a folder to embed it as one image."
            )
        named = raster_bands(self.raster)
        if named is None and self.raster.count != len(bands):
            raise UserError(
                f"{source} has {self.raster.count} bands that it does not name, but "
                f"{', '.join(bands)} are asked for: write band descriptions into it."
            )
        order = band_indices(named, bands, source=source) if named else range(len(bands))
        self.indexes = [index + 1 for index in order]
        self.side, self.name = side, path.name
        facts = path.stat()
        self.revision = self.fingerprint = f"{facts.st_size}-{facts.st_mtime_ns}"
        self.corners = [
            (min(top, height - side), min(left, width - side))
            for top in range(0, height, side)
            for left in range(0, width, side)
        ]
        self.with_place = self.raster.crs is not None
        self.features: dict[str, Any] = {
            "file": Value("string"),
            "top": Value("int64"),
            "left": Value("int64"),
            **(place_features() if self.with_place else {}),
        }

    def leave_places_out(self) -> None:
        """Refuses: tables of the first layout hold no scenes."""
        raise UserError("The folder holds embeddings of another kind: choose another folder.")

    def arrange(self, listing: Listing) -> None:
        """Does nothing: the tiles of a scene stay in order."""

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.corners)

    def read(self, span: range, pool: Any, block: int) -> Iterator[list[Item]]:
        """Reads tiles, a block at a time; GDAL's handle is one, so in one thread."""
        for first in range(span.start, span.stop, block):
            yield [self._item(number) for number in span[first - span.start :][:block]]

    def _item(self, number: int) -> Item:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        top, left = self.corners[number]
        window = Window(left, top, self.side, self.side)
        beside: dict[str, Any] = {"file": self.name, "top": top, "left": left}
        try:
            pixels = self.raster.read(self.indexes, window=window)  # (C, H, W)
            if not self.raster.dataset_mask(window=window).any():
                return Item("it holds no data", beside)
        except RasterioError as error:
            return Item(str(error), beside)
        if self.with_place:
            beside |= place_values(place_of(self.raster, window))
        return Item(np.moveaxis(pixels, 0, 2), beside)


Pile = Rows | Windows


def open_pile(
    source: str,
    bands: Sequence[str],
    *,
    side: int,
    columns: Sequence[str] | None,
    split: str,
    revision: str | None,
) -> Pile:
    """Opens a data set, or a scene where the source is one raster file.

    Args:
        source: As for `rs_models.data.load`, or a raster file.
        bands: Bands to read.
        side: Pixels of a scene's tiles.
        columns: To copy; None copies all that hold no pixels.
        split: Split of a data set.
        revision: Revision of a data set on the Hub.
    """
    if source.lower().endswith(_SCENES) and Path(source).is_file():
        if revision is not None:
            raise UserError(f"{source} is a file, which has no revisions: leave the revision out.")
        return Windows(source, bands, side)
    return Rows(source, bands, columns, split=split, revision=revision)


def place_features() -> dict[str, Any]:
    """Types of the columns that say where tiles lie."""
    from datasets import Value

    return {
        "x": Value("float64"),
        "y": Value("float64"),
        "crs": Value("string"),
        "geometry": Value("binary"),
    }


def place_values(place: Place | None) -> dict[str, Any]:
    """Values of the same columns; nulls for a tile that does not tell."""
    names = ("x", "y", "crs", "geometry")
    return {name: getattr(place, name, None) for name in names}


def _light_columns(features: Any, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        kinds = ("Value", "ClassLabel")
        return [
            name
            for name, feature in features.items()
            if type(feature).__name__ in kinds and name not in {*_PIXELS, *OWN}
        ]
    for name in wanted:
        if name not in features or name in _PIXELS:
            raise UserError(f"The data has no column {name!r} to copy: it has {list(features)}.")
    return list(wanted)
