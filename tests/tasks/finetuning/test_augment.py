"""Pixels, masks and boxes are changed together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from rs_models.tasks.finetuning import augment


def sample(height=40, width=60):
    """A bright rectangle, its mask and its box."""
    image = torch.zeros(4, height, width)
    image[:, 10:20, 25:45] = 1.0
    mask = (image[0] > 0.5).to(torch.uint8)
    box = torch.tensor([[25.0, 10.0, 45.0, 20.0]])
    return {
        "image": tv_tensors.Image(image),
        "mask": tv_tensors.Mask(mask),
        "boxes": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(height, width)),
        "classes": torch.tensor([3]),
    }


def box_of(mask):
    found = masks_to_boxes(mask[None].bool())[0]
    return found + torch.tensor([0, 0, 1, 1])  # the last pixel's far side


def test_quarter_turns_are_exact_for_all_three():
    turn = augment.RandomQuarterTurn()
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        out = turn(sample())
        seen.add(out["image"].shape[-2:])
        torch.testing.assert_close((out["image"][0] > 0.5).to(torch.uint8), out["mask"].data)
        torch.testing.assert_close(out["boxes"][0].data, box_of(out["mask"]))
        assert out["boxes"].canvas_size == tuple(out["image"].shape[-2:])
    assert seen == {(40, 60), (60, 40)}


@pytest.mark.parametrize("whole", [True, False])
def test_windows_keep_all_three_together(whole):
    window = augment.RandomWindow(32, (0.5, 1.0), whole=whole)
    kept = 0
    for seed in range(20):
        torch.manual_seed(seed)
        out = window(sample())
        assert out["image"].shape == (4, 32, 32) and out["mask"].shape == (32, 32)
        if out["mask"].sum() > 20:
            kept += 1
            found, said = box_of(out["mask"]), out["boxes"][0].data.clamp(0, 32)
            assert float((found - said).abs().max()) <= 1.5  # of interpolated pixels
    assert kept > 5


def test_a_window_cuts_the_asked_area():
    sides = []
    ramp = tv_tensors.Image(torch.arange(100.0)[None, None].repeat(1, 100, 1))
    for seed in range(100):
        torch.manual_seed(seed)
        out = augment.RandomWindow(50, (0.25, 1.0), whole=True)({"image": ramp})["image"]
        sides.append(float(out.max() - out.min()))
    assert 48 < min(sides) < 60 and 90 < max(sides) < 101


def test_light_changes_the_image_alone():
    torch.manual_seed(0)
    before = sample()
    after = augment.RandomLight()(sample())
    assert not torch.equal(before["image"], after["image"]) and float(after["image"].min()) >= 0
    assert torch.equal(before["mask"], after["mask"])
    assert torch.equal(before["boxes"], after["boxes"])


def test_boxes_that_a_crop_loses_are_dropped_with_their_class():
    transform = augment.build("overhead", 16, (0.1, 0.2), whole=True, boxes=True)
    counts = set()
    for seed in range(30):
        torch.manual_seed(seed)
        inputs = sample()
        del inputs["mask"]
        out = transform(inputs)
        assert len(out["boxes"]) == len(out["classes"])
        counts.add(len(out["boxes"]))
        assert float(out["boxes"].clamp(0, 16).sub(out["boxes"]).abs().sum()) == 0
    assert counts == {0, 1}


def test_none_changes_nothing():
    out = augment.build("none", None, (0.5, 1.0), whole=False)(sample())
    np.testing.assert_array_equal(out["image"], sample()["image"])
