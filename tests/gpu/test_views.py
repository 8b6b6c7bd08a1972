"""Views and scene transfer on a device equal the CPU's, from the same random numbers."""

from __future__ import annotations

import pytest
import torch

from rs_models.signals.transport import transfer_batch
from rs_models.signals.views import RECIPES, recipe_from_settings
from tests.gpu.devices import on_devices
from tests.signals.helpers import maker, scenes

# In grey levels. A pixel is a sum of at most as many products as a side has pixels, along two axes
# and once more for a blur: 3 * 256 roundings of float32 (2^-24 of 255 levels) at the worst add up
# to 0.012 levels, and the colour map may double them three times. TensorFloat-32, were it taken for
# these products, rounds each to 2^-11: 0.12 levels.
LEVELS = 0.1
SIZES = {"cpu": (4, 48, 32), "cuda": (32, 256, 224)}  # images, their side, the views' side


@on_devices()
@pytest.mark.parametrize("name", RECIPES)
def test_views_equal_the_cpus(device, name):
    count, side, size = SIZES[device.type]
    views = maker(recipe_from_settings(name, size, {}), "torch")
    images = scenes(count, side)
    for seed in range(2):
        wanted, got = (views(images.to(where), seed) for where in ("cpu", device))
        for theirs, ours in zip(wanted.crops, got.crops, strict=True):
            assert ours.device.type == device.type
            assert ours.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=LEVELS)
        for theirs, ours in ((wanted.boxes, got.boxes), (wanted.targets, got.targets)):
            assert ours is theirs is None or torch.equal(ours.cpu(), theirs)


@on_devices()
def test_views_of_sixteen_bits_equal_the_cpus(device):
    """Of 13 bands: in the unit of 10,000 levels, which float32 rounds as finely in proportion."""
    count, side, size = SIZES[device.type]
    bands = [f"B{number}" for number in range(13)]
    settings = {"bands": bands, "value_range": (0, 10_000)}
    views = maker(recipe_from_settings("simclr", size, {}), "torch", **settings)
    images = (scenes(count, side, bands=13).to(torch.int32) * 39).to(torch.uint16)
    wanted, got = (views(images.to(where), 0).crops[0].cpu() for where in ("cpu", device))
    torch.testing.assert_close(got, wanted, rtol=0, atol=LEVELS * 10_000 / 255)


@on_devices()
@pytest.mark.parametrize(
    ("solver", "largest", "mean"),
    [
        # A value at the middle between two levels may be rounded either way, and no more than that.
        ("gaussian", 1, 0.01),
        # Knots half a level apart are one colour or two, so that a rounding may move some pixels
        # by many levels: with 2^-22 of noise in its rotations, 0.11 levels in the mean on the CPU.
        ("sliced", 255, 0.5),
        # This one works on the CPU, wherever the images are.
        ("emd", 0, 0.0),
    ],
)
def test_scene_transfer_equals_the_cpus(device, solver, largest, mean):
    count, side, _ = SIZES[device.type]
    images = scenes(count, side)
    samples = 100 if solver == "emd" else 1000
    moved = [
        transfer_batch(x, x.roll(1, 0), solver=solver, num_samples=samples).cpu().int()
        for x in (images, images.to(device))
    ]
    difference = (moved[1] - moved[0]).abs()
    assert (moved[0] - images.int()).abs().float().mean() > 5  # it did something
    assert difference.max() <= largest and difference.float().mean() <= mean
    # The colours that an image takes are the scene's on both: 0.01 levels with the same noise.
    colours = [x.float().mean(dim=(2, 3)) for x in moved]
    torch.testing.assert_close(*colours, rtol=0, atol=0.1)
