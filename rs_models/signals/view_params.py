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
from .puzzle import permutation_table
from .transport import BATCH_SOLVERS

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# torchvision.transforms.RandomResizedCrop.get_params gives up after ten tries.
_CROP_TRIES = 10


@dataclass(frozen=True)
class View:
    """How one view of an image is made: crop, turn, jitter, grey, blur, solarise, in this order.

    Attributes:
        size: Side of the square view in pixels.
        scale: Area of the crop over the image's, smallest and largest.
        ratio: Width over height of the crop, smallest and largest.
        aspect: `log` draws the ratio on a log scale (torchvision), `uniform` evenly and then
            exchanges width and height half of the time (GLCNet).
        crop_probability: Probability of a crop at all; else the whole image is resized.
        inside: Number of an earlier view of the recipe: this crop lies within that view's crop, and
            `scale` is over that crop's area. The ratio of their ground sizes is then known.
        horizontal_flip: Probability of a left-right flip.
        vertical_flip: Probability of an up-down flip.
        both_flips: Probability of both flips at once; null is the product of the two.
        quarter_turns: Probability of a turn by 0, 1, 2 or 3 quarters, each equally often.
        jitter: Strength of brightness, contrast, saturation (factors 1 - s to 1 + s) and hue
            (-s to s of a full turn, at most 0.5), in a random order per sample. Saturation and
            hue act on red, green, blue images only.
        jitter_probability: Probability that a sample is jittered at all.
        grey_probability: Probability of a grey image.
        grey: What grey is: `luma` of RGB (of other bands the mean), `mean` of the bands, or one
            random `band`.
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
    aspect: str = "log"
    crop_probability: float = 1.0
    inside: int | None = None
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    both_flips: float | None = None
    quarter_turns: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    grey: str = "luma"
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
class Regions:
    """Square regions that show the same ground in both views of an image (see `regions`).

    Attributes:
        patch_size: Side in pixels of the view.
        patches: Regions an image.
    """

    patch_size: int = 48
    patches: int = 4


@dataclass(frozen=True)
class Puzzle:
    """The view is cut into cells which are put in one of several orders (see `puzzle`).

    Attributes:
        grid: Cells a side.
        permutations: Number of orders to tell apart.
        margin: Share of a cell's side that its random crop leaves out, so that edges that run on
            from cell to cell do not give the order away.
    """

    grid: int = 2
    permutations: int = 24
    margin: float = 11 / 75  # 64 of 75 pixels: ErenTuring/RSISC_SSL_Paradigm


@dataclass(frozen=True)
class SceneTransfer:
    """The second view is made of the image in another image's colours (see `transport`).

    Attributes:
        probability: Of a transfer, by sample.
        solver: `emd`, `gaussian` or `sliced`.
        num_samples: Pixels that the transport is solved for.
    """

    probability: float = 0.1
    solver: str = "emd"
    num_samples: int = 1000


@dataclass(frozen=True)
class Recipe:
    """The views that a method wants of each image.

    Attributes:
        views: In the order in which a `ViewBatch` holds them.
        regions: Matching regions of the first two views, or none.
        puzzle: How the only view becomes a puzzle, or none.
        transfer: Scene transfer of the second view, or none.
    """

    views: tuple[View, ...]
    regions: Regions | None = None
    puzzle: Puzzle | None = None
    transfer: SceneTransfer | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        if not self.views:
            raise UserError("A recipe needs at least one view.")
        for number, view in enumerate(self.views):
            if view.inside is not None and view.inside >= number:
                raise UserError(
                    f"View {number} lies inside view {view.inside}, which must come before it."
                )
        if self.regions is not None:
            _check_regions(self.regions, self.views)
        if self.puzzle is not None:
            _check_puzzle(self.puzzle, self.views)
        if self.transfer is not None:
            _check_transfer(self.transfer, self.views)


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


def _false(size: int) -> Recipe:
    # GeoX-Lab/FALSE, configs: SimCLR's views with torchvision's default crop.
    view = dataclasses.replace(_simclr(size).views[0], scale=(0.08, 1.0))
    return Recipe(views=(view, view))


def _moco_v1(size: int) -> Recipe:
    # GeoX-Lab/G-RSIM, T-SC-STICL/main_moco.py without --aug-plus, as its README runs it: the views
    # of MoCo v1, jittered always.
    view = View(
        size=size, jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=1.0, grey_probability=0.2
    )
    return Recipe(views=(view, view))


def _moco_v2(size: int) -> Recipe:
    # The same script with --aug-plus: the views of MoCo v2 (arXiv 2003.04297).
    view = View(
        size=size,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grey_probability=0.2,
        blur_probability=0.5,
    )
    return Recipe(views=(view, view))


# GeoX-Lab/G-RSIM and ErenTuring/RSISC_SSL_Paradigm flip left-right, up-down, both ways (1/5 each)
# or not at all: each flip in 2/5 of the samples.
_FLIPS: dict[str, Any] = {"horizontal_flip": 0.4, "vertical_flip": 0.4, "both_flips": 0.2}


def _glcnet(size: int) -> Recipe:
    # GeoX-Lab/G-RSIM, T-SS-GLCNet/utils: the first view is cropped only. Differences: its shift
    # of hue (30 of 180), saturation (5 of 255) and value (15 of 255) in HSV is our linear map of
    # the same reach, and its blur by kernels of 3, 5 and 7 pixels is one of the same deviations,
    # 0.8 to 1.4; contrast changes too, as the code does with more than three bands. Its pixel noise
    # (one in a thousand, bands beyond RGB only) is left out.
    first = View(size=size, scale=(0.4, 1.0), aspect="uniform", horizontal_flip=0.0)
    second = dataclasses.replace(
        first,
        **_FLIPS,
        quarter_turns=0.8,
        jitter=(0.1, 0.1, 0.05, 1 / 6),
        jitter_probability=0.4,  # 0.8 times an inner 0.5
        grey_probability=0.1,
        grey="band",
        blur_probability=0.5,
        blur_sigma=(0.8, 1.4),
    )
    return Recipe(views=(first, second))


def _rsisc(size: int) -> Recipe:
    # ErenTuring/RSISC_SSL_Paradigm, augmentation plan S6: one view is cropped only. Its mean of 3x3
    # pixels is a blur of the same deviation, sqrt(2/3); flips and turns are drawn apart.
    first = View(size=size, scale=(0.5, 1.0), crop_probability=0.8, horizontal_flip=0.0)
    second = View(
        size=size,
        scale=(0.4, 1.0),
        crop_probability=0.8,
        horizontal_flip=0.2,  # with probability 0.5 one of the flips of _FLIPS
        vertical_flip=0.2,
        both_flips=0.1,
        quarter_turns=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grey_probability=0.2,
        grey="mean",
        blur_probability=0.5,
        blur_sigma=(0.8165, 0.8165),
    )
    return Recipe(views=(first, second))


def _inpainting(size: int) -> Recipe:
    # The same repository, inpainting: crop, flips and turns of the second view above, no colour.
    view = dataclasses.replace(
        _rsisc(size).views[1], jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0
    )
    return Recipe(views=(view,))


def _jigsaw(size: int) -> Recipe:
    # The same repository, relative position: 150 of 155 pixels (225 of 230) a side, turned with
    # probability 0.5, jittered 0.8, grey 0.2. Its crop is the central one, ours is anywhere.
    share = (150 / 155) ** 2
    view = dataclasses.replace(
        _rsisc(size).views[1],
        scale=(share, share),
        ratio=(1.0, 1.0),
        crop_probability=1.0,
        blur_probability=0.0,
    )
    return Recipe(views=(view,), puzzle=Puzzle())


def _last(size: int) -> Recipe:
    # facebookresearch/dino, DataAugmentationDINO, plus the flips and turns that leave an overhead
    # image as likely as before (ours; LaST's code is not published).
    first = View(
        size=size,
        scale=(0.4, 1.0),
        vertical_flip=0.5,
        quarter_turns=1.0,
        jitter=(0.4, 0.4, 0.2, 0.1),
        jitter_probability=0.8,
        grey_probability=0.2,
        blur_probability=1.0,
    )
    second = dataclasses.replace(first, blur_probability=0.1, solarize_probability=0.2)
    local = dataclasses.replace(
        first, size=max(1, round(size * 96 / 224)), scale=(0.05, 0.4), blur_probability=0.5
    )
    return Recipe(views=(first, second, *(local,) * 8))


def _none(size: int) -> Recipe:
    # The whole image (the central square of an oblong one) twice, resized only.
    view = View(size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0)
    return Recipe(views=(view, view))


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "simclr": _simclr,
    "tov": _tov,
    "false": _false,
    "moco_v1": _moco_v1,
    "moco_v2": _moco_v2,
    "glcnet": _glcnet,
    "rsisc": _rsisc,
    "inpainting": _inpainting,
    "jigsaw": _jigsaw,
    "last": _last,
    "none": _none,
}
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
    known = [f.name for f in dataclasses.fields(View) if f.name not in ("size", "inside")]
    values: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        if key not in known:
            raise UserError(f"Unknown view setting {key!r}: the settings are {', '.join(known)}.")
        values[key] = tuple(value) if isinstance(value, list) else value
    recipe = RECIPES[name](size)
    views = tuple(dataclasses.replace(view, **values) for view in recipe.views)
    return dataclasses.replace(recipe, views=views)


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
    """Draw the parameters of one view of `batch` images of `height` x `width` pixels.

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


def _check_regions(regions: Regions, views: tuple[View, ...]) -> None:
    """Raise a UserError for regions that do not fit the views."""
    if len(views) != 2 or views[0].size != views[1].size:
        raise UserError("Matching regions are drawn in two views of one size.")
    whole = isinstance(regions.patch_size, int) and isinstance(regions.patches, int)
    if not whole or not 1 <= regions.patch_size < views[0].size or regions.patches < 1:
        raise UserError(
            f"Regions of patch_size {regions.patch_size} do not fit views of {views[0].size} "
            f"pixels (patches {regions.patches}): use a smaller patch_size and at least one patch."
        )


def _check_puzzle(puzzle: Puzzle, views: tuple[View, ...]) -> None:
    """Raise a UserError for a puzzle that cannot be made of the views."""
    if len(views) != 1:
        raise UserError(f"A puzzle is made of one view, not of {len(views)}.")
    permutation_table(puzzle.grid, puzzle.permutations)
    if not _is_number(puzzle.margin) or not 0 <= puzzle.margin < 1:
        raise UserError(f"A puzzle's margin must be from 0 to below 1, not {puzzle.margin!r}.")
    if views[0].size < puzzle.grid:
        raise UserError(
            f"A view of {views[0].size} pixels has no {puzzle.grid} x {puzzle.grid} cells."
        )


def _check_transfer(transfer: SceneTransfer, views: tuple[View, ...]) -> None:
    """Raise a UserError for a scene transfer that cannot be made."""
    if len(views) < 2:
        raise UserError("Scene transfer makes the second view: the recipe needs two.")
    if not _is_number(transfer.probability) or not 0 <= transfer.probability <= 1:
        raise UserError(
            f"Scene transfer's probability must be from 0 to 1, not {transfer.probability!r}."
        )
    if transfer.solver not in BATCH_SOLVERS:
        raise UserError(
            f"Unknown solver {transfer.solver!r} of the scene transfer: use "
            f"{', '.join(BATCH_SOLVERS)}."
        )
    if not isinstance(transfer.num_samples, int) or transfer.num_samples < 1:
        raise UserError(
            f"Scene transfer's num_samples must be 1 or more, not {transfer.num_samples!r}."
        )


def _check_view(view: View) -> None:
    """Raise a UserError for the first value of a view that makes no sense."""
    if not isinstance(view.size, int) or view.size < 1:
        raise UserError(f"View size must be a whole number of pixels from 1, not {view.size!r}.")
    for name, choices in (("aspect", ("log", "uniform")), ("grey", ("luma", "mean", "band"))):
        if getattr(view, name) not in choices:
            raise UserError(
                f"View setting {name} must be {' or '.join(choices)}, not {getattr(view, name)!r}."
            )
    for name in (
        "crop_probability",
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
    flips = (view.horizontal_flip, view.vertical_flip)
    both = view.both_flips
    # With room for rounding: 0.9 + 0.8 - 1 is a little above 0.7.
    low, high = max(0.0, sum(flips) - 1) - 1e-9, min(flips) + 1e-9
    if both is not None and not (_is_number(both) and low <= both <= high):
        raise UserError(
            f"View setting both_flips is {both!r}, which flips of {flips[0]} and {flips[1]} cannot "
            "have in common."
        )
    inside = view.inside
    if inside is not None and (type(inside) is not int or inside < 0):
        raise UserError(f"View setting inside must be the number of a view, not {inside!r}.")
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
