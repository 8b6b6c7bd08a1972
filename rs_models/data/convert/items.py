"""From files to rows: scenes in class folders, images with masks, images with boxes.

Whatever is wrong with a file becomes a `Problem` with its name; the other files go on.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..parquet import png
from .annotations import read_boxes
from .layouts import IGNORE, Layout
from .problems import BadFile, Problem

_MOST_PIXELS = 500_000_000  # DOTA's largest images have 400 million


@dataclass(frozen=True)
class Item:
    """One image and where its partner is.

    Attributes:
        key: Name that does not depend on where the data lie, "airport/airport_1.jpg".
        path: File of the image.
        fields: Groups of the layout's expression: `name`, `cls`, `split`, `scene`.
        partner: Mask or annotation.
        label: Class number of a scene.
    """

    key: str
    path: Path
    fields: dict[str, str]
    partner: Path | None = None
    label: int | None = None


@dataclass
class Inventory:
    """What the files of a data set amount to, before any image is decoded.

    Attributes:
        items: By key.
        classes: In the order of their numbers.
        problems: Found so far.
        checksums: Key -> sha256 of the image file.
    """

    items: list[Item]
    classes: list[str]
    problems: list[Problem] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)


def take_stock(layout: Layout, files: Sequence[tuple[str, Path]]) -> Inventory:
    """Matches files with a layout: classes, partners, duplicates.

    Args:
        layout: The data set's layout.
        files: Names and paths, as `source.gather` gives them.
    """
    images = _matched(layout.images, files)
    stock = Inventory([], list(layout.classes))
    if layout.task == "scenes":
        _scenes(layout, images, stock)
    else:
        _paired(layout, images, _matched(layout.partners, files), stock)
    stock.items.sort(key=lambda item: item.key)
    _drop_duplicates(stock)
    return stock


def _matched(
    pattern: str, files: Sequence[tuple[str, Path]]
) -> list[tuple[str, dict[str, str], Path]]:
    """(name, groups, file) of the files whose path ends as the pattern says."""
    end = re.compile(rf"(?:^|/){pattern}$", re.IGNORECASE)
    found = []
    for name, path in files:
        match = end.search(name)
        if match:
            groups = {key: value for key, value in match.groupdict().items() if value is not None}
            found.append((name, groups, path))
    return found


def _scenes(
    layout: Layout, images: Sequence[tuple[str, dict[str, str], Path]], stock: Inventory
) -> None:
    folders = sorted({groups["cls"] for _, groups, _ in images})
    if not stock.classes:
        stock.classes = folders
        if layout.num_classes and len(folders) != layout.num_classes:
            what = f"{len(folders)} class folders instead of {layout.num_classes}"
            stock.problems.append(Problem(".", what))
    numbers = {_plain(name): number for number, name in enumerate(stock.classes)}
    numbers |= {_plain(old): numbers[_plain(new)] for old, new in layout.renamed.items()}
    seen = {numbers[_plain(folder)] for folder in folders if _plain(folder) in numbers}
    for number, name in enumerate(stock.classes):
        if number not in seen:
            stock.problems.append(Problem(name, "the folder of this class is missing or empty"))
    for folder in folders:
        if _plain(folder) not in numbers:
            stock.problems.append(Problem(folder, "a folder of no class of this data set"))
    for _, groups, path in images:
        label = numbers.get(_plain(groups["cls"]))
        if label is not None:
            split = f"{groups['split']}/" if "split" in groups else ""
            key = f"{split}{stock.classes[label]}/{path.name}"
            stock.items.append(Item(key, path, groups, label=label))


def _plain(name: str) -> str:
    """Folder names of one class differ in case, blanks and dashes between copies."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _paired(
    layout: Layout,
    images: Sequence[tuple[str, dict[str, str], Path]],
    partners: Sequence[tuple[str, dict[str, str], Path]],
    stock: Inventory,
) -> None:
    kind = "mask" if layout.task == "segmentation" else "annotation"

    def key(groups: dict[str, str]) -> tuple[str, ...]:
        own = ("split",) if "split" in re.compile(layout.partners).groupindex else ()
        return tuple(groups.get(name, "").lower() for name in (*own, "scene", "name"))

    of = {key(groups): path for _, groups, path in partners}
    # A path of images may also fit that of masks, as in `train_labels/x.tif` beside `train/x.tif`.
    images = [image for image in images if image[2] not in set(of.values())]
    used = set()
    for name, groups, path in images:
        partner = of.get(key(groups))
        if partner is None:
            stock.problems.append(Problem(name, f"there is no {kind} for this image"))
            continue
        used.add(partner)
        parts = [groups[part] for part in ("split", "scene") if part in groups]
        stock.items.append(Item("/".join([*parts, path.name]), path, groups, partner))
    for name, _, path in partners:
        if path not in used:
            stock.problems.append(Problem(name, f"there is no image for this {kind}"))


def _drop_duplicates(stock: Inventory) -> None:
    from ...files import sha256

    first: dict[str, str] = {}
    kept = []
    for item in stock.items:
        digest = sha256(item.path)
        if digest in first:
            stock.problems.append(Problem(item.key, f"the same file as {first[digest]}"))
            continue
        first[digest] = item.key
        stock.checksums[item.key] = digest
        kept.append(item)
    stock.items = kept


def rows_of(layout: Layout, item: Item, window: int | None) -> Iterator[dict[str, Any]]:
    """The row of an item, or of each of its windows.

    Raises:
        BadFile: The image or its partner cannot be used.
    """
    row: dict[str, Any] = {"file_name": item.key}
    if layout.task == "scenes":
        row["label"] = item.label
        yield {**row, **_image(layout, item.path)}
        return
    assert item.partner is not None  # `take_stock` leaves others out
    if layout.task == "detection":
        size = _size(item.path)
        row["objects"] = read_boxes(layout, item.partner, size)
        yield {**row, **_image(layout, item.path)}
        return
    if "scene" in item.fields:
        row["scene"] = item.fields["scene"].lower()
    mask = read_mask(layout, item.partner)
    if window is None:
        image = _image(layout, item.path)
        if mask.shape != _size(item.path)[::-1]:
            raise BadFile(f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image not")
        yield {**row, **image, "mask": png(mask)}
        return
    pixels = _pixels(layout, item.path)
    if mask.shape != pixels.shape[:2]:
        raise BadFile(f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image not")
    if min(mask.shape) < window:
        raise BadFile(f"smaller than a window of {window} pixels")
    for y in _starts(mask.shape[0], window):
        for x in _starts(mask.shape[1], window):
            there = np.s_[y : y + window, x : x + window]
            yield {
                **row,
                **_encoded(layout, pixels[there]),
                "mask": png(mask[there]),
                "x": x,
                "y": y,
            }


def _starts(length: int, window: int) -> list[int]:
    """Windows side by side; the last one ends at the border and may overlap the one before."""
    starts = list(range(0, length - window + 1, window))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def read_mask(layout: Layout, path: Path) -> np.ndarray:
    """A mask as class numbers, (H, W) uint8 with `IGNORE` where there is no class.

    Raises:
        BadFile: Not an image, or a value or colour that is no class.
    """
    colour = any(isinstance(key, tuple) for key in layout.mask)
    values = _open(path, "RGB" if colour else None)
    if colour:
        if layout.mask_threshold is not None:
            values = np.where(values >= layout.mask_threshold, 255, 0).astype(np.uint8)
        values = values.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)  # (H, W)
    elif values.ndim == 3:
        values = values[..., 0]
    known = {
        (key[0] * 65536 + key[1] * 256 + key[2] if isinstance(key, tuple) else key): number
        for key, number in layout.mask.items()
    }
    numbers = np.full(values.shape, IGNORE, np.uint8)
    counts: Counter[int] = Counter()
    for value in np.unique(values):
        where = values == value
        if int(value) in known:
            numbers[where] = known[int(value)]
        else:
            counts[int(value)] = int(where.sum())
    if counts:
        value, count = counts.most_common(1)[0]
        shown = (value >> 16, value >> 8 & 255, value & 255) if colour else value
        raise BadFile(f"{count} pixels of the mask have the value {shown}, which is no class")
    return numbers


def _image(layout: Layout, path: Path) -> dict[str, Any]:
    """The image as columns; files that a browser shows keep their bytes."""
    plain = len(layout.bands) == 3
    if plain and path.suffix.lower() in (".jpg", ".jpeg", ".png"):
        data = path.read_bytes()
        _open(io.BytesIO(data), "RGB")  # is it whole?
        return {"image": {"bytes": data, "path": path.name}}
    return _encoded(layout, _pixels(layout, path))


def _pixels(layout: Layout, path: Path) -> np.ndarray:
    """(H, W, C) in the layout's stored order of bands."""
    if len(layout.bands) == 3 and path.suffix.lower() not in (".tif", ".tiff"):
        return _open(path, "RGB")
    from rasterio.errors import RasterioError

    from ...errors import UserError
    from ..columns import open_tile

    try:
        with open_tile(path) as raster:
            count, pixels = raster.count, raster.read()
    except (RasterioError, OSError, UserError) as error:
        raise BadFile(f"the image cannot be read ({str(error).splitlines()[0]})") from error
    if count < len(layout.bands):
        raise BadFile(f"{count} bands instead of {len(layout.bands)}")
    order = [layout.bands.index(band) for band in layout.stored_bands or layout.bands]
    return np.ascontiguousarray(pixels[order].transpose(1, 2, 0))


def _encoded(layout: Layout, pixels: np.ndarray) -> dict[str, Any]:
    if pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        return {"image": png(pixels)}
    if layout.bands[3:] == ("nir",) and pixels.dtype == np.uint8:
        return {"image": png(pixels[..., :3]), "nir": png(pixels[..., 3])}
    if pixels.dtype != np.uint16:
        raise BadFile(f"{pixels.dtype} pixels of {pixels.shape[2]} bands")
    return {"image": pixels}


def _open(file: Path | io.BytesIO, mode: str | None) -> np.ndarray:
    with _header(file) as image:
        try:
            return np.asarray(image.convert(mode) if mode else image)
        except (OSError, SyntaxError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BadFile(f"the image cannot be read ({reason})") from error


def _size(path: Path) -> tuple[int, int]:
    """(width, height), from the header alone."""
    with _header(path) as image:
        return image.size


def _header(file: Path | io.BytesIO) -> Any:
    """An image that is not decoded yet, of a size that can be.

    Raises:
        BadFile: No image, or more pixels than can be held.
    """
    from PIL import Image

    # Whole scenes are larger than what Pillow takes for an attack; ours is the limit here.
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MOST_PIXELS
    try:
        image = Image.open(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFile(f"the image cannot be read ({str(error).splitlines()[0]})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before
    if image.width * image.height > _MOST_PIXELS:
        raise BadFile(f"{image.width:,} x {image.height:,} pixels are more than {_MOST_PIXELS:,}")
    return image


def digest(keys: Sequence[str]) -> str:
    """Hash of names in their order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
