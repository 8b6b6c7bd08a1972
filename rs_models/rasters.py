"""The one place that opens rasters: what a file is called or says can lead to no other file.

GDAL takes a file for what its content says, so that a text named `x.tif` may be a VRT, which reads
any file of the machine, or a WMS description, which asks any address. Here a file is opened by the
drivers that the caller lists and no other, and its header must fit before a pixel is read.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError

# Formats that hold their pixels themselves and name no other file.
DRIVERS = ("GTiff", "PNG", "JPEG", "JP2OpenJPEG", "WEBP", "BMP", "GIF")
# What a person who names a scene may have beside these; each keeps to files of its own name.
SCENE_DRIVERS = (*DRIVERS, "HFA", "ENVI", "EHdr", "NITF", "netCDF", "HDF5", "HDF5Image", "GPKG")
VRT_SUFFIX = ".vrt"
# Stored bytes of a whole image that is read at once; the largest tiles of data sets have 100 MB.
MAX_BYTES = 2 * 1024**3
# GDAL decodes a block as a whole, whatever part of it is wanted.
_MAX_BLOCK_BYTES = 2 * 1024**3
# Files beside an image that GDAL opens with whatever driver their content asks for.
_BESIDE = (".ovr", ".msk", ".OVR", ".MSK")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_raster(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    vrt: bool = False,
    drivers: Sequence[str] = DRIVERS,
    addresses: bool = False,
    max_bytes: int | None = MAX_BYTES,
) -> Any:
    """Opens a raster by its listed formats alone, and checks its header.

    Args:
        source: Path of a file, or a file's content.
        name: What error sentences call it; None is the path.
        vrt: Whether a file whose name ends in .vrt may be one, with all that it refers to: only for
            what the user named.
        drivers: GDAL's names of the formats that are taken.
        addresses: Whether an address (https://, s3://, /vsi...) may be given in place of a path:
            only for what the user named.
        max_bytes: Most stored bytes of the image as its header says; None for callers that read it
            in windows.

    Returns:
        An open rasterio data set, to be closed by the caller (`with open_raster(...) as raster`).

    Raises:
        UserError: Not there, not one of these formats, damaged, or too large.
    """
    label = name or (os.fspath(source) if not isinstance(source, bytes) else "The image")
    place: Any = source
    if not isinstance(source, bytes):
        place = os.fspath(source)
        if not (addresses and is_address(place)):
            place = os.path.abspath(_local(Path(place), label))
        if vrt and place.lower().endswith(VRT_SUFFIX):
            drivers = (*drivers, "VRT")
    raster = _opened(place, drivers, label)
    try:
        _check_overviews(raster, label)
        check_header(raster, label, max_bytes)
    except UserError:
        raster.close()
        raise
    return raster


def _opened(place: str | bytes, drivers: Sequence[str], told: str) -> Any:
    """An open raster by the first of the drivers that knows its content."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    why: Exception | None = None
    for driver in drivers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                return rasterio.open(
                    io.BytesIO(place) if isinstance(place, bytes) else place, driver=driver
                )
        except (RasterioError, OSError, ValueError) as error:
            if why is None or "not recognized as" not in str(error):
                why = error
    raise UserError(
        f"{told} cannot be read as a raster ({_one_line(why)}): it should be whole, and "
        f"one of {', '.join(drivers)}."
    ) from why


def is_address(source: str | os.PathLike[str]) -> bool:
    """Whether it names something that GDAL would look for elsewhere than in a local file."""
    text = os.fspath(source)
    return text.startswith("/vsi") or "://" in text


def check_header(raster: Any, name: str, max_bytes: int | None) -> None:
    """Refuses an image that its header makes larger than what may be read.

    Args:
        raster: Open rasterio data set, or anything with its `width`, `height`, `count`, `dtypes`
            and `block_shapes`.
        name: What the sentence calls it.
        max_bytes: Most stored bytes; None checks its blocks alone.

    Raises:
        UserError: Naming the image, its size and the limit.
    """
    sizes = [_item_size(dtype) for dtype in raster.dtypes]
    size = raster.width * raster.height * sum(sizes)
    if max_bytes is not None and size > max_bytes:
        raise UserError(
            f"{name} has {raster.width:,} x {raster.height:,} pixels, {raster.count} bands and "
            f"so {_gigabytes(size)} of values; at most {_gigabytes(max_bytes)} are read at once: "
            "cut it into tiles."
        )
    block = max(
        height * width * size
        for (height, width), size in zip(raster.block_shapes, sizes, strict=True)
    )
    if block > _MAX_BLOCK_BYTES:
        raise UserError(
            f"{name} is stored in blocks of {_gigabytes(block)}, and one is read as a whole: write "
            "it anew in tiles (`gdal_translate -co TILED=YES`)."
        )


def _item_size(dtype: str) -> int:
    try:
        return np.dtype(dtype).itemsize
    except TypeError:  # complex_int16 and its like, which numpy does not know
        return 8


def _local(path: Path, told: str) -> Path:
    """The path of a file that is there and whose neighbours are images."""
    try:
        there = path.is_file()
    except OSError as error:
        raise UserError(f"{told} cannot be read ({error.strerror}).") from error
    if not there:
        raise UserError(f"{told} is {'a folder' if path.is_dir() else 'not there'}: name a file.")
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            with open(beside, "rb") as file:
                if file.read(4) not in _TIFF_STARTS:
                    raise UserError(f"{beside} is no TIFF, and {told} takes it for one: remove it.")
            name = str(beside)
            with _opened(os.path.abspath(_local(beside, name)), ("GTiff",), name) as image:
                _check_overviews(image, name)
    return path


def _check_overviews(raster: Any, name: str) -> None:
    """Refuses a file whose metadata, its own or those beside it, name another as its overviews.

    GDAL opens that one by whatever driver its content asks for, once fewer pixels are wanted than
    there are. What it has read is asked, for a key can be written in many ways.
    """
    if "OVERVIEW_FILE" in map(str.upper, raster.tags(ns="OVERVIEWS")):
        raise UserError(
            f"{name} refers to another file for its overviews: remove its .aux.xml, or copy it "
            "without its metadata (`gdal_translate -nomd`)."
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _one_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
