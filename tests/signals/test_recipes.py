"""Recipes: what each one draws against its source, regions, scene transfer and puzzles in views."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from rs_models.errors import UserError
from rs_models.signals.colour import colour_map
from rs_models.signals.regions import draw_regions
from rs_models.signals.view_params import draw_params
from rs_models.signals.views import (
    RECIPES,
    Puzzle,
    Recipe,
    Regions,
    SceneTransfer,
    View,
    recipe_from_settings,
)
from tests.signals.helpers import BACKENDS, RGB, drawn, make, maker, params_of, same, scenes, whole

RGBN = (*RGB, "nir")


# --- the fields of a view -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left_right", "up_down", "both"),
    [
        (0.4, 0.4, 0.2),
        (0.2, 0.2, 0.1),
        (0.5, 0.5, 0.0),  # never both
        (0.3, 1.0, 0.3),
        (0.3, 0.0, 0.0),
        (0.9, 0.8, 0.7),  # never neither; in floating point 0.9 + 0.8 - 1 > 0.7
        (0.6, 0.3, None),
    ],
)
def test_both_flips_together_are_as_likely_as_asked(left_right, up_down, both):
    view = View(32, horizontal_flip=left_right, vertical_flip=up_down, both_flips=both)
    params = params_of(view)
    x, y = params.flip_x, params.flip_y
    both = left_right * up_down if both is None else both
    expected = {(1, 1): both, (1, 0): left_right - both, (0, 1): up_down - both}
    for (flip_x, flip_y), probability in expected.items():
        rate = ((x == flip_x) & (y == flip_y)).double().mean()
        assert abs(rate - probability) <= 0.032 * (0 < probability < 1)  # four standard errors
    # The flips are the same numbers' as without a say on both: only their partner changes.
    assert torch.equal(y, params_of(dataclasses.replace(view, both_flips=None)).flip_y)


def test_a_uniform_aspect_is_even_and_turned_over_half_of_the_time():
    view = View(32, scale=(0.05, 0.2), ratio=(0.25, 1.0), aspect="uniform")
    box = params_of(view, 4000, 1000, 1000).box.numpy()
    random = np.random.default_rng(0)
    area, aspect = random.uniform(0.05, 0.2, 4000), random.uniform(0.25, 1.0, 4000)
    aspect = np.where(random.random(4000) < 0.5, aspect, 1 / aspect)
    assert stats.ks_2samp(box[:, 3] / box[:, 2], aspect).statistic < 0.0436  # p 0.001
    assert stats.ks_2samp(box[:, 2] * box[:, 3] / 1e6, area).statistic < 0.0436
    # A log scale over the same reach is another distribution.
    log = params_of(dataclasses.replace(view, ratio=(0.25, 4.0), aspect="log"), 4000, 1000, 1000)
    assert stats.ks_2samp(log.box[:, 3] / log.box[:, 2], aspect).statistic > 0.06


def test_crop_probability_leaves_whole_images_and_the_other_crops_alone():
    view = View(32, scale=(0.2, 0.5), crop_probability=0.3)
    box = params_of(view).box
    always = params_of(dataclasses.replace(view, crop_probability=1.0)).box
    uncropped = (box == torch.tensor([0, 0, 100, 150])).all(1)
    assert abs(uncropped.double().mean() - 0.7) < 0.03
    assert torch.equal(box[~uncropped], always[~uncropped])
    never = params_of(dataclasses.replace(view, crop_probability=0.0)).box
    assert (never == torch.tensor([0, 0, 100, 150])).all()
    images = scenes(3)  # and the whole image is what is shown
    assert torch.equal(
        make(whole(24, crop_probability=0.0, scale=(0.1, 0.2)), images), make(whole(24), images)
    )


@pytest.mark.parametrize("share", [0.1, (96 / 224) ** 2, 0.5])
def test_a_crop_inside_another_has_the_asked_share_of_it(share):
    outer = params_of(View(64, scale=(0.3, 1.0)), 4000, 200, 300).box
    view = View(32, scale=(share, share))
    inner = draw_params(view, 4000, 200, 300, torch.Generator().manual_seed(3), within=outer).box
    room = outer[:, 2:] - inner[:, 2:]
    offset = inner[:, :2] - outer[:, :2]
    assert (offset >= 0).all() and (offset <= room).all()
    # Both sides are rounded to whole pixels, nothing else is lost.
    area = share * (outer[:, 2] * outer[:, 3]).double()
    rounding = (inner[:, 2] + inner[:, 3]).double() / 2 + 0.25
    assert ((inner[:, 2] * inner[:, 3] - area).abs() <= rounding).all()
    # And it is anywhere in there.
    place = (offset + 0.5) / (room + 1)
    assert stats.kstest(place[:, 0], "uniform").statistic < 0.05
    assert stats.kstest(place[:, 1], "uniform").statistic < 0.05


def ground(count: int = 16, height: int = 96, width: int = 96) -> torch.Tensor:
    """Two bands that say which row and which column a pixel is."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns]).to(torch.uint8)
    return image.expand(count, -1, -1, -1)


def test_view_makers_put_the_inner_crops_into_the_right_outer_one():
    outer = View(32, scale=(0.2, 0.5))
    inner = View(16, scale=(0.25, 0.25), vertical_flip=0.5, quarter_turns=1.0)
    recipe = Recipe(
        (
            outer,
            outer,
            dataclasses.replace(inner, inside=0),
            dataclasses.replace(inner, inside=1),
            dataclasses.replace(inner, inside=2, scale=(0.5, 0.5)),
        )
    )
    large, small = maker(recipe, "torch", bands=("vv", "vh"))(ground(), 0).crops
    spans = [view.flatten(2).aminmax(dim=2) for crops in (large, small) for view in crops.split(16)]

    def lies_within(inner: int, outer: int) -> torch.Tensor:
        (first, last), (low, high) = spans[inner], spans[outer]
        return ((first >= low - 1) & (last <= high + 1)).all(1)  # (B,)

    assert lies_within(2, 0).all() and lies_within(3, 1).all() and lies_within(4, 2).all()
    assert not lies_within(3, 0).all() and not lies_within(2, 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bands", [RGB, RGBN])
def test_mean_and_band_grey(backend, bands):
    images = scenes(40, 24, bands=len(bands))
    pixels = images.numpy().astype(float)
    mean = make(whole(24, grey="mean", grey_probability=1.0), images, backend, bands=bands)
    assert np.abs(mean.numpy() - pixels.mean(1, keepdims=True)).max() < 1.1

    band = make(whole(24, grey="band", grey_probability=1.0), images, backend, bands=bands).numpy()
    assert np.abs(band - band[:, :1]).max() < 0.01  # all bands alike
    away = np.abs(pixels - band[:, :1]).max((2, 3))  # (B, C)
    assert (away.min(1) < 1.1).all()  # each sample is one of its bands
    assert set(away.argmin(1)) == set(range(len(bands)))

    some = make(whole(24, grey="band", grey_probability=0.5), images, backend, bands=bands).numpy()
    alike = np.abs(some - some[:, :1]).max((1, 2, 3)) < 0.01
    assert 5 < alike.sum() < 35
    assert np.abs(some - pixels)[~alike].max() < 1.1


def test_grey_bands_are_equally_likely_and_come_after_the_jitter():
    view = whole(8, grey="band", grey_probability=1.0, jitter=(0.0, 0.5, 0.0, 0.0))
    params = params_of(view)
    chosen = colour_map(params, RGB)[0][:, 0].argmax(1)
    assert np.abs(np.bincount(chosen, minlength=3) / 4000 - 1 / 3).max() < 0.03
    # Contrast is about the mean of all of RGB, whichever band is shown.
    view = dataclasses.replace(view, jitter_probability=1.0)
    images = scenes(6, 8, low=90, high=140)
    params, x = drawn(view, images), images.double()
    luma = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).mean((1, 2))
    factor = params.jitter[:, 1].double().view(-1, 1, 1)
    band = x[torch.arange(6), (params.grey_place * 3).long()]
    expected = factor * band + (1 - factor) * luma.view(-1, 1, 1)
    assert (make(view, images, "torch")[:, 0] - expected).abs().max() < 0.1


def test_a_draw_takes_as_much_of_the_generator_whatever_the_settings():
    states = []
    for view in (whole(8), RECIPES["glcnet"](8).views[1], RECIPES["last"](8).views[1]):
        generator = torch.Generator().manual_seed(0)
        draw_params(view, 5, 40, 40, generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


# --- the recipes ----------------------------------------------------------------------------------

# What the sources say, a dictionary a view: `flips` are the probabilities of left-right, up-down
# and both, `turn` that of a turn by 0 to 3 quarters.
_STILL = {"flips": (0, 0, 0), "turn": 0, "jitter": 0, "grey": 0, "blur": 0, "solarize": 0}
_SIMCLR = {
    **_STILL,
    "flips": (0.5, 0, 0),
    "area": (0.2, 1.0),
    "jitter": 0.8,
    "strength": (0.8, 0.8, 0.8, 0.2),
    "grey": 0.2,
    "blur": 0.5,
    "sigma": (0.1, 2.0),
}
_TOV = {**_SIMCLR, "flips": (0.25, 0.25, 0.25), "turn": 1}
_MOCO = {**_SIMCLR, "strength": (0.4, 0.4, 0.4, 0.4), "jitter": 1, "blur": 0}
_INPAINTING = {
    **_STILL,
    "flips": (0.1, 0.1, 0.1),
    "turn": 0.5,
    "area": (0.4, 1.0),
    "whole": 0.2,
}
_RSISC = {
    **_INPAINTING,
    "jitter": 0.8,
    "strength": (0.4, 0.4, 0.4, 0.1),
    "grey": 0.2,
    "grey_kind": "mean",
    "blur": 0.5,
    "sigma": (0.8165, 0.8165),
}
_GLOBAL = {**_TOV, "area": (0.4, 1.0), "strength": (0.4, 0.4, 0.2, 0.1), "blur": 1}
_LOCAL = {**_GLOBAL, "area": (0.05, 0.4), "blur": 0.5}
SOURCES = {
    "simclr": [_SIMCLR] * 2,
    "tov": [_TOV] * 2,
    "false": [{**_SIMCLR, "area": (0.08, 1.0)}] * 2,
    "moco_v1": [_MOCO] * 2,
    "moco_v2": [{**_MOCO, "strength": (0.4, 0.4, 0.4, 0.1), "jitter": 0.8, "blur": 0.5}] * 2,
    "glcnet": [
        {**_STILL, "area": (0.4, 1.0)},
        {
            **_STILL,
            "flips": (0.2, 0.2, 0.2),
            "turn": 0.8,
            "area": (0.4, 1.0),
            "jitter": 0.4,
            "strength": (0.1, 0.1, 0.02, 1 / 6),
            "grey": 0.1,
            "grey_kind": "band",
            "blur": 0.5,
            "sigma": (0.8, 1.4),
        },
    ],
    "rsisc": [{**_STILL, "area": (0.5, 1.0), "whole": 0.2}, _RSISC],
    "inpainting": [_INPAINTING],
    "jigsaw": [{**_RSISC, "whole": 0, "area": (0.936, 0.937), "blur": 0}],
    "last": [_GLOBAL, {**_GLOBAL, "blur": 0.1, "solarize": 0.2}, *[_LOCAL] * 8],
    "none": [{**_STILL, "area": (1.0, 1.0)}] * 2,
}


def orientations(flips: tuple[float, ...], turn: float) -> dict[bytes, float]:
    """Probability of each of the eight ways a square can lie after a flip and then a turn."""
    square = np.arange(4).reshape(2, 2)
    ways: dict[bytes, float] = {}
    flipped = [square[:, ::-1], square[::-1], square[::-1, ::-1], square]
    for (image, p), quarters in product(
        zip(flipped, [*flips, 1 - sum(flips)], strict=True), range(4)
    ):
        q = turn / 4 + (1 - turn) * (quarters == 0)
        key = np.rot90(image, -quarters).tobytes()  # clockwise
        ways[key] = ways.get(key, 0.0) + p * q
    return ways


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_draws_what_its_source_says(name):
    recipe = RECIPES[name](96)
    assert len(recipe.views) == len(SOURCES[name])
    count = 6000
    for view, source in list(zip(recipe.views, SOURCES[name], strict=True))[:3]:
        params = params_of(view, count, 200, 200)
        rates = {
            "jitter": (params.jitter != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1),
            "grey": params.grey,
            "blur": params.sigma > 0,
            "solarize": params.solarize,
        }
        for key, happened in rates.items():
            assert abs(happened.double().mean() - source[key]) <= 0.026 * (0 < source[key] < 1), key
        if rates["blur"].any():
            sigma = params.sigma[rates["blur"]]
            ends = (sigma.min().item(), sigma.max().item())
            assert ends == pytest.approx(source["sigma"], abs=0.02)
        if rates["jitter"].any():
            reach = (params.jitter - torch.tensor([1.0, 1.0, 1.0, 0.0])).abs().amax(0)
            assert reach.tolist() == pytest.approx(source["strength"], rel=0.01)
        if source["grey"]:
            assert view.grey == source.get("grey_kind", "luma")

        shares = (params.box[:, 2] * params.box[:, 3]) / 200**2
        cropped = shares < 1
        if "whole" in source and source["area"][0] < 0.9:
            assert abs((~cropped).double().mean() - source["whole"]) < 0.026
            shares = shares[cropped]
        low, high = source["area"]
        assert low - 0.005 < shares.min() < low + 0.02
        assert high - 0.05 < shares.max() < high + 0.005

        square = np.arange(4).reshape(2, 2)
        seen: Counter[bytes] = Counter()
        lies = torch.stack([params.flip_y, params.flip_x, params.transpose], 1)
        for y, x, turned in lies.tolist():
            image = square[:: -1 if y else 1, :: -1 if x else 1]
            seen[(image.T if turned else image).tobytes()] += 1
        expected = orientations(source["flips"], source["turn"])
        for way in {*seen, *expected}:
            p = expected.get(way, 0.0)
            assert abs(seen[way] / count - p) <= 0.026 * (0 < p < 1)


def test_crops_of_glcnet_are_even_in_aspect_and_the_others_even_in_its_logarithm():
    kinds = {name: {view.aspect for view in recipe(96).views} for name, recipe in RECIPES.items()}
    assert kinds.pop("glcnet") == {"uniform"}
    assert set.union(*kinds.values()) == {"log"}


SHAPES = {name: [(2, 64)] for name in RECIPES} | {
    "inpainting": [(1, 64)],
    "jigsaw": [(4, 27)],  # cells of 32 pixels less 11 in 75
    "last": [(2, 64), (8, 27)],  # 96 of 224
}


@pytest.mark.parametrize("bands", [RGB, RGBN])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_its_views_alike_in_both_backends(name, bands):
    recipe, images = RECIPES[name](64), scenes(12, 80, bands=len(bands))
    ours = maker(recipe, "torch", bands=bands)(images, 3)
    theirs = maker(recipe, "opencv", bands=bands)(images, 3)
    shapes = [(12 * views, len(bands), size, size) for views, size in SHAPES[name]]
    assert [crop.shape for crop in ours.crops] == shapes
    assert all(crop.is_contiguous(memory_format=torch.channels_last) for crop in ours.crops)
    for one, other in zip(ours.crops, theirs.crops, strict=True):
        assert one.isfinite().all() and other.isfinite().all()
        difference = (one - other).abs()
        assert difference.mean() < 0.6
        assert difference.flatten()[::7].quantile(0.99) < 3
    if recipe.puzzle is None:
        assert ours.targets is None
    else:
        assert torch.equal(ours.targets, theirs.targets)


def test_backends_agree_on_real_images(shared_data):
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(shared_data / "aid96"), split="validation")
    arrays = [np.asarray(rows[i]["image"].convert("RGB")) for i in range(0, 960, 40)]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    for name in ("moco_v1", "glcnet", "rsisc", "jigsaw", "last"):
        pairs = [maker(RECIPES[name](96), backend)(images, 1).crops for backend in BACKENDS]
        for one, other in zip(*pairs, strict=True):
            difference = (one - other).abs()
            # A grey level where solarisation turns over on either side counts for more.
            assert difference.mean() < 0.6, name
            assert difference.flatten()[::7].quantile(0.99) < 3, name


def test_sizes_at_224_pixels():
    views = RECIPES["last"](224).views
    assert [view.size for view in views] == [224, 224] + [96] * 8
    cells = maker(RECIPES["jigsaw"](150))(scenes(2, 60), 0).crops[0]
    assert cells.shape == (8, 3, 64, 64)  # 64 of 75 pixels, as published


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_repeats_every_recipe_and_old_memory_changes_nothing(name):
    recipe, images = RECIPES[name](32), scenes(5, 40)
    make_views = maker(recipe)
    first = make_views(images, 1)
    torch.manual_seed(5)
    assert same(first, make_views(images, 1))
    if name != "none":
        assert not torch.equal(first.crops[0], make_views(images, 2).crops[0])
    old = make_views(images, 2)
    assert same(first, make_views(images, 1, out=old))


# --- matching regions -----------------------------------------------------------------------------


def still(recipe: Recipe, **changes) -> Recipe:
    """The same geometry in the image's own colours."""
    plain = {"jitter_probability": 0.0, "grey_probability": 0.0, "blur_probability": 0.0}
    views = tuple(dataclasses.replace(view, **plain, **changes) for view in recipe.views)
    return dataclasses.replace(recipe, views=views)


def assert_same_ground(batch, patch: int) -> None:
    """The middles of each pair of regions show the same row and column."""
    assert batch.boxes.dtype == torch.int64
    assert (batch.boxes[..., 2:] - batch.boxes[..., :2] == patch - 1).all()
    assert batch.boxes.min() >= 0 and batch.boxes.max() < batch.crops[0].shape[-1]
    images = batch.boxes.shape[1]
    middle = batch.boxes[..., :2] + patch // 2  # (2, B, R, 2) as x, y
    shown = []
    for view, where in zip(batch.crops[0].split(images), middle, strict=True):
        sample = torch.arange(images)[:, None]
        shown.append(view[sample, :, where[..., 1], where[..., 0]])  # (B, R, 2)
    # One source pixel, whose centre each view meets within half a pixel.
    assert (shown[0] - shown[1]).abs().max() < 1.1


@pytest.mark.parametrize("height,width", [(96, 96), (70, 120)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.06), (0.001, 0.001)])
def test_regions_show_the_same_ground_however_small_the_crops(scale, height, width):
    recipe = dataclasses.replace(
        still(RECIPES["glcnet"](64), scale=scale), regions=Regions(patch_size=14, patches=4)
    )
    images = ground(64, height, width)
    batch = maker(recipe, "torch", bands=("vv", "vh"))(images, 2)
    assert batch.boxes.shape == (2, 64, 4, 4)
    assert_same_ground(batch, 14)
    boxes = maker(recipe, "opencv", bands=("vv", "vh"))(images, 2).boxes
    assert torch.equal(batch.boxes, boxes)
    if scale[1] < 0.01:  # three by three pixels hardly meet: the last resort is the first crop
        first, second = (
            torch.cat(view.flatten(2).aminmax(dim=2), 1) for view in batch.crops[0].split(64)
        )
        assert (first == second).all(1).double().mean() > 0.9


def test_only_views_without_common_ground_are_drawn_again():
    plain = RECIPES["glcnet"](32).views
    views = tuple(dataclasses.replace(view, scale=(0.15, 0.2)) for view in plain)
    images = scenes(40, 60)
    without = maker(Recipe(views))(images, 4).crops[0].unflatten(0, (2, 40))
    batch = maker(Recipe(views, regions=Regions(8, 2)))(images, 4)
    kept = (batch.crops[0].unflatten(0, (2, 40)) == without).flatten(2).all(2)  # (2, B)
    generator = torch.Generator().manual_seed(4)
    params = [draw_params(view, 40, 60, 60, generator) for view in views]
    settings = {"size": 32, "height": 60, "width": 60, "patch_size": 8, "patches": 2}
    _, found = draw_regions(*params, **settings, generator=generator)
    assert 5 < found.sum() < 35
    assert torch.equal(kept, found.expand(2, -1))


# --- scene transfer -------------------------------------------------------------------------------


def coloured(count: int = 6, size: int = 12, bands: int = 3, dtype=torch.uint8) -> torch.Tensor:
    """Image i is of about the value 20 + 30 i, by which it is known."""
    noise = torch.randint(
        -8, 9, (count, bands, size, size), generator=torch.Generator().manual_seed(1)
    )
    values = 20 + 30 * torch.arange(count).view(-1, 1, 1, 1) + noise
    if dtype == torch.uint16:
        values = values * 40
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def transferring(size: int = 12, **settings) -> Recipe:
    """The whole image twice, the second one transferred."""
    transfer = SceneTransfer(**{"probability": 1.0, "solver": "gaussian", **settings})
    return Recipe((whole(size), whole(size)), transfer=transfer)


def whose_colours(batch, unit: float = 1.0) -> torch.Tensor:
    """Which image the second view of each sample has its colours from, (B,)."""
    second = batch.crops[0].chunk(2)[1]
    return ((second.mean((1, 2, 3)) / unit - 20) / 30).round().long()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["emd", "gaussian", "sliced"])
def test_a_transfer_changes_second_views_only_into_another_image(solver, backend):
    images = coloured()
    before = images.clone()
    batch = maker(transferring(solver=solver), backend)(images, 0)
    assert torch.equal(images, before)
    first, second = batch.crops[0].chunk(2)
    assert torch.allclose(first, images.float(), atol=0.01)
    assert (whose_colours(batch) != torch.arange(6)).all()
    assert (second - images).abs().mean((1, 2, 3)).min() > 10
    # The content stays: where an image is bright among its own, it is so after.
    for one, other in zip(first.flatten(1), second.flatten(1), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.5


def test_no_transfer_at_probability_zero_or_with_one_image():
    images = coloured()
    plain = maker(dataclasses.replace(transferring(), transfer=None))(images, 0)
    assert same(plain, maker(transferring(probability=0.0))(images, 0))
    one = maker(transferring())(images[:1], 0, places=torch.zeros(1))
    assert torch.equal(*one.crops[0].chunk(2))


def test_a_transfer_leaves_the_geometry_of_the_other_draws_alone():
    plain = RECIPES["moco_v1"](24)
    images = scenes(6, 40)
    without = maker(plain)(images, 3).crops[0].chunk(2)
    recipe = dataclasses.replace(plain, transfer=SceneTransfer(0.5, "gaussian"))
    with_ = maker(recipe)(images, 3).crops[0].chunk(2)
    assert torch.equal(without[0], with_[0])
    kept = (without[1] == with_[1]).flatten(1).all(1)
    assert 0 < kept.sum() < 6


def test_scenes_are_any_other_image_as_often_as_asked():
    images, make_views = coloured(), maker(transferring(probability=0.6))
    counts = torch.zeros(6, 6)
    for seed in range(500):
        counts[torch.arange(6), whose_colours(make_views(images, seed))] += 1
    changed = 500 - counts.diagonal()
    assert (changed / 500 - 0.6).abs().max() < 0.09  # four standard errors
    others = counts[~torch.eye(6, dtype=torch.bool)] / 500
    assert (others - 0.6 / 5).abs().max() < 0.06


@pytest.mark.parametrize(
    "places",
    [
        [0, 0, 0, 1, 1, 1],  # two places
        [5, 5, 5, 5, 5, 2],  # one image alone in its place
        [0, 1, 2, 3, 4, 5],
    ],
)
def test_scenes_come_from_another_place(places):
    images, make_views = coloured(), maker(transferring())
    places = torch.tensor(places)
    pairs = set()
    for seed in range(60):
        scene = whose_colours(make_views(images, seed, places=places))
        assert (places[scene] != places).all()
        pairs |= set(enumerate(scene.tolist()))
    expected = [(i, j) for i in range(6) for j in range(6) if places[i] != places[j]]
    assert len(pairs) > 0.9 * len(expected)  # any image of another place


def test_a_batch_of_one_place_takes_any_other_image():
    make_views, places = maker(transferring()), torch.full((6,), 3)
    seen = set()
    for seed in range(60):
        scene = whose_colours(make_views(coloured(), seed, places=places))
        assert (scene != torch.arange(6)).all()
        seen |= set(enumerate(scene.tolist()))
    assert len(seen) > 27
    two = maker(transferring())(coloured(2), 0, places=torch.zeros(2))
    assert whose_colours(two).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("solver", ["emd", "gaussian", "sliced"])
def test_a_transfer_of_other_bands_and_types(solver, dtype):
    unit = 40 if dtype == torch.uint16 else 1
    settings = {"bands": RGBN, "value_range": (0, 255 * unit)}
    make_views = maker(transferring(solver=solver, probability=0.7), "torch", **settings)
    images = coloured(bands=4, dtype=dtype)
    batch = make_views(images, 1)
    assert torch.allclose(batch.crops[0][:6], images.float(), atol=0.1)
    moved = whose_colours(batch, unit) != torch.arange(6)
    assert 0 < moved.sum() < 6
    assert torch.allclose(batch.crops[0][6:][~moved], images[~moved].float(), atol=0.1)
    assert same(batch, make_views(images, 1))


def test_transfer_and_regions_together():
    recipe = dataclasses.replace(
        RECIPES["glcnet"](32), regions=Regions(8, 2), transfer=SceneTransfer(1.0, "gaussian")
    )
    plain = dataclasses.replace(recipe, transfer=None)
    images = scenes(6, 48)
    ours, theirs = maker(recipe)(images, 5), maker(plain)(images, 5)
    assert torch.equal(ours.boxes, theirs.boxes)
    assert torch.equal(ours.crops[0][:6], theirs.crops[0][:6])


# --- puzzles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid,count", [(2, 24), (3, 1000)])
def test_the_cells_of_a_puzzle_are_the_views_cells_in_the_targets_order(grid, count):
    from rs_models.signals.puzzle import permutation_table

    recipe = dataclasses.replace(
        still(
            RECIPES["jigsaw"](48),
            horizontal_flip=0.0,
            vertical_flip=0.0,
            both_flips=None,
            quarter_turns=0.0,
        ),
        puzzle=Puzzle(grid, count),
    )
    batch = maker(recipe, "torch", bands=("vv", "vh"))(ground(30, 48, 48), 6)
    cells = batch.crops[0].unflatten(0, (grid * grid, 30))
    middle = cells.mean((3, 4))  # (cells, B, 2): the row and column at each cell's middle
    shown = (middle // (48 / grid)).long()
    order = permutation_table(grid, count)[batch.targets]  # (B, cells)
    assert torch.equal((shown[..., 0] * grid + shown[..., 1]).T, order)


def test_a_batch_in_use_keeps_its_cells_when_the_next_one_is_made():
    make_views, images = maker(RECIPES["jigsaw"](32)), scenes(4)
    old = make_views(images, 0)
    cells, targets = old.crops[0].clone(), old.targets.clone()
    new = make_views(images, 1, out=old)
    assert torch.equal(old.crops[0], cells) and torch.equal(old.targets, targets)
    assert same(new, make_views(images, 1))


# --- what a user may get wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"aspect": "square"}, "aspect.*uniform.*square"),
        ({"aspect": ["log"]}, "aspect"),
        ({"grey": "hsv"}, "grey.*band.*hsv"),
        ({"crop_probability": 1.1}, "crop_probability"),
        ({"both_flips": 0.6}, "both_flips is 0.6.*0.5 and 0.0"),
        ({"vertical_flip": 0.8, "both_flips": 0.2}, "both_flips"),
        ({"both_flips": "often"}, "both_flips"),
        ({"both_flips": True}, "both_flips"),
        ({"both_flips": float("nan")}, "both_flips"),
        ({"inside": "first"}, "inside"),
        ({"inside": True}, "inside"),
        ({"inside": -1}, "inside"),
    ],
)
def test_bad_view_settings_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        View(**{"size": 32, **settings})


@pytest.mark.parametrize(
    "recipe,words",
    [
        ({"views": ()}, "at least one view"),
        ({"views": (View(32, inside=0),)}, "View 0 lies inside view 0"),
        ({"views": (View(32), View(32, inside=2), View(32))}, "View 1 lies inside view 2"),
        ({"regions": Regions(8), "views": (View(32),)}, "two views"),
        ({"regions": Regions(8), "views": (View(32), View(16))}, "one size"),
        ({"regions": Regions(32)}, "patch_size 32.*32"),
        ({"regions": Regions(0)}, "patch_size 0"),
        ({"regions": Regions(8, 0)}, "patches 0"),
        ({"regions": Regions(8.5)}, "8.5"),
        ({"puzzle": Puzzle()}, "one view, not of 2"),
        ({"puzzle": Puzzle(5), "views": (View(32),)}, "5 x 5"),
        ({"puzzle": Puzzle(2, 25), "views": (View(32),)}, "24.*25"),
        ({"puzzle": Puzzle(2, 24, 1.0), "views": (View(32),)}, "margin"),
        ({"puzzle": Puzzle(2, 24, -0.1), "views": (View(32),)}, "margin"),
        ({"puzzle": Puzzle(3, 24), "views": (View(2),)}, "2 pixels"),
        ({"transfer": SceneTransfer(), "views": (View(32),)}, "needs two"),
        ({"transfer": SceneTransfer(1.5)}, "probability"),
        ({"transfer": SceneTransfer("often")}, "probability"),
        ({"transfer": SceneTransfer(0.1, "sinkhorn")}, "sinkhorn.*emd"),
        ({"transfer": SceneTransfer(0.1, "emd", 0)}, "num_samples"),
    ],
)
def test_recipes_that_cannot_be_made_are_refused(recipe, words):
    with pytest.raises(UserError, match=words):
        Recipe(**{"views": (View(32), View(32)), **recipe})


def test_settings_over_a_recipe():
    recipe = recipe_from_settings("glcnet", 64, {"scale": [0.5, 0.6], "grey": "mean"})
    assert {(view.scale, view.grey) for view in recipe.views} == {((0.5, 0.6), "mean")}
    with pytest.raises(UserError, match="inside"):
        recipe_from_settings("last", 64, {"inside": 0})
    with pytest.raises(UserError, match="both_flips"):  # the recipe's flips no longer go with it
        recipe_from_settings("glcnet", 64, {"horizontal_flip": 0.0})
