"""The draw of every random number that a batch of views needs.

All numbers are drawn on the CPU, before any pixel is touched, so the same seed gives the same views
on any device and with either backend. A draw takes the same amount of the generator whatever the
settings: switching the blur off leaves the crops as they were.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from .view_settings import HUE, View

# torchvision.transforms.RandomResizedCrop.get_params gives up after ten tries.
_CROP_TRIES = 10


@dataclass(frozen=True)
class ViewParams:
    """The random numbers of one view of B samples, on the CPU.

    Attributes:
        box: (B, 4) int64: top, left, height, width of the crop in pixels of the image.
        flip_y: (B,) bool, the crop upside down.
        flip_x: (B,) bool, the crop left to right.
        transpose: (B,) bool, rows and columns exchanged after the flips. A quarter turn is a flip
            and a transposition.
        jitter: (B, 4) factors of brightness, contrast and saturation and the hue's shift in full
            turns; (1, 1, 1, 0) where nothing changes.
        order: (B, 4) int64, the order in which the four are applied.
        grey: (B,) bool.
        grey_kind: The view's `grey`.
        grey_place: (B,) uniform numbers that pick the band of a `band` grey.
        sigma: (B,) standard deviation of the blur in pixels of the view, 0 for none.
        solarize: (B,) bool.
    """

    box: torch.Tensor
    flip_y: torch.Tensor
    flip_x: torch.Tensor
    transpose: torch.Tensor
    jitter: torch.Tensor
    order: torch.Tensor
    grey: torch.Tensor
    grey_kind: str
    grey_place: torch.Tensor
    sigma: torch.Tensor
    solarize: torch.Tensor

    def replaced(self, other: ViewParams, rows: torch.Tensor) -> ViewParams:
        """These numbers with those of the samples `rows` (B,) bool taken from another draw."""
        merged: dict[str, Any] = {
            field.name: torch.where(
                rows.view(-1, *(1,) * (mine.ndim - 1)), getattr(other, field.name), mine
            )
            for field in dataclasses.fields(self)
            if isinstance(mine := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **merged)


def draw_params(
    view: View,
    batch: int,
    height: int,
    width: int,
    generator: torch.Generator,
    within: torch.Tensor | None = None,
) -> ViewParams:
    """Draws the parameters of one view of `batch` images of `height` x `width` pixels.

    Args:
        view: Ranges and probabilities.
        batch: Number of samples B.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        generator: A CPU generator; takes B x 42 numbers from it.
        within: (B, 4) boxes that the crops lie in; None is the whole image.
    """
    counts = [2 * _CROP_TRIES, 2, 4, 1, 4, 4, 1, 2, 1]  # numbers a sample, in the order below
    numbers = torch.rand(batch, sum(counts), generator=generator, dtype=torch.float64)
    tries, place, turn, jittered, factors, order, grey, blur, solarize = numbers.split(counts, 1)
    more = torch.rand(batch, 3, generator=generator, dtype=torch.float64)
    cropped, swap, band = more.unbind(1)

    # A quarter turn to the left is a left-right flip followed by a transposition.
    quarters = (turn[:, 3] * 4).long() * (turn[:, 2] < view.quarter_turns)
    up_down = turn[:, 0] < view.vertical_flip
    flip_y = up_down ^ (quarters >= 2)
    flip_x = (turn[:, 1] < _left_right(view, up_down)) ^ (quarters == 1) ^ (quarters == 2)

    strength = torch.tensor(view.jitter, dtype=torch.float64)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    low = neutral - strength
    low[:HUE].clamp_(min=0)  # as torchvision's ColorJitter: a factor is never negative
    jitter = low + factors * (neutral + strength - low)
    jitter = torch.where(jittered < view.jitter_probability, jitter, neutral)

    sigma = view.blur_sigma[0] + blur[:, 1] * (view.blur_sigma[1] - view.blur_sigma[0])
    if within is None:
        within = torch.tensor([0, 0, height, width]).expand(batch, 4)
    box = _crop_boxes(view, within, tries.view(batch, 2, _CROP_TRIES), place, swap)
    box = torch.where((cropped < view.crop_probability)[:, None], box, within)
    return ViewParams(
        box=box,
        flip_y=flip_y,
        flip_x=flip_x,
        transpose=quarters % 2 == 1,
        jitter=jitter.float(),
        order=order.argsort(dim=1),
        grey=grey[:, 0] < view.grey_probability,
        grey_kind=view.grey,
        grey_place=band,
        sigma=(sigma * (blur[:, 0] < view.blur_probability)).float(),
        solarize=solarize[:, 0] < view.solarize_probability,
    )


def _left_right(view: View, up_down: torch.Tensor) -> torch.Tensor:
    """(B,) probability of a left-right flip, given whether the sample is flipped up-down."""
    once, both = view.vertical_flip, view.both_flips
    if both is None:
        both = once * view.horizontal_flip
    given_flip = both / once if once > 0 else 0.0
    given_none = (view.horizontal_flip - both) / (1 - once) if once < 1 else 0.0
    return torch.where(up_down, given_flip, given_none)


def _crop_boxes(
    view: View,
    within: torch.Tensor,
    tries: torch.Tensor,
    place: torch.Tensor,
    swap: torch.Tensor,
) -> torch.Tensor:
    """Crop boxes by the rule of torchvision's RandomResizedCrop, (B, 4) int64.

    Args:
        view: For the ranges of area and aspect.
        within: (B, 4) top, left, height and width of what is cropped.
        tries: (B, 2, tries) uniform numbers for area and aspect.
        place: (B, 2) uniform numbers for top and left.
        swap: (B,) uniform numbers, below a half where a uniform aspect is turned over.
    """
    limits = within[:, 2:]  # (B, 2) height and width
    height, width = limits[:, :1], limits[:, 1:]
    area = height * width * (view.scale[0] + tries[:, 0] * (view.scale[1] - view.scale[0]))
    if view.aspect == "log":
        low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
        aspect = torch.exp(low + tries[:, 1] * (high - low))
    else:
        aspect = view.ratio[0] + tries[:, 1] * (view.ratio[1] - view.ratio[0])
        aspect = torch.where(swap[:, None] < 0.5, 1 / aspect, aspect)
    widths = (area * aspect).sqrt().round().long()  # (B, tries)
    heights = (area / aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    sides = torch.cat([heights.gather(1, first), widths.gather(1, first)], dim=1)  # (B, 2)
    corner = (place * (limits - sides + 1)).long()

    # Where no try fits: the largest central crop whose aspect is in range.
    fallback = torch.cat(
        [
            torch.minimum(height, (width / view.ratio[0]).round().long()),
            torch.minimum(width, (height * view.ratio[1]).round().long()),
        ],
        dim=1,
    ).clamp(min=1)
    found = fits.any(dim=1, keepdim=True)
    sides = torch.where(found, sides, fallback)
    corner = torch.where(found, corner, (limits - fallback) // 2)
    return torch.cat([within[:, :2] + corner, sides], dim=1)
