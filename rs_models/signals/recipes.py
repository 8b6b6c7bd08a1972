"""The views of each method as data: recipe name -> function of the view size in pixels.

The source of each constant stands above it; what differs from it is said there too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError
from .view_settings import Puzzle, Recipe, View

# GeoX-Lab/G-RSIM and ErenTuring/RSISC_SSL_Paradigm flip left-right, up-down, both ways (1/5 each)
# or not at all: each flip in 2/5 of the samples.
_FLIPS: dict[str, Any] = {"horizontal_flip": 0.4, "vertical_flip": 0.4, "both_flips": 0.2}


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


def _glcnet(size: int) -> Recipe:
    # GeoX-Lab/G-RSIM, T-SS-GLCNet/utils: the first view is cropped only. Differences: its shift
    # of hue (30 of 180), saturation (5 of 255) and value (15 of 255) in HSV is our linear map of
    # about the same reach, on images of RGB alone (theirs: on the first three bands of any); other
    # bands get brightness and contrast, theirs with probability 0.8 and each band by itself; its
    # blur by kernels of 3, 5 and 7 pixels is one of the same deviations, 0.8 to 1.4; ten tries of a
    # crop for five; no pixel noise.
    first = View(size=size, scale=(0.4, 1.0), aspect="uniform", horizontal_flip=0.0)
    second = dataclasses.replace(
        first,
        **_FLIPS,
        quarter_turns=0.8,
        jitter=(0.1, 0.1, 0.02, 1 / 6),
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
    """Returns a named recipe with some settings of its views replaced.

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
