"""View recipes as data, and the draw of every random number that a batch of views needs.

All numbers are drawn on the CPU, before any pixel is touched, so the same seed gives the same views
on any device and with either backend. A draw takes the same amount of the generator whatever the
settings: switching the blur off leaves the crops as they were.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UserError

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# torchvision.transforms.RandomResizedCrop.get_params gives up after ten tries.
_CROP_TRIES = 10


@dataclass(frozen=True)
class View:
    """How one view of an image is made: crop, turn, jitter, grey, blur, solarise, in this order.

    Attributes:
        size: Side of the square view in pixels.
        scale: Area of the crop over the image's, smallest and largest.
        ratio: Width over height of the crop, smallest and largest, drawn on a log scale.
        horizontal_flip: Probability of a left-right flip.
        vertical_flip: Probability of an up-down flip.
        quarter_turns: Probability of a turn by 0, 1, 2 or 3 quarters, each equally often.
        jitter: Strength of brightness, contrast, saturation (factors 1 - s to 1 + s) and hue
            (-s to s of a full turn, at most 0.5), in a random order per sample. Saturation and
            hue act on red, green, blue images only.
        jitter_probability: Probability that a sample is jittered at all.
        grey_probability: Probability of a grey image (luma of RGB, else the mean of the bands).
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Standard deviation of the blur, smallest and largest, in pixels of the view.
        solarize_probability: Probability that values from the threshold up are inverted.
        solarize_threshold: Threshold as a fraction of the value range.
    """

    size: int
    # MoCo v2 and SimSiam (main_moco.py, main_simsiam.py): RandomResizedCrop(224, scale=(0.2, 1.)).
    # SimCLR's own 0.08 leaves 27 of 96 pixels, too few for a scene.
    scale: tuple[float, float] = (0.2, 1.0)
    # torchvision's RandomResizedCrop default.
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    quarter_turns: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    # SimCLR (arXiv 2002.05709, appendix A).
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0
    # BYOL (arXiv 2006.07733, appendix B).
    solarize_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check every value."""
        _check_view(self)


@dataclass(frozen=True)
class Recipe:
    """The views that a method wants of each image.

    Attributes:
        views: In the order in which a `ViewBatch` holds them.
    """

    views: tuple[View, ...]

    def __post_init__(self) -> None:
        """Refuse an empty recipe."""
        if not self.views:
            raise UserError("A recipe needs at least one view.")


def _simclr(size: int) -> Recipe:
    # SimCLR (arXiv 2002.05709, appendix A): jitter 0.8, 0.8, 0.8, 0.2 times a strength of 1 with
    # probability 0.8, grey 0.2, blur 0.5 with sigma 0.1 to 2. The crop's scale is ours, see View.
    view = View(
        size=size,
        jitter=(0.8, 0.8, 0.8, 0.2),
        jitter_probability=0.8,
        grey_probability=0.2,
        blur_probability=0.5,
    )
    return Recipe(views=(view, view))


def _tov(size: int) -> Recipe:
    # TOV's pretraining code is not published: SimCLR's views plus the turns and flips that leave an
    # overhead image as likely as before. Our choice.
    view = dataclasses.replace(_simclr(size).views[0], vertical_flip=0.5, quarter_turns=1.0)
    return Recipe(views=(view, view))


def _none(size: int) -> Recipe:
    # The whole image (the central square of an oblong one) twice, resized only.
    view = View(size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0)
    return Recipe(views=(view, view))


RECIPES: dict[str, Callable[[int], Recipe]] = {"simclr": _simclr, "tov": _tov, "none": _none}
"""Recipe name -> function of the view size in pixels."""


def recipe_from_settings(
    name: str, size: int, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Return a named recipe with some settings of its views replaced.

    Args:
        name: A key of `RECIPES`.
        size: Side of the views in pixels.
        overrides: `View` field -> value, put into every view; lists are taken for tuples.

    Raises:
        UserError: For an unknown recipe or setting, or a value that `View` refuses.
    """
    if name not in RECIPES:
        raise UserError(f"Unknown view recipe {name!r}: choose one of {', '.join(RECIPES)}.")
    known = [field.name for field in dataclasses.fields(View) if field.name != "size"]
    values: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        if key not in known:
            raise UserError(f"Unknown view setting {key!r}: the settings are {', '.join(known)}.")
        values[key] = tuple(value) if isinstance(value, list) else value
    recipe = RECIPES[name](size)
    return Recipe(views=tuple(dataclasses.replace(view, **values) for view in recipe.views))


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
    sigma: torch.Tensor
    solarize: torch.Tensor


def draw_params(
    view: View, batch: int, height: int, width: int, generator: torch.Generator
) -> ViewParams:
    """Draw the parameters of one view of `batch` images of `height` x `width` pixels.

    Args:
        view: Ranges and probabilities.
        batch: Number of samples B.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        generator: A CPU generator; takes B x 38 numbers from it.
    """
    counts = [2 * _CROP_TRIES, 2, 4, 1, 4, 4, 1, 2, 1]  # numbers a sample, in the order below
    numbers = torch.rand(batch, sum(counts), generator=generator, dtype=torch.float64)
    tries, place, turn, jittered, factors, order, grey, blur, solarize = numbers.split(counts, 1)

    # A quarter turn to the left is a left-right flip followed by a transposition.
    quarters = (turn[:, 3] * 4).long() * (turn[:, 2] < view.quarter_turns)
    flip_y = (turn[:, 0] < view.vertical_flip) ^ (quarters >= 2)
    flip_x = (turn[:, 1] < view.horizontal_flip) ^ (quarters == 1) ^ (quarters == 2)

    strength = torch.tensor(view.jitter, dtype=torch.float64)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    low = neutral - strength
    low[:HUE].clamp_(min=0)  # as torchvision's ColorJitter: a factor is never negative
    jitter = low + factors * (neutral + strength - low)
    jitter = torch.where(jittered < view.jitter_probability, jitter, neutral)

    sigma = view.blur_sigma[0] + blur[:, 1] * (view.blur_sigma[1] - view.blur_sigma[0])
    return ViewParams(
        box=_crop_boxes(view, height, width, tries.view(batch, 2, _CROP_TRIES), place),
        flip_y=flip_y,
        flip_x=flip_x,
        transpose=quarters % 2 == 1,
        jitter=jitter.float(),
        order=order.argsort(dim=1),
        grey=grey[:, 0] < view.grey_probability,
        sigma=(sigma * (blur[:, 0] < view.blur_probability)).float(),
        solarize=solarize[:, 0] < view.solarize_probability,
    )


def _crop_boxes(
    view: View, height: int, width: int, tries: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """Crop boxes by the rule of torchvision's RandomResizedCrop, (B, 4) int64.

    Args:
        view: For the ranges of area and aspect.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        tries: (B, 2, tries) uniform numbers for area and aspect.
        place: (B, 2) uniform numbers for top and left.
    """
    area = height * width * (view.scale[0] + tries[:, 0] * (view.scale[1] - view.scale[0]))
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    aspect = torch.exp(low + tries[:, 1] * (high - low))
    widths = (area * aspect).sqrt().round().long()  # (B, tries)
    heights = (area / aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    sides = torch.cat([heights.gather(1, first), widths.gather(1, first)], dim=1)  # (B, 2)
    limits = torch.tensor([height, width])
    corner = (place * (limits - sides + 1)).long()

    # Where no try fits: the largest central crop whose aspect is in range.
    fallback = torch.tensor(
        [
            min(height, round(width / view.ratio[0])),
            min(width, round(height * view.ratio[1])),
        ]
    ).clamp(min=1)
    found = fits.any(dim=1, keepdim=True)
    sides = torch.where(found, sides, fallback)
    corner = torch.where(found, corner, (limits - fallback) // 2)
    return torch.cat([corner, sides], dim=1)


def _check_view(view: View) -> None:
    """Raise a UserError for the first value of a view that makes no sense."""
    if not isinstance(view.size, int) or view.size < 1:
        raise UserError(f"View size must be a whole number of pixels from 1, not {view.size!r}.")
    for name in (
        "horizontal_flip",
        "vertical_flip",
        "quarter_turns",
        "jitter_probability",
        "grey_probability",
        "blur_probability",
        "solarize_probability",
        "solarize_threshold",
    ):
        value = getattr(view, name)
        if not _is_number(value) or not 0 <= value <= 1:
            raise UserError(f"View setting {name} must be a number from 0 to 1, not {value!r}.")
    for name, top in (("scale", 1.0), ("ratio", math.inf), ("blur_sigma", math.inf)):
        pair = getattr(view, name)
        good = isinstance(pair, tuple) and len(pair) == 2 and all(_is_number(v) for v in pair)
        if not good or not 0 < pair[0] <= pair[1] <= top:
            limit = "" if top == math.inf else f", at most {top:g}"
            raise UserError(
                f"View setting {name} must be two numbers above 0{limit}, "
                f"the smaller first, not {pair!r}."
            )
    jitter = view.jitter
    good = isinstance(jitter, tuple) and len(jitter) == 4 and all(_is_number(v) for v in jitter)
    if not good or min(jitter) < 0 or jitter[HUE] > 0.5:
        raise UserError(
            "View setting jitter must be four numbers from 0 (brightness, contrast, saturation, "
            f"hue), hue at most 0.5, not {jitter!r}."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
