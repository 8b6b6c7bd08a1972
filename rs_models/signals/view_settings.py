"""What a view can be made of: the settings of one view, and of all views that a method wants.

Every value is checked when it is set, so that a wrong one ends before any training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UserError
from ..provenance import is_number
from .puzzle import permutation_table
from .transport import BATCH_SOLVERS

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


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
        """Checks every value."""
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
        probability: Probability of a transfer, by sample.
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
        """Refuses what cannot be made."""
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


def _check_regions(regions: Regions, views: tuple[View, ...]) -> None:
    """Raises a UserError for regions that do not fit the views."""
    if len(views) != 2 or views[0].size != views[1].size:
        raise UserError("Matching regions are drawn in two views of one size.")
    whole = isinstance(regions.patch_size, int) and isinstance(regions.patches, int)
    if not whole or not 1 <= regions.patch_size < views[0].size or regions.patches < 1:
        raise UserError(
            f"Regions of patch_size {regions.patch_size} do not fit views of {views[0].size} "
            f"pixels (patches {regions.patches}): use a smaller patch_size and at least one patch."
        )


def _check_puzzle(puzzle: Puzzle, views: tuple[View, ...]) -> None:
    """Raises a UserError for a puzzle that cannot be made of the views."""
    if len(views) != 1:
        raise UserError(f"A puzzle is made of one view, not of {len(views)}.")
    permutation_table(puzzle.grid, puzzle.permutations)
    if not is_number(puzzle.margin) or not 0 <= puzzle.margin < 1:
        raise UserError(f"A puzzle's margin must be from 0 to below 1, not {puzzle.margin!r}.")
    if views[0].size < puzzle.grid:
        raise UserError(
            f"A view of {views[0].size} pixels has no {puzzle.grid} x {puzzle.grid} cells."
        )


def _check_transfer(transfer: SceneTransfer, views: tuple[View, ...]) -> None:
    """Raises a UserError for a scene transfer that cannot be made."""
    if len(views) < 2:
        raise UserError("Scene transfer makes the second view: the recipe needs two.")
    if not is_number(transfer.probability) or not 0 <= transfer.probability <= 1:
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
    """Raises a UserError for the first value of a view that makes no sense."""
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
        if not is_number(value) or not 0 <= value <= 1:
            raise UserError(f"View setting {name} must be a number from 0 to 1, not {value!r}.")
    flips = (view.horizontal_flip, view.vertical_flip)
    both = view.both_flips
    # With room for rounding: 0.9 + 0.8 - 1 is a little above 0.7.
    low, high = max(0.0, sum(flips) - 1) - 1e-9, min(flips) + 1e-9
    if both is not None and not (is_number(both) and low <= both <= high):
        raise UserError(
            f"View setting both_flips is {both!r}, which flips of {flips[0]} and {flips[1]} cannot "
            "have in common."
        )
    inside = view.inside
    if inside is not None and (type(inside) is not int or inside < 0):
        raise UserError(f"View setting inside must be the number of a view, not {inside!r}.")
    for name, top in (("scale", 1.0), ("ratio", math.inf), ("blur_sigma", math.inf)):
        pair = getattr(view, name)
        good = isinstance(pair, tuple) and len(pair) == 2 and all(is_number(v) for v in pair)
        if not good or not 0 < pair[0] <= pair[1] <= top:
            limit = "" if top == math.inf else f", at most {top:g}"
            raise UserError(
                f"View setting {name} must be two numbers above 0{limit}, "
                f"the smaller first, not {pair!r}."
            )
    jitter = view.jitter
    good = isinstance(jitter, tuple) and len(jitter) == 4 and all(is_number(v) for v in jitter)
    if not good or min(jitter) < 0 or jitter[HUE] > 0.5:
        raise UserError(
            "View setting jitter must be four numbers from 0 (brightness, contrast, saturation, "
            f"hue), hue at most 0.5, not {jitter!r}."
        )
