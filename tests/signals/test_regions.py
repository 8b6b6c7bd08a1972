"""Regions: the same ground in both views, drawn evenly, and pooled as from the large map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from rs_models.errors import UserError
from rs_models.signals.regions import draw_regions, index_map, pool_regions
from rs_models.signals.view_params import ViewParams, draw_params
from rs_models.signals.view_settings import View
from rs_models.signals.views_torch import TorchViews


def params(batch: int, height: int, width: int, seed: int = 0, **settings) -> ViewParams:
    """Crops with every flip and turn."""
    free = {"scale": (0.3, 1.0), "vertical_flip": 0.5, "quarter_turns": 1.0}
    view = View(size=8, **{**free, **settings})  # the draw does not look at the size
    return draw_params(view, batch, height, width, torch.Generator().manual_seed(seed))


def placed(
    batch: int, box: tuple[int, int, int, int], y: bool = False, x: bool = False, t: bool = False
) -> ViewParams:
    """The same crop (top, left, height, width), flips and transposition for every sample."""
    truth = [torch.full((batch,), value) for value in (y, x, t)]
    return dataclasses.replace(
        params(batch, 9, 9),
        box=torch.tensor(box).expand(batch, 4),
        flip_y=truth[0],
        flip_x=truth[1],
        transpose=truth[2],
    )


def draw(first: ViewParams, second: ViewParams, seed: int = 0, **settings):
    return draw_regions(first, second, generator=torch.Generator().manual_seed(seed), **settings)


def window(label: np.ndarray, patch: int) -> np.ndarray:
    """Source pixels shown at least half a patch away from the border."""
    size, half = len(label), patch // 2
    stop = max(size - half, half + 1)
    return label[half:stop, half:stop]


def left_after(candidates: np.ndarray, label: np.ndarray, x: int, y: int, patch: int):
    """Candidates after a patch of the first view, by sets of pixels."""
    left = np.setdiff1d(candidates, label[y : y + patch, x : x + patch])
    return left if len(left) > 1 else candidates


def first_corner(label: np.ndarray, value: int, patch: int) -> tuple[int, int]:
    """x, y of the patch around the first pixel in row-major order that shows `value` with room."""
    for y, x in np.argwhere(label == value) - patch // 2:
        if min(y, x) >= 0 and max(y, x) + patch <= len(label):
            return x, y
    raise AssertionError(f"no patch around {value} fits")


def check(labels: tuple[np.ndarray, np.ndarray], boxes: np.ndarray, patch: int) -> None:
    """Follow the rule of the draw by brute force, (2, R, 4) boxes of one image."""
    candidates = np.intersect1d(*(window(label, patch) for label in labels))
    for one, two in zip(*boxes, strict=True):
        for x1, y1, x2, y2 in (one, two):
            assert 0 <= x1 and 0 <= y1 and x2 < len(labels[0]) and y2 < len(labels[0])
            assert (x2 - x1 + 1, y2 - y1 + 1) == (patch, patch)
        values = [
            label[y1 + patch // 2, x1 + patch // 2]
            for label, (x1, y1, _, _) in zip(labels, (one, two), strict=True)
        ]
        assert values[0] == values[1]
        assert values[0] in candidates
        for label, (x1, y1, _, _) in zip(labels, (one, two), strict=True):
            assert (x1, y1) == first_corner(label, values[0], patch)
        candidates = left_after(candidates, labels[0], one[0], one[1], patch)


@pytest.mark.parametrize("seed", ["s1", "s2", "s3"])
def test_the_authors_regions_follow_the_rule(golden, seed):
    stored = np.load(golden / "glcnet_regions.npz")
    boxes = stored[f"rois_{seed}"].astype(int).reshape(4, 2, 5)[:, :, 1:]  # (R, 2, 4)
    check((stored[f"label1_{seed}"], stored[f"label2_{seed}"]), boxes.swapaxes(0, 1), patch=48)


@pytest.mark.parametrize("seed", ["s1", "s2", "s3"])
@pytest.mark.parametrize("view", [1, 2])
def test_the_authors_maps_keep_rows_and_columns_apart(golden, seed, view):
    label = np.load(golden / "glcnet_regions.npz")[f"label{view}_{seed}"].astype(int)
    rows, columns = label // 256, label % 256
    if rows[0, 0] != rows[0, -1]:  # a quarter turn
        rows, columns = rows.T, columns.T
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
    place = np.arange(224)
    for axis in (rows[:, 0], columns[0]):
        steps = np.diff(axis)
        assert (steps >= 0).all() or (steps <= 0).all()
        # Ours takes the pixel under the centre, theirs that under the edge: never further than one.
        rising = axis if steps.sum() > 0 else axis[::-1]
        length = rising[-1] - rising[0] + 1
        ours = rising[0] + (2 * place + 1) * length // 448
        assert np.abs(ours - rising).max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "size", "patch", "patches"),
    [
        (64, 64, 48, 12, 4),
        (40, 70, 48, 11, 4),  # an oblong image and an odd patch
        (10, 13, 48, 12, 3),  # an image smaller than the view
        (200, 150, 32, 6, 5),  # pixels are skipped
        (64, 64, 33, 1, 2),
        (1, 1, 8, 4, 2),
        (3, 2, 8, 8, 4),  # a patch as large as the view
        (6, 6, 21, 21, 2),
    ],
)
def test_draws_follow_the_rule(height, width, size, patch, patches):
    first, second = params(60, height, width, seed=1), params(60, height, width, seed=2)
    settings = {"size": size, "height": height, "width": width}
    boxes, found = draw(first, second, patch_size=patch, patches=patches, **settings)
    assert boxes.shape == (2, 60, patches, 4) and boxes.dtype == torch.int64
    for i in range(60):
        labels = tuple(index_map(p, i, size, height, width).numpy() for p in (first, second))
        shared = np.intersect1d(*(window(label, patch) for label in labels))
        assert bool(found[i]) == (len(shared) > 0)
        if found[i]:
            check(labels, boxes[:, i].numpy(), patch)
    assert found.any()
    assert boxes[..., :2].min() >= 0 and boxes[..., 2:].max() < size  # of lost samples as well


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("crop", [(5, 9, 30, 44), (0, 2, 47, 61), (8, 3, 17, 12)])
def test_index_map_is_the_pixel_that_the_view_shows(flips, turned, crop):
    row, column = torch.meshgrid(torch.arange(50), torch.arange(70), indexing="ij")
    images = (torch.stack([row, column]) * 64).to(torch.uint16)[None]
    drawn = placed(1, crop, *flips, turned)
    nothing = torch.zeros_like(drawn.grey)
    drawn = dataclasses.replace(drawn, grey=nothing, sigma=nothing.float(), solarize=nothing)
    shown = torch.empty(1, 2, 40, 40)
    colour = (torch.eye(2)[None], torch.zeros(1, 2, 2))
    make = TorchViews(torch.full((2,), 1 / 64), torch.zeros(2), (0.0, 65535.0))
    make(images, View(size=40), drawn, colour, shown)
    index = index_map(drawn, 0, 40, 50, 70)
    inner = slice(3, -3)  # at the borders the resize leans inwards
    for ramp, expected in zip(shown[0], (index // 70, index % 70), strict=True):
        assert (ramp - expected)[inner, inner].abs().max() <= 0.501


def observed(boxes: torch.Tensor, label: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, R) source pixels under the centres of the first view's patches."""
    x, y = (boxes[0, :, :, :2] + patch // 2).unbind(2)
    return label[y, x]


@pytest.mark.parametrize(
    ("crop_1", "crop_2", "patch"),
    [
        ((0, 0, 14, 12), (2, 1, 12, 11), 4),
        ((0, 0, 5, 4), (0, 0, 5, 5), 6),  # a patch takes most, and sometimes all, of what there is
        ((0, 0, 1, 3), (0, 0, 1, 3), 6),  # a patch would leave one candidate
        ((0, 0, 30, 30), (1, 0, 20, 30), 5),  # pixels are skipped
    ],
)
def test_every_candidate_is_drawn_equally_often(crop_1, crop_2, patch):
    size, pixels, batch = 14, 30, 20000
    first, second = placed(batch, crop_1, y=True), placed(batch, crop_2, x=True, t=True)
    settings = {"size": size, "height": pixels, "width": pixels}
    boxes, found = draw(first, second, patch_size=patch, patches=3, **settings)
    assert found.all()
    labels = [index_map(p, 0, size, pixels, pixels) for p in (first, second)]
    maps = [label.numpy() for label in labels]
    centres = observed(boxes, labels[0], patch).numpy()  # (B, 3)

    # The exact distribution of each of the three draws, over all histories.
    chances = [np.zeros(pixels * pixels) for _ in range(3)]

    def follow(step: int, candidates: np.ndarray, chance: float) -> None:
        share = chance / len(candidates)
        chances[step][candidates] += share
        if step < 2:
            for value in candidates:
                x, y = first_corner(maps[0], value, patch)
                follow(step + 1, left_after(candidates, maps[0], x, y, patch), share)

    shared = np.intersect1d(*(window(label, patch) for label in maps))
    follow(0, shared, 1.0)
    for step in range(3):
        counts = np.bincount(centres[:, step], minlength=pixels * pixels)
        assert counts[chances[step] == 0].sum() == 0
        likely = chances[step] > 0
        expected = chances[step][likely]
        test = stats.chisquare(counts[likely], batch * expected / expected.sum())
        assert test.pvalue > 1e-3


def test_views_without_common_ground_are_reported():
    first, second = params(3, 100, 100, seed=1), params(3, 100, 100, seed=2)
    boxes = torch.tensor([[0, 0, 40, 40], [0, 0, 100, 100], [0, 0, 100, 40]])
    first = dataclasses.replace(first, box=boxes)
    boxes = torch.tensor([[60, 60, 40, 40], [0, 0, 100, 100], [0, 60, 100, 40]])
    second = dataclasses.replace(second, box=boxes)
    boxes, found = draw(first, second, size=32, height=100, width=100, patch_size=8)
    assert found.tolist() == [False, True, False]
    assert (boxes[:, ~found] == torch.tensor([12, 12, 19, 19])).all()


def test_views_that_overlap_only_at_their_borders_share_no_candidate():
    first, second = placed(1, (0, 0, 64, 40)), placed(1, (0, 30, 64, 34))
    settings = {"size": 32, "height": 64, "width": 64}
    assert draw(first, second, patch_size=4, **settings)[1].item()
    assert not draw(first, second, patch_size=16, **settings)[1].item()


def test_the_seed_decides_and_a_sample_does_not_depend_on_its_neighbours():
    first, second = params(20, 64, 64, seed=1), params(20, 64, 64, seed=2)
    settings = {"size": 48, "height": 64, "width": 64, "patch_size": 12}
    boxes, found = draw(first, second, **settings)
    torch.testing.assert_close(draw(first, second, **settings)[0], boxes)
    assert (draw(first, second, seed=1, **settings)[0] != boxes).any()
    # Another crop of one sample leaves the others as they were.
    other = params(20, 64, 64, seed=3)
    only = torch.arange(20) == 7
    changed = dataclasses.replace(second, box=torch.where(only[:, None], other.box, second.box))
    again, found_again = draw(first, changed, **settings)
    torch.testing.assert_close(again[:, ~only], boxes[:, ~only])
    assert found[~only].equal(found_again[~only])


def test_refuses_what_cannot_be_drawn():
    one = params(2, 32, 32)
    settings = {"size": 24, "height": 32, "width": 32}
    for patch in (0, 25):
        with pytest.raises(UserError, match=f"from 1 to the view's 24 pixels, not {patch}"):
            draw(one, one, patch_size=patch, **settings)
    with pytest.raises(UserError, match="at least one patch"):
        draw(one, one, patch_size=8, patches=0, **settings)
    with pytest.raises(ValueError, match="2 first views but 3 second"):
        draw(one, params(3, 32, 32), patch_size=8, **settings)
    with pytest.raises(ValueError, match="leaves the image of 32 x 32"):
        draw(one, placed(2, (0, 0, 33, 8)), patch_size=8, **settings)
    with pytest.raises(ValueError, match="leaves the image of 32 x 32"):
        index_map(placed(1, (0, -1, 8, 8)), 0, 24, 32, 32)


def test_no_images_give_no_regions():
    none = params(0, 32, 32)
    boxes, found = draw(none, none, size=24, height=32, width=32, patch_size=8)
    assert boxes.shape == (2, 0, 4, 4) and found.shape == (0,)
    assert pool_regions(torch.zeros(0, 5, 3, 3), boxes[0], 24).shape == (0, 5)


def pooled_the_long_way(features: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    large = functional.interpolate(features, (size, size), mode="bilinear", align_corners=True)
    return torch.stack(
        [
            large[i, :, y1 : y2 + 1, x1 : x2 + 1].mean(dim=(1, 2))
            for i, image in enumerate(boxes.tolist())
            for x1, y1, x2, y2 in image
        ]
    )


def test_pooled_regions_equal_the_authors(golden):
    stored = np.load(golden / "glcnet_local.npz")
    boxes = torch.from_numpy(stored["rois"]).reshape(3, 2, 2, 5)[..., 1:].long()  # (B, R, 2, 4)
    for view, (features, patches) in enumerate((("dec_a", "q_patch"), ("dec_b", "k_patch"))):
        pooled = pool_regions(torch.from_numpy(stored[features]), boxes[:, :, view], 32)
        np.testing.assert_allclose(pooled.numpy(), stored[patches], rtol=1e-5, atol=1e-7)


def random_boxes(batch: int, regions: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    ends = torch.randint(size, (2, batch, regions, 2), generator=generator)
    return torch.cat([ends.amin(0), ends.amax(0)], dim=2)


@pytest.mark.parametrize(
    ("h", "w", "size"), [(8, 8, 32), (56, 56, 224), (5, 9, 30), (1, 3, 20), (7, 7, 7), (40, 20, 16)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_equals_the_mean_of_the_upsampled_map(h, w, size, layout):
    boxes = random_boxes(3, 4, size)
    features = torch.randn(3, 6, h, w, generator=torch.Generator().manual_seed(0))
    features = features.contiguous(memory_format=layout).requires_grad_()
    gradient = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
    pooled, expected = (
        pool_regions(features, boxes, size),
        pooled_the_long_way(features, boxes, size),
    )
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=5e-6)
    grad, expected_grad = (
        torch.autograd.grad(value, features, gradient)[0] for value in (pooled, expected)
    )
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=5e-6)


def test_pooling_keeps_the_digits_of_float64_weights():
    boxes = random_boxes(2, 5, 224)
    features = torch.randn(2, 4, 56, 56, generator=torch.Generator().manual_seed(0))
    expected = pooled_the_long_way(features.double(), boxes, 224)
    torch.testing.assert_close(
        pool_regions(features, boxes, 224).double(), expected, rtol=1e-6, atol=1e-6
    )


def test_pooling_computes_in_float32_under_autocast():
    boxes = random_boxes(2, 4, 32)
    features = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool_regions(features, boxes, 32)
    assert pooled.dtype == torch.float32
    expected = pooled_the_long_way(features.float(), boxes, 32)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-6)


def test_pooling_refuses_boxes_that_do_not_fit():
    features = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(1, 3, 4\)"):
        pool_regions(features, torch.zeros(1, 3, 4), 16)
    for box in ([-1, 0, 3, 3], [0, 0, 16, 3], [5, 0, 4, 3]):
        with pytest.raises(ValueError, match="leaves the view of 16"):
            pool_regions(features, torch.tensor(box).expand(2, 1, 4), 16)
