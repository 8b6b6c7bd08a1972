"""Views: the batched augmentation that turns stored integer images into what a method learns from.

`ViewMaker` draws every random number of a batch first (`view_params`), then one of two backends
makes the pixels: OpenCV's uint8 kernels on the CPU, or batched torch operations on any device and
any number of bands. Both take the same numbers and agree to about a grey level.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import UserError
from . import views_opencv as _opencv_views
from .colour import colour_map
from .puzzle import cut, permutation_table
from .recipes import RECIPES, recipe_from_settings
from .regions import draw_regions
from .transport import transfer_batch
from .view_params import ViewParams, draw_params
from .view_settings import Puzzle, Recipe, Regions, SceneTransfer, View
from .views_opencv import OpenCVViews
from .views_torch import TorchViews

__all__ = [
    "RECIPES",
    "Puzzle",
    "Recipe",
    "Regions",
    "SceneTransfer",
    "View",
    "ViewBatch",
    "ViewMaker",
    "recipe_from_settings",
]

# Draws of crops whose regions do not meet, before the second crop becomes the first.
_REDRAWS = 10


@dataclass
class ViewBatch:
    """What a method's `forward` takes.

    Attributes:
        crops: One (V*B, C, H, W) normalised float tensor a view size, channels-last in memory,
            view-major: the first views of all images, then all second views.
        boxes: (2, B, R, 4) matching regions of the two views as x1, y1, x2, y2 in pixels of the
            view, ends included, where the recipe draws them.
        targets: (B,) what to predict, where the recipe makes it: the order of a puzzle.
        index: (B,) rows of the images in the data set.
        labels: (B,) class labels, for meters only, never for a loss.
    """

    crops: list[torch.Tensor]
    boxes: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    index: torch.Tensor | None = None
    labels: torch.Tensor | None = None


class ViewMaker:
    """Makes the views of a recipe from batches of stored images.

    Args:
        recipe: The views.
        bands: Canonical names of the images' C bands.
        image_mean: C means of the values divided by `value_range[1]`.
        image_std: C standard deviations in the same unit.
        value_range: Smallest and largest stored value; the colour map is clamped to it.
        backend: "opencv" (uint8 images of up to 4 bands on the CPU), "torch" (everything), or
            "auto": OpenCV where it can, else torch.
        num_threads: Threads of the OpenCV backend; torch's number when None.

    Raises:
        UserError: If the statistics do not fit the bands, or a setting makes no sense.

    Example:
        >>> maker = ViewMaker(
        ...     recipe_from_settings("simclr", 32, {}),
        ...     bands=("red", "green", "blue"),
        ...     image_mean=(0.5, 0.5, 0.5),
        ...     image_std=(0.5, 0.5, 0.5),
        ...     value_range=(0, 255),
        ... )
        >>> batch = maker(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), 0)
        >>> [tuple(crops.shape) for crops in batch.crops]  # two views of four images
        [(8, 3, 32, 32)]
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        bands: Sequence[str],
        image_mean: Sequence[float],
        image_std: Sequence[float],
        value_range: tuple[float, float],
        backend: Literal["auto", "torch", "opencv"] = "auto",
        num_threads: int | None = None,
    ) -> None:
        """Checks the settings and folds the normalisation into one affine map."""
        if len(image_mean) != len(bands) or len(image_std) != len(bands):
            raise UserError(
                f"{len(bands)} bands need as many image_mean and image_std values, not "
                f"{len(image_mean)} and {len(image_std)}."
            )
        if min(image_std) <= 0:
            raise UserError(
                f"The setting image_std must be above 0 in every band, not {list(image_std)}."
            )
        low, high = value_range
        if not low < high or high <= 0:
            raise UserError(
                "The setting value_range must be two numbers, the smaller first and the larger "
                f"above 0, not {value_range}."
            )
        if backend not in ("auto", "torch", "opencv"):
            raise UserError(f"Unknown view backend {backend!r}: choose auto, torch or opencv.")
        self.recipe = recipe
        self.bands = tuple(bands)
        self.value_range = (float(low), float(high))
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.backend = backend
        # (x / high - mean) / std as one multiplication and one addition.
        std = torch.tensor(image_std, dtype=torch.float64)
        scale = (1 / (high * std)).float()
        offset = (-torch.tensor(image_mean, dtype=torch.float64) / std).float()
        self._torch = TorchViews(scale, offset, self.value_range)
        self._opencv = OpenCVViews(scale, offset, num_threads or torch.get_num_threads())

    @torch.no_grad()
    def __call__(
        self,
        images: torch.Tensor,
        seed: int,
        *,
        index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        out: ViewBatch | None = None,
    ) -> ViewBatch:
        """Makes the views of one batch.

        Args:
            images: (B, C, H, W) uint8 or uint16 on any device, fastest in channels-last memory.
            seed: Seed of everything random in this batch; the same seed gives the same views.
            index: (B,) handed on in the batch.
            labels: (B,) handed on in the batch.
            places: (B,) where (or of which class) the images are, on the CPU: scene transfer takes
                the scene from another one. None takes it from any other image.
            dtype: Floating point type of the views.
            out: An earlier batch that nobody needs any more: its crops are written over where their
                shapes still fit. On a CPU fresh memory for large views costs up to half as much
                as the views themselves.

        Returns:
            The views on the images' device.

        Raises:
            UserError: If the images do not fit the bands or the backend.
        """
        make = self._choose(images)
        batch, bands, height, width = images.shape
        generator = torch.Generator().manual_seed(seed)
        params, boxes = self._draw(batch, height, width, generator)
        sources = [images] * len(params)
        if self.recipe.transfer is not None:
            sources[1] = _transfer(images, places, self.recipe.transfer, generator)
        crops: list[torch.Tensor] = []
        # A puzzle's cells are copies, so the view that they were cut from is not kept.
        old = out.crops if out is not None and self.recipe.puzzle is None else []
        for size in dict.fromkeys(view.size for view in self.recipe.views):
            numbers = [i for i, view in enumerate(self.recipe.views) if view.size == size]
            shape = (len(numbers) * batch, bands, size, size)
            crop = _reusable(old, len(crops), shape, dtype, images.device)
            for part, i in zip(crop.split(batch), numbers, strict=True):
                view, drawn = self.recipe.views[i], params[i]
                make(sources[i], view, drawn, colour_map(drawn, self.bands), part)
            crops.append(crop)
        targets = None
        if self.recipe.puzzle is not None:
            puzzle = self.recipe.puzzle
            table = permutation_table(puzzle.grid, puzzle.permutations)
            draws = torch.rand(batch, 1 + 2 * puzzle.grid**2, generator=generator)
            cells, targets = cut(crops[0], puzzle.grid, puzzle.margin, table, draws)
            crops = [cells]
        return ViewBatch(crops=crops, boxes=boxes, targets=targets, index=index, labels=labels)

    def draw(
        self, batch: int, height: int, width: int, seed: int
    ) -> tuple[list[ViewParams], torch.Tensor | None]:
        """The numbers behind the views that a call with the same seed makes, to look at.

        Args:
            batch: Images B.
            height: Height of the images in pixels.
            width: Width of the images in pixels.
            seed: Seed of the call.

        Returns:
            One draw a view of the recipe, and the boxes of `ViewBatch`, or None.
        """
        return self._draw(batch, height, width, torch.Generator().manual_seed(seed))

    def _draw(
        self, batch: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[list[ViewParams], torch.Tensor | None]:
        """Every view's numbers, and the matching regions where the recipe has them."""

        def draw() -> list[ViewParams]:
            params: list[ViewParams] = []
            for view in self.recipe.views:
                within = None if view.inside is None else params[view.inside].box
                params.append(draw_params(view, batch, height, width, generator, within))
            return params

        params = draw()
        if self.recipe.regions is None:
            return params, None
        size, regions = self.recipe.views[0].size, self.recipe.regions

        def match() -> tuple[torch.Tensor, torch.Tensor]:
            return draw_regions(
                *params,
                size=size,
                height=height,
                width=width,
                patch_size=regions.patch_size,
                patches=regions.patches,
                generator=generator,
            )

        boxes, matched = match()
        # Two crops at opposite borders show no common ground: such a sample is drawn again, and at
        # last its second crop is the first one.
        for last in (False,) * _REDRAWS + (True,):
            if matched.all():
                break
            again = draw()
            if last:
                again[1] = dataclasses.replace(again[1], box=again[0].box)
            params = [p.replaced(q, ~matched) for p, q in zip(params, again, strict=True)]
            new_boxes, now = match()
            boxes = torch.where(matched.view(1, -1, 1, 1), boxes, new_boxes)
            matched = matched | now
        return params, boxes

    def _choose(self, images: torch.Tensor) -> OpenCVViews | TorchViews:
        """Checks the images and returns the backend for them."""
        if images.ndim != 4 or images.dtype not in (torch.uint8, torch.uint16):
            raise UserError(
                "Views are made of (B, C, H, W) uint8 or uint16 images, not of "
                f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}."
            )
        if images.shape[1] != len(self.bands):
            raise UserError(
                f"The images have {images.shape[1]} bands but {len(self.bands)} are named: "
                f"{', '.join(self.bands)}. Set bands to those of the data."
            )
        fits = _opencv_views.supports(images, self.value_range)
        if self.backend == "opencv" and not fits:
            raise UserError(
                "The opencv view backend takes uint8 images of up to 4 bands and value range "
                "0 to 255 on the CPU: set the view backend to auto or torch."
            )
        if self.backend == "opencv" or (
            self.backend == "auto" and fits and importlib.util.find_spec("cv2") is not None
        ):
            return self._opencv
        return self._torch


def _transfer(
    images: torch.Tensor,
    places: torch.Tensor | None,
    settings: SceneTransfer,
    generator: torch.Generator,
) -> torch.Tensor:
    """The images (B, C, H, W), some of them in the colours of another image of the batch.

    The batch is a random part of the data, so a random other image of it stands for a random image
    of the data.
    """
    batch = len(images)
    draws = torch.rand(batch, generator=generator)
    # The scene is the candidate with the largest number: every other image, and one of the same
    # place only if there is no other.
    score = torch.rand(batch, batch, generator=generator)
    score.fill_diagonal_(-1.0)
    if places is not None:
        elsewhere = places.view(-1, 1) != places.view(1, -1)
        score = torch.where(elsewhere, score, score - 1.0)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    rows = (draws < settings.probability).nonzero().flatten()
    if batch < 2 or len(rows) == 0:
        return images
    scenes = score[rows].argmax(dim=1)
    rows = rows.to(images.device, non_blocking=True)
    scenes = scenes.to(images.device, non_blocking=True)
    moved = transfer_batch(
        images[rows],
        images[scenes],
        solver=settings.solver,
        num_samples=settings.num_samples,
        seed=seed,
    )
    changed = images.clone(memory_format=torch.preserve_format)
    # Bits are copied, so signed numbers do: torch on the CPU cannot write rows of uint16.
    kind = torch.int16 if images.dtype == torch.uint16 else images.dtype
    changed.view(kind)[rows] = moved.view(kind)
    return changed


def _reusable(
    old: list[torch.Tensor],
    place: int,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """The old tensor at `place` if it fits, else a new one, channels-last in memory."""
    if place < len(old):
        tensor = old[place]
        if tensor.shape == shape and tensor.dtype == dtype and tensor.device == device:
            return tensor
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
