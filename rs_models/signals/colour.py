"""Colour jitter and grey as one affine map of a sample's bands."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

from .view_params import ViewParams
from .view_settings import BRIGHTNESS, CONTRAST, HUE, SATURATION

# ITU-R BT.601, as PIL's "L" and torchvision's rgb_to_grayscale.
_LUMA = {"red": 0.299, "green": 0.587, "blue": 0.114}
# Chroma axes of NTSC's YIQ (FCC 1953, as in Python's colorsys).
_CHROMA_I = {"red": 0.5959, "green": -0.2746, "blue": -0.3213}
_CHROMA_Q = {"red": 0.2115, "green": -0.5227, "blue": 0.3112}


def is_rgb(bands: Sequence[str]) -> bool:
    """Whether the bands are red, green and blue and nothing else, in any order."""
    return len(bands) == 3 and set(bands) == set(_LUMA)


def colour_map(params: ViewParams, bands: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Folds each sample's brightness, contrast, saturation, hue and grey into one affine map.

    A pixel x (C,) becomes `pixel @ x + mean @ m`, m (C,) being the mean of the sample's crop. The
    steps are torchvision's, in the sample's own order, but for two things: values are clamped once
    after the map, not after each step, and hue turns the chroma of YIQ (a matrix, and luma stays)
    where torchvision shifts the H of HSV (not linear). Saturation and hue need red, green and blue;
    with other bands contrast is about each band's own mean and grey is the mean of the bands.

    Args:
        params: The draw of B samples.
        bands: Canonical names of the C bands.

    Returns:
        `pixel` and `mean`, each (B, C, C) float32.
    """
    size, bands_n = len(params.grey), len(bands)
    eye = torch.eye(bands_n)
    brightness, contrast, saturation, hue = params.jitter.view(size, 4, 1, 1).unbind(1)
    rgb = is_rgb(bands)
    even = [1 / bands_n] * bands_n
    luma = torch.tensor([_LUMA[band] for band in bands] if rgb else even)
    to_grey = luma.expand(bands_n, bands_n)  # each row gives the grey value
    about = to_grey if rgb else eye  # what contrast moves the values away from

    steps = eye.expand(size, 4, bands_n, bands_n).clone()
    steps[:, BRIGHTNESS] *= brightness
    steps[:, CONTRAST] *= contrast
    if rgb:
        steps[:, SATURATION] = saturation * eye + (1 - saturation) * to_grey
        steps[:, HUE] = _hue_rotation(hue.view(size), bands)

    pixel = eye.expand(size, bands_n, bands_n)
    mean = torch.zeros(size, bands_n, bands_n)
    rows = torch.arange(size)
    for position in range(4):
        which = params.order[:, position]
        step = steps[rows, which]
        # Contrast adds (1 - factor) times the mean of the values as they are by then: `pixel` of
        # the crop's mean, since nothing but contrast, which comes once, adds a constant.
        pull = (1 - contrast) * (which == CONTRAST).view(size, 1, 1) * about
        mean = step @ mean + pull @ pixel
        pixel = step @ pixel
    if params.grey_kind == "mean":
        to_grey = torch.tensor(even).expand(bands_n, bands_n)
    elif params.grey_kind == "band":
        chosen = (params.grey_place * bands_n).long()  # (B,)
        to_grey = eye[chosen][:, None].expand(size, bands_n, bands_n)
    last = torch.where(params.grey.view(size, 1, 1), to_grey, eye)
    return last @ pixel, last @ mean


def _hue_rotation(turns: torch.Tensor, bands: Sequence[str]) -> torch.Tensor:
    """(B,) shifts in full turns -> (B, 3, 3) rotations of chroma that keep luma and greys."""
    to_yiq, from_yiq = _yiq(tuple(bands))
    # Red to green to blue runs clockwise in the (I, Q) plane; HSV's hue grows that way.
    angle = -2 * math.pi * turns.double()
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(turns), 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = torch.cos(angle)
    rotation[:, 1, 2] = -torch.sin(angle)
    rotation[:, 2, 1] = torch.sin(angle)
    return (from_yiq @ rotation @ to_yiq).float()


@functools.cache
def _yiq(bands: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The (3, 3) matrices to YIQ and back, with columns in the order of the bands."""
    axes = (_LUMA, _CHROMA_I, _CHROMA_Q)
    to_yiq = torch.tensor([[axis[band] for band in bands] for axis in axes], dtype=torch.float64)
    return to_yiq, torch.linalg.inv(to_yiq)
