"""Views and images for the tests of this folder."""

from __future__ import annotations

import torch

from rs_models.signals.view_params import draw_params
from rs_models.signals.views import Recipe, View, ViewBatch, ViewMaker

RGB = ("red", "green", "blue")
BACKENDS = ("opencv", "torch")


def whole(size: int, **settings) -> View:
    """A view of the whole image in which only what a test names happens."""
    plain = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "horizontal_flip": 0.0}
    return View(size=size, **{**plain, **settings})


def maker(recipe: Recipe, backend: str = "auto", **settings) -> ViewMaker:
    """Views in stored units: the normalisation only undoes the scaling."""
    bands = settings.pop("bands", RGB)
    high = settings.get("value_range", (0, 255))[1]
    return ViewMaker(
        recipe,
        **{
            "bands": bands,
            "image_mean": [0.0] * len(bands),
            "image_std": [1 / high] * len(bands),
            "value_range": (0, 255),
            "backend": backend,
            **settings,
        },
    )


def make(view: View, images: torch.Tensor, backend: str = "auto", seed: int = 0, **settings):
    """One view in stored units."""
    return maker(Recipe((view,)), backend, **settings)(images, seed).crops[0]


def drawn(view: View, images: torch.Tensor, seed: int = 0):
    """The parameters that `make` draws for the same view and seed."""
    generator = torch.Generator().manual_seed(seed)
    return draw_params(view, len(images), images.shape[2], images.shape[3], generator)


def params_of(view: View, count: int = 4000, height: int = 100, width: int = 150):
    """The parameters of many samples of one view."""
    return draw_params(view, count, height, width, torch.Generator().manual_seed(1))


def scenes(count: int = 8, size: int = 48, low: int = 0, high: int = 255, bands: int = 3):
    """Smooth random uint8 images, channels-last in memory as the image cache holds them."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, bands, 7, 7, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    images = (low + fine * (high - low)).round().to(torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def same(one: ViewBatch, other: ViewBatch) -> bool:
    """Whether two batches hold the same views, regions and targets."""
    pairs = [*zip(one.crops, other.crops, strict=True)]
    pairs += [(one.boxes, other.boxes), (one.targets, other.targets)]
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)
