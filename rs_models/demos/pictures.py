"""Pictures of what models see: principal components, masks, boxes. Arrays in, arrays out."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.resize import resize_and_crop
from ..publish import figures as card_figures

# Those of the cards' plots, told apart with the usual colour blindnesses.
COLOURS: tuple[tuple[int, ...], ...] = tuple(
    tuple(bytes.fromhex(c[1:])) for c in card_figures.COLOURS
)

# What the synthetic scenes' land cover looks like on a map.
LAND_COVER_COLOURS: dict[str, tuple[int, ...]] = {
    "tree": (22, 101, 52),
    "grass": (134, 200, 90),
    "crop": (230, 200, 60),
    "soil": (146, 100, 60),
    "sand": (245, 225, 170),
    "water": (30, 110, 200),
    "building": (200, 50, 50),
    "pavement": (120, 120, 130),
    "vehicle": (190, 60, 200),
}


def palette(names: Sequence[str]) -> list[tuple[int, ...]]:
    """A colour a class: of land cover that of its name, of others `COLOURS` in turn."""
    return [
        LAND_COVER_COLOURS.get(name, COLOURS[number % len(COLOURS)])
        for number, name in enumerate(names)
    ]


def pca_picture(features: np.ndarray, side: int | None) -> np.ndarray:
    """The three strongest components of a feature map as red, green and blue.

    Args:
        features: (D, h, w).
        side: Pixels of the picture's longer side; None leaves a pixel a cell.

    Returns:
        (H, W, 3) uint8. Each component is stretched from its 2nd to its 98th percentile, and
        turned so that its largest deviation is bright: a picture of the same features is the same.
    """
    from PIL import Image

    depth, height, width = features.shape
    flat = features.reshape(depth, -1).T.astype(np.float64)  # (h*w, D)
    flat = flat - flat.mean(0)
    u, s, _ = np.linalg.svd(flat, full_matrices=False)
    scores = np.zeros((height * width, 3))
    count = min(3, len(s))
    scores[:, :count] = u[:, :count] * s[:count]
    scores *= np.where(np.abs(scores.min(0)) > scores.max(0), -1, 1)
    low, high = np.percentile(scores, (2, 98), axis=0)
    scaled = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    small = (scaled.reshape(height, width, 3) * 255).astype(np.uint8)
    if side is None:
        return small
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def overlay(
    picture: np.ndarray,
    mask: np.ndarray,
    colours: Sequence[tuple[int, ...]],
    opacity: float,
    nodata: int = 255,
) -> np.ndarray:
    """A class mask laid over its picture.

    Args:
        picture: (H, W, 3) uint8.
        mask: (H, W) class numbers.
        colours: Colours of the classes.
        opacity: From 0, the picture, to 1, the mask.
        nodata: Class number of pixels that stay as they are.

    Returns:
        (H, W, 3) uint8.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    mixed = picture * (1 - opacity) + table[mask] * opacity
    mixed = np.where((mask == nodata)[..., None], picture, mixed)
    return mixed.round().astype(np.uint8)


def heat(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map of weights over its picture: grey where low, warm where high.

    Args:
        picture: (H, W, 3) uint8.
        values: (h, w), any scale.

    Returns:
        (H, W, 3) uint8.
    """
    import matplotlib
    from PIL import Image

    height, width = picture.shape[:2]
    low, high = np.percentile(values, (1, 99.5))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    weights = Image.fromarray((scaled * 255).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    share = np.asarray(weights)[..., None] / 255
    grey = picture.mean(2, keepdims=True).repeat(3, 2) * 0.6
    warm = matplotlib.colormaps["inferno"](share[..., 0])[..., :3] * 255
    return (grey * (1 - share) + warm * share).astype(np.uint8)


def draw_boxes(
    picture: np.ndarray,
    boxes: Sequence[Sequence[float]],
    *,
    labels: Sequence[str] | None = None,
    colours: Sequence[tuple[int, ...]] = COLOURS,
    width: int | None = None,
) -> np.ndarray:
    """Boxes on a copy of a picture, each with a light rim so that it shows on any ground.

    Args:
        picture: (H, W, 3) uint8.
        boxes: x0, y0, x1, y1 in pixels.
        labels: Short texts for their corners.
        colours: In turn.
        width: Width of the line in pixels; None fits the picture.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    line = width or max(2, round(max(picture.shape[:2]) / 150))
    font = ImageFont.load_default(size=max(11, round(max(picture.shape[:2]) / 22)))
    for number, box in enumerate(boxes):
        colour = colours[number % len(colours)]
        x0, y0, x1, y1 = (float(v) for v in box)
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(255, 255, 255), width=line + 2)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=line)
        if labels:
            where = (x0 + line + 2, y0 + line)
            left, top, right, bottom = draw.textbbox(where, labels[number], font=font)
            draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=colour)
            ink = (255, 255, 255) if sum(colour) < 480 else (0, 0, 0)
            draw.text(where, labels[number], fill=ink, font=font)
    return np.asarray(image)


def svg(figure: Any) -> str:
    """A figure as HTML whose ink is the page's own, so that it follows light and dark.

    Args:
        figure: matplotlib's.
    """
    import io

    import matplotlib

    figure.patch.set_alpha(0)
    for axis in figure.axes:
        axis.patch.set_alpha(0)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rs_models"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    return f"<div class='plot'>{re.sub('#000000|black', 'currentColor', drawn)}</div>"


def squared(picture: np.ndarray, side: int, quality: int = 85) -> bytes:
    """The central square of a picture as a JPEG.

    Args:
        picture: (H, W, 3) uint8.
        side: Pixels of the square.
        quality: JPEG's, from 1 to 95.
    """
    return jpeg(resize_and_crop(picture, side), quality)


def jpeg(picture: np.ndarray, quality: int = 85) -> bytes:
    """A picture (H, W, 3) uint8 as a JPEG."""
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=quality)
    return content.getvalue()


def data_uri(content: bytes) -> str:
    """A JPEG as an address that holds it."""
    import base64

    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def cards(shown: Sequence[tuple[np.ndarray, str]], least: int = 180) -> str:
    """Pictures with their captions below, as many in a row as fit, as HTML.

    Args:
        shown: (H, W, 3) uint8 each, with a caption.
        least: Pixels that a card is wide at least, where the page has them.
    """
    figures = "".join(
        f"<figure><img src='{data_uri(jpeg(picture, 88))}' alt=''>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for picture, caption in shown
    )
    return f"<div class='cards' style='--least:{least}px'>{figures}</div>"


def numbered(picture: np.ndarray, cell: int) -> np.ndarray:
    """A square picture of cells with the numbers of its rows and columns beside it.

    Args:
        picture: (S, S, 3) uint8.
        cell: Pixels of a cell.
    """
    from PIL import Image, ImageDraw, ImageFont

    edge = 26
    side = len(picture) + edge
    page = Image.new("RGB", (side, side), "white")
    page.paste(Image.fromarray(picture), (edge, edge))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=min(15, cell - 2))
    for number in range(len(picture) // cell):
        middle = edge + number * cell + cell // 2
        draw.text((middle, edge // 2), str(number + 1), fill="black", font=font, anchor="mm")
        draw.text((edge // 2, middle), str(number + 1), fill="black", font=font, anchor="mm")
    return np.asarray(page)
