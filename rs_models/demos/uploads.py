"""Uploaded files as pictures: what cannot be one ends in a sentence that says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..rasters import check_header, open_raster

MAX_SIDE = 4000
"""Pixels that a side of an uploaded image may have."""
MAX_BYTES = 64 * 2**20
"""Bytes that an upload may have."""

MAX_STORED = 512 * 2**20
"""Bytes of a raster's values in all its bands."""

# Pillow's other readers include one that runs a program for PostScript.
_PHOTOS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_RASTERS = (".tif", ".tiff")
_RGB = ("red", "green", "blue")
_WANTED = "use a JPEG, PNG, WebP or (Geo)TIFF file"


def read_picture(path: str | os.PathLike[str] | None, *, max_side: int = MAX_SIDE) -> np.ndarray:
    """Reads an uploaded image.

    Args:
        path: Path of the file; None where nothing was uploaded.
        max_side: Pixels that a side may have.

    Returns:
        (H, W, 3) uint8: red, green, blue. Grey images are repeated, transparency is dropped, and a
        photo is turned upright.

    Raises:
        UserError: Nothing uploaded, not an image, too large, corrupt, or without 8-bit red, green
            and blue. Only the file's name is told, not where the server keeps it.
    """
    if path is None:
        raise UserError("Choose an image first.")
    file = Path(path)
    if not file.is_file():
        raise UserError(no_upload(path))
    if file.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{file.name} has {file.stat().st_size / 2**20:.0f} MB; "
            f"{MAX_BYTES // 2**20} MB is the most that this page takes."
        )
    read = _read_raster if file.suffix.lower() in _RASTERS else _read_photo
    return read(file, max_side)


def no_upload(path: str | os.PathLike[str]) -> str:
    """What is said of every file that is no upload, so that it tells nothing about the server."""
    name = Path(path).name[:100] or "The file"
    return f"{name} is not, or no longer, among the uploads: upload it again."


def check_size(name: str, width: int, height: int, max_side: int = MAX_SIDE) -> None:
    """Refuses an image before it is decoded.

    Raises:
        UserError: A side is longer than `max_side`, or shorter than 16 pixels.
    """
    if max(width, height) > max_side:
        raise UserError(
            f"{name} is {width} x {height} pixels; {max_side} a side is the most that this page "
            "takes. `rs-models predict` maps scenes of any size."
        )
    if min(width, height) < 16:
        raise UserError(f"{name} is {width} x {height} pixels: too small to show anything.")


def shrunk(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture whose longer side has at most `longest` pixels."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _read_photo(file: Path, max_side: int) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file, formats=_PHOTOS) as image:
            check_size(file.name, *image.size, max_side)
            if image.mode.startswith(("I", "F")):
                raise UserError(
                    f"{file.name} has more than 8 bits a band; the models here take 8-bit red, "
                    "green and blue."
                )
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{file.name} is not an image: {_WANTED}.") from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{file.name} is too large: {max_side} pixels a side is the most."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file.name} is damaged and cannot be read: save it again.") from error


def open_tiff(file: Path, *, max_side: int = MAX_SIDE) -> Any:
    """Opens an uploaded TIFF as that and as nothing else, and checks its header.

    Args:
        file: Its path.
        max_side: Pixels that a side may have.

    Returns:
        An open rasterio data set, to be closed by the caller.

    Raises:
        UserError: No TIFF, or too large.
    """
    try:
        raster = open_raster(file, name=file.name, drivers=("GTiff",), max_bytes=None)
    except UserError as error:  # GDAL's words name the server's folder
        raise UserError(f"{file.name} is not a TIFF that can be read: {_WANTED}.") from error
    try:
        check_size(file.name, raster.width, raster.height, max_side)
        check_header(raster, file.name, MAX_STORED)
    except UserError:
        raster.close()
        raise
    return raster


def _read_raster(file: Path, max_side: int) -> np.ndarray:
    from rasterio.errors import RasterioError

    from ..data.columns import raster_bands

    with open_tiff(file, max_side=max_side) as raster:
        names = raster_bands(raster)
        if names is not None and set(_RGB) <= set(names):
            bands = [names.index(name) + 1 for name in _RGB]
        elif raster.count in (3, 4):
            bands = [1, 2, 3]
        elif raster.count == 1:
            bands = [1, 1, 1]
        else:
            raise UserError(
                f"{file.name} has {raster.count} bands and does not say which are red, green and "
                "blue: name its bands, or save these three."
            )
        if raster.dtypes[bands[0] - 1] != "uint8":
            raise UserError(
                f"{file.name} holds {raster.dtypes[bands[0] - 1]} values; the models here take "
                "8-bit ones: `gdal_translate -ot Byte -scale` makes them."
            )
        try:
            return np.moveaxis(raster.read(bands), 0, 2)
        except RasterioError as error:
            raise UserError(f"{file.name} is damaged and cannot be read: save it again.") from error
