"""Column types for images with any number of named bands, and the reader of stored images.

Two `datasets` feature types carry the band names with the column, through `select`, `map`,
streaming and `save_to_disk`: `BandArray` (pixels in the table) and `GeoTiff` (a file, read when the
row is read). Plain RGB images stay `datasets.Image`.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets.features import Array3D, Features, Image
from datasets.features.features import Array3DExtensionType, register_feature

from ..bands import SENSORS, band_indices, is_numbered, numbered_band, resolve_bands, told_sensor
from ..errors import UserError

logger = logging.getLogger(__name__)

_MOST_PIXELS = 89_478_485  # Pillow's own limit, where somebody has taken it away


class CorruptImageError(ValueError):
    """One image cannot be read; the message says why, the caller knows which row."""


@dataclass
class BandArray:
    """Image column whose pixels are stored in the table as a three-dimensional array.

    Attributes:
        shape: Stored shape, (height, width, bands) or (bands, height, width).
        dtype: "uint8" or "uint16".
        bands: Canonical band names in channel order.
    """

    shape: tuple[int, int, int]
    dtype: str
    bands: list[str]
    id: str | None = field(default=None, repr=False)
    _type: str = field(default="BandArray", init=False, repr=False)

    def __post_init__(self) -> None:
        """Makes the shape a tuple again after a round trip through JSON."""
        height, width, bands = self.shape
        self.shape = (height, width, bands)

    def __call__(self) -> pa.DataType:
        """The Arrow type, the same as `datasets.Array3D`'s."""
        return Array3DExtensionType(self.shape, self.dtype)

    def encode_example(self, value: Any) -> Any:
        """The array as it is; the writer stores it."""
        return value

    def decode_example(self, value: Any, token_per_repo_id: dict | None = None) -> np.ndarray:
        """The pixels as (H, W, C)."""
        array = np.asarray(value, dtype=self.dtype)
        return channels_last(array, len(self.bands))


@dataclass
class GeoTiff:
    """Image column of raster files, read by rasterio when the row is read.

    Bands are found by the names in each file; a file without names has exactly these, in order.

    Attributes:
        bands: Canonical names of the bands to read, in channel order.
        decode: Whether pixels are read; False gives the stored {"bytes", "path"} instead.
    """

    bands: list[str]
    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "numpy.ndarray"
    pa_type: ClassVar[Any] = Image.pa_type
    _type: str = field(default="GeoTiff", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        """The Arrow type, the same as `datasets.Image`'s."""
        return self.pa_type

    def encode_example(self, value: Any) -> dict:
        """{"bytes", "path"} for a path."""
        return value if isinstance(value, dict) else {"bytes": None, "path": str(value)}

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Casts paths or structs to the storage type."""
        return Image().cast_storage(storage)

    def decode_example(self, value: dict, token_per_repo_id: dict | None = None) -> np.ndarray:
        """The pixels as (H, W, C)."""
        return read_raster(value, self.bands)


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'register_feature' is experimental")
    register_feature(BandArray, "BandArray")
    register_feature(GeoTiff, "GeoTiff")


def channels_last(array: np.ndarray, channels: int) -> np.ndarray:
    """An array stored (H, W, C) or (C, H, W) as (H, W, C), by which end has as many channels.

    Raises:
        UserError: Neither end has that many.
    """
    if array.shape[2] == channels:
        return array
    if array.shape[0] == channels:
        return np.moveaxis(array, 0, 2)
    raise UserError(
        f"An image has shape {array.shape}, which does not hold {channels} bands first or last: "
        "give `bands` with one name per band of the image."
    )


def raster_bands(raster: Any) -> tuple[str, ...] | None:
    """Names of an open raster's bands; None when it does not name them all.

    Descriptions come first ("B04", "Red"; numbers are those of the sensor that the file tells, and
    without one they are no names); then the colour interpretation, which says red, green and blue
    of a plain image. A last alpha band is a mask and has no name, but where it is described it is
    what its description says: GDAL takes any fourth band for alpha.
    """
    colours = [colour.name for colour in raster.colorinterp]
    count = len(colours) - has_alpha(raster)
    described = [(text or "").split(",")[0].split(" (")[0] for text in raster.descriptions]
    if any(map(is_numbered, described)):
        tags = (f"{key}={value}" for key, value in raster.tags().items())
        sensor = told_sensor(" ".join([os.path.basename(raster.name), *tags]), described)
        if sensor is None:  # B4 is red on Sentinel-2 and infrared on Landsat 5
            return None
        described = [numbered_band(name, sensor) or name for name in described]
    for names in (described, colours):
        try:
            return resolve_bands(names[:count])
        except UserError:
            continue
    return None


def has_alpha(raster: Any) -> bool:
    """Whether an open raster's last band is a mask; a described one is what its description is."""
    unnamed = (raster.descriptions[-1] or "alpha").lower() == "alpha"
    return raster.colorinterp[-1].name == "alpha" and unnamed


def open_tile(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Any:
    """An open raster of a data set, of the formats that hold their pixels themselves.

    Args:
        source: Path or content.
        name: What error sentences call it.

    Raises:
        UserError: Not such a raster, or too large to be read at once.
    """
    from ..rasters import open_raster

    return open_raster(source, name=name)


def read_raster(value: dict, bands: Sequence[str]) -> np.ndarray:
    """Reads some bands of a raster file.

    Args:
        value: {"bytes", "path"}.
        bands: Canonical names; found by the names in the file, else the file has exactly these.

    Returns:
        (H, W, C) in the file's type; 16-bit values whose scale the file tells as reflectance times
        10,000.

    Raises:
        UserError: The file lacks one of the bands, or its values are no reflectance.
        CorruptImageError: It cannot be read.
    """
    from rasterio.errors import RasterioError

    from .values import stated_values

    content, name = value["bytes"], value["path"] or "an image"
    try:
        opened = open_tile(value["path"] if content is None else content, name)
    except UserError as error:
        raise CorruptImageError(str(error).rstrip(".")) from error
    try:
        with opened as raster:
            have = raster_bands(raster)
            if have is None and raster.count != len(bands):
                raise UserError(
                    f"{name} has {raster.count} bands that it does not name, but "
                    f"{', '.join(bands)} are asked for: keep tiles with the same bands in one "
                    "folder, or write band descriptions into them."
                )
            indexes = band_indices(have, bands, source=name) if have else range(len(bands))
            numbers = [i + 1 for i in indexes]
            values = stated_values(raster, numbers, name)
            for note in values.notes:
                _tell_once(note.partition(": ")[2], note)
            return np.moveaxis(values.stored(raster.read(numbers)), 0, 2)
    except RasterioError as error:
        raise CorruptImageError(f"{name}: {error}") from error


@lru_cache(maxsize=64)
def _tell_once(kind: str, note: str) -> None:
    """Warns of what becomes of the values of a kind of tile, with the first one's name."""
    del kind
    logger.warning(note)


def column_values(column: pa.ChunkedArray) -> list:
    """A column's values; arrays as numpy arrays, many times faster than through lists."""
    values: list = []
    for chunk in column.chunks:
        is_array = isinstance(chunk.type, Array3DExtensionType) and chunk.null_count == 0
        values += list(chunk.to_numpy(zero_copy_only=False)) if is_array else chunk.to_pylist()
    return values


class RowReader:
    """Turns stored rows into (H, W, C) integer arrays with the bands asked for.

    Attributes:
        columns: Columns that must be read.
    """

    def __init__(self, features: Features, bands: Sequence[str]) -> None:
        """Checks the columns against the bands.

        Args:
            features: The data set's features.
            bands: Canonical band names.

        Raises:
            UserError: A missing image column or a band that the data does not have.
        """
        if "image" not in features:
            raise UserError(
                f"The data has no 'image' column (it has {', '.join(features)}): name it with "
                "columns={'image': ...}."
            )
        self.bands = tuple(bands)
        self.feature = features["image"]
        if isinstance(self.feature, BandArray | GeoTiff):
            have = tuple(self.feature.bands)
        elif isinstance(self.feature, Array3D):
            have = self.bands  # no names travel with a plain array: it has what was asked for
        else:
            have = SENSORS["rgb"]
        self.image_bands = len(have)
        self.with_nir = "nir" in bands and "nir" not in have and "nir" in features
        if self.with_nir:
            have = (*have, "nir")
        if "nir" in bands and "nir" not in have:
            raise UserError(
                f"Band nir asked for, but the data has {', '.join(have)} and no 'nir' column "
                f"(columns: {', '.join(features)}): ask for bands that the data has."
            )
        self.order = band_indices(have, bands)
        self.columns = ["image", "nir"] if self.with_nir else ["image"]

    def undecoded(self, rows: Any) -> Any:
        """The data set with image files as bytes or paths, to be read in threads."""
        for column in self.columns:
            feature = rows.features[column]
            if isinstance(feature, Image):
                rows = rows.cast_column(column, Image(decode=False))
            elif isinstance(feature, GeoTiff):
                rows = rows.cast_column(column, GeoTiff(feature.bands, decode=False))
        return rows

    def __call__(self, row: dict) -> np.ndarray:
        """Reads one row.

        Args:
            row: Row of the undecoded data set.

        Returns:
            (H, W, C), uint8 or uint16.

        Raises:
            CorruptImageError: The image cannot be read.
            UserError: An image of another kind than the column promises.
        """
        value = row["image"]
        if value is None:
            raise CorruptImageError("the image is missing (null)")
        if isinstance(self.feature, GeoTiff):
            image = read_raster(value, self.feature.bands)
        elif isinstance(self.feature, Image):
            image = _read_image(value, "RGB")
        else:
            image = channels_last(np.asarray(value, dtype=self.feature.dtype), self.image_bands)
        if self.with_nir:
            if row["nir"] is None:
                raise CorruptImageError("the nir band is missing (null)")
            nir = _read_image(row["nir"], "L")
            if nir.shape[:2] != image.shape[:2]:
                raise CorruptImageError(
                    f"the nir band is {nir.shape[:2]}, the image {image.shape[:2]}"
                )
            image = np.concatenate([image, nir[..., None]], axis=2)
        if self.order != list(range(image.shape[2])):
            image = image[..., self.order]
        return image


def _read_image(value: Any, mode: str) -> np.ndarray:
    """Reads an encoded image (or a PIL image) as (H, W, 3) for "RGB" or (H, W) for "L"."""
    import PIL.Image
    import PIL.ImageOps

    name = ""
    try:
        if isinstance(value, dict):
            name = os.path.basename(value["path"] or "")
            value = open_image(value)
        _check_depth(value)
        if value.getexif().get(PIL.Image.ExifTags.Base.Orientation) is not None:
            value = PIL.ImageOps.exif_transpose(value)
        return np.asarray(value.convert(mode))
    except UserError as error:
        raise (UserError(f"{name}: {error}") if name else error) from error
    # PIL reports broken files by many types, by format: OSError, SyntaxError (PNG), struct.error,
    # ValueError, ...
    except Exception as error:
        at = f"{name}: " if name else ""
        raise CorruptImageError(f"{at}{type(error).__name__}: {error}") from error


def open_image(value: dict, *, max_pixels: int | None = None) -> Any:
    """An image of Pillow, not yet decoded, whose size by its header can be held.

    Args:
        value: {"bytes", "path"}.
        max_pixels: Most pixels; None is Pillow's own limit (89 million).

    Raises:
        CorruptImageError: More pixels than that.
    """
    import PIL.Image

    image = PIL.Image.open(
        io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"]
    )
    most = max_pixels or PIL.Image.MAX_IMAGE_PIXELS or _MOST_PIXELS
    if image.width * image.height > most:
        raise CorruptImageError(
            f"it has {image.width:,} x {image.height:,} pixels, and at most {most:,} are read at "
            "once: cut it into tiles"
        )
    return image


def orientation(value: Any) -> int:
    """How a stored image is turned for display, by EXIF's number; 1 is as stored."""
    import PIL.Image

    try:
        image = open_image(value) if isinstance(value, dict) else value
        return int(image.getexif().get(PIL.Image.ExifTags.Base.Orientation) or 1)
    except (OSError, ValueError, SyntaxError, AttributeError):
        return 1


def _check_depth(image: Any) -> None:
    """Refuses more than 8 bits a value, of which Pillow would hand out the upper ones.

    Raises:
        UserError: Such an image.
    """
    # Pillow decodes colour of 16 bits as 8: only the raw mode of its decoder tells.
    raw = " ".join(str(tile[3]) for tile in getattr(image, "tile", ()) or ())
    if image.mode.startswith(("I", "F")) or ";16" in raw:
        raise UserError(
            f"An image has {image.mode} pixels of more than 8 bits, which have no fixed scale: "
            "store them as GeoTIFF tiles or arrays and name their `bands`, or convert them to 8 "
            "bits."
        )
