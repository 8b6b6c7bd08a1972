"""Brings images to one size."""

from __future__ import annotations

import numpy as np


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the shorter side to `size` (bilinear, antialiased) and cuts out the centre square.

    Args:
        image: (H, W, C), uint8 or uint16.
        size: Side of the result in pixels.

    Returns:
        (size, size, C) of the same type.
    """
    height, width = image.shape[:2]
    scale = size / min(height, width)
    new_height, new_width = max(size, round(height * scale)), max(size, round(width * scale))
    if (new_height, new_width) != (height, width):
        image = _resize(image, new_height, new_width)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return image[top : top + size, left : left + size]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes (H, W, C) with PIL, whose filter grows with the scale (no aliasing)."""
    import PIL.Image

    def resized(plane: PIL.Image.Image) -> np.ndarray:
        return np.asarray(plane.resize((width, height), PIL.Image.Resampling.BILINEAR))

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return resized(PIL.Image.fromarray(np.ascontiguousarray(image)))
    planes = [
        resized(PIL.Image.fromarray(image[..., c].astype(np.float32)))
        for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=2).round().astype(image.dtype)
