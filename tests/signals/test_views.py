"""Views: what is drawn, what the pixels become, and that both backends say the same."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from rs_models.errors import UserError
from rs_models.signals.colour import colour_map
from rs_models.signals.views import RECIPES, Recipe, View, ViewMaker, recipe_from_settings
from tests.signals.helpers import BACKENDS, RGB, drawn, make, params_of, scenes, whole

# What is drawn


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0), (0.7, 1.0)])
def test_crop_boxes_follow_torchvision(scale):
    from torchvision.transforms import RandomResizedCrop

    height, width, count = 100, 150, 4000
    box = params_of(View(size=32, scale=scale), count, height, width).box.numpy()
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)]
    )
    assert (box[:, :2] >= 0).all()
    assert (box[:, 0] + box[:, 2] <= height).all()
    assert (box[:, 1] + box[:, 3] <= width).all()
    # Two samples of 4,000 from one distribution pass 0.0436 once in 1,000 times.
    for measure in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0] / (height - b[:, 2] + 1),
        lambda b: b[:, 1] / (width - b[:, 3] + 1),
    ):
        assert stats.ks_2samp(measure(box), measure(theirs)).statistic < 0.0436


@pytest.mark.parametrize("height,width", [(40, 100), (100, 40)])
def test_crop_falls_back_to_the_centre(height, width):
    from torchvision.transforms import RandomResizedCrop

    view = View(size=32, scale=(1.0, 1.0))
    expected = RandomResizedCrop.get_params(
        torch.empty(1, height, width), list(view.scale), list(view.ratio)
    )
    assert (params_of(view, 5, height, width).box == torch.tensor(expected)).all()


def test_flips_and_turns_are_equally_likely():
    pattern = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3) * 20
    images = pattern.expand(2000, 1, 3, 3)
    eight = [
        turned.rot90(quarters, (1, 2)).flatten()
        for turned in (pattern[0], pattern[0].flip(2))
        for quarters in range(4)
    ]
    for backend in BACKENDS:
        view = whole(3, horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=1.0)
        flat = make(view, images, backend, bands=("nir",)).flatten(1).round()
        rates = torch.stack([(flat == way).all(1).float().mean() for way in eight])
        assert rates.sum() == 1  # nothing but the eight
        assert ((rates - 1 / 8).abs() < 0.03).all()  # four standard errors

        flat = make(whole(3, quarter_turns=1.0), images, backend, bands=("nir",)).flatten(1).round()
        rates = torch.stack([(flat == way).all(1).float().mean() for way in eight[:4]])
        assert rates.sum() == 1  # turns alone do not mirror
        assert ((rates - 1 / 4).abs() < 0.04).all()

        view = whole(3, horizontal_flip=0.3)
        flat = make(view, images, backend, bands=("nir",)).flatten(1).round()
        mirrored = (flat == pattern[0].flip(2).flatten()).all(1).float().mean()
        assert abs(mirrored - 0.3) < 0.04
        assert (flat == pattern.flatten()).all(1).float().mean() == 1 - mirrored


def test_jitter_draws_have_torchvisions_ranges_and_orders():
    view = View(size=32, jitter=(0.8, 0.4, 1.2, 0.2), jitter_probability=0.75)
    params = params_of(view)
    jittered = (params.jitter != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1)
    assert abs(jittered.float().mean() - 0.75) < 0.03
    ranges = [(0.2, 1.8), (0.6, 1.4), (0.0, 2.2), (-0.2, 0.2)]  # ColorJitter._check_input
    for column, (low, high) in enumerate(ranges):
        values = params.jitter[jittered, column].numpy()
        assert stats.kstest(values, "uniform", (low, high - low)).statistic < 0.036  # p 0.001
    orders, counts = params.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 4000 / 24 - 55  # four standard errors


def test_rates_of_grey_blur_and_solarise():
    view = View(size=32, grey_probability=0.2, blur_probability=0.5, solarize_probability=0.1)
    params = params_of(view)
    assert abs(params.grey.float().mean() - 0.2) < 0.03
    assert abs(params.solarize.float().mean() - 0.1) < 0.02
    blurred = params.sigma[params.sigma > 0].numpy()
    assert abs(len(blurred) / 4000 - 0.5) < 0.032
    assert stats.kstest(blurred, "uniform", (0.1, 1.9)).statistic < 0.044


def test_one_setting_leaves_the_other_draws_alone():
    both = params_of(RECIPES["simclr"](32).views[0])
    dull = params_of(dataclasses.replace(RECIPES["simclr"](32).views[0], blur_probability=0.0))
    assert (dull.sigma == 0).all()
    for field in ("box", "flip_x", "jitter", "order", "grey"):
        assert torch.equal(getattr(both, field), getattr(dull, field))


# What the pixels become


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [24, 48, 72])
def test_crop_and_resize_are_torchvisions(backend, size):
    from torchvision.transforms.v2 import functional

    images = scenes()
    view = View(size=size, horizontal_flip=0.0)
    ours = make(view, images, backend)
    expected = torch.stack(
        [
            functional.resized_crop(image.float(), *box, [size, size], antialias=True)
            for image, box in zip(images, drawn(view, images).box.tolist(), strict=True)
        ]
    )
    # uint8 kernels round, with weights of 8 bits or more.
    assert (ours - expected).abs().max() < (1.6 if backend == "opencv" else 0.01)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "jitter", [(0.3, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 0.9, 0), (0.2, 0.5, 0.9, 0)]
)
def test_jitter_is_torchvisions_where_nothing_clamps(backend, jitter):
    from torchvision.transforms.v2 import functional

    images = scenes(low=90, high=140)
    view = whole(48, jitter=tuple(map(float, jitter)), jitter_probability=1.0)
    params = drawn(view, images)
    adjust = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    expected = []
    for image, factors, order in zip(images, params.jitter, params.order, strict=True):
        x = image.float() / 255
        for which in order.tolist():
            if which != 3:
                x = adjust[which](x, factors[which].item())
        expected.append(x * 255)
    difference = make(view, images, backend) - torch.stack(expected)
    assert difference.abs().max() < (1.1 if backend == "opencv" else 0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_is_torchvisions(backend):
    from torchvision.transforms.v2 import functional

    images = scenes()
    ours = make(whole(48, grey_probability=1.0), images, backend)
    expected = functional.rgb_to_grayscale(images.float(), num_output_channels=3)
    assert (ours - expected).abs().max() < 1.1


def test_hue_turns_the_way_of_hsv_and_keeps_luma():
    from torchvision.transforms.v2 import functional

    view = View(size=8, jitter=(0.0, 0.0, 0.0, 0.5), jitter_probability=1.0)
    params = params_of(view, 64)
    rotation, mean = colour_map(params, RGB)
    assert (mean == 0).all()
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(luma @ rotation, luma.expand(64, 3), atol=1e-5)
    grey = torch.full((3,), 0.4)
    assert torch.allclose(rotation @ grey, grey.expand(64, 3), atol=1e-3)
    red = torch.tensor([0.6, 0.4, 0.4])
    ours = rotation @ red
    hsv = torch.stack(
        [
            functional.adjust_hue(red.view(3, 1, 1), float(shift)).flatten()
            for shift in params.jitter[:, 3]
        ]
    )
    away = ours - ours.mean(1, keepdim=True), hsv - hsv.mean(1, keepdim=True)
    assert torch.cosine_similarity(*away).min() > 0.8  # chroma points the same way


@pytest.mark.parametrize("backend", BACKENDS)
def test_blur_is_torchvisions(backend):
    from torchvision.transforms.v2 import functional

    images = torch.randint(0, 256, (12, 3, 40, 40), dtype=torch.uint8)
    view = whole(40, blur_probability=1.0)
    ours = make(view, images, backend)
    for got, image, sigma in zip(ours, images, drawn(view, images).sigma.tolist(), strict=True):
        kernel = 2 * math.ceil(3 * sigma) + 1
        expected = functional.gaussian_blur(image.float(), [kernel, kernel], [sigma, sigma])
        assert (got - expected).abs().max() < (1.1 if backend == "opencv" else 0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_solarise_is_torchvisions(backend):
    from torchvision.transforms.v2 import functional

    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    ours = make(whole(16, solarize_probability=1.0), images, backend)
    assert torch.allclose(ours, functional.solarize(images, 128).float(), atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalised_channels_last(backend, dtype):
    mean, std = (0.4, 0.5, 0.3), (0.2, 0.1, 0.3)
    images = scenes()
    maker = ViewMaker(
        Recipe((whole(48),)),
        bands=RGB,
        image_mean=mean,
        image_std=std,
        value_range=(0, 255),
        backend=backend,
    )
    crops = maker(images, 0, dtype=dtype).crops[0]
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert crops.dtype == dtype
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(crops.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_stay_in_range(backend):
    view = whole(48, jitter=(0.9, 0.9, 0.9, 0.5), jitter_probability=1.0)
    crops = make(view, scenes(32), backend)
    assert crops.min() > -0.01
    assert crops.max() < 255.01
    assert (crops > 254.9).any()  # the clamp had something to do


# Bands and types


@pytest.mark.parametrize("bands", [("nir",), ("vv", "vh"), (*RGB, "nir"), tuple("abcdefghijklm")])
def test_any_number_of_bands(bands):
    recipe = RECIPES["tov"](32)
    images = scenes(6, bands=len(bands))
    settings = {
        "bands": bands,
        "image_mean": [0.5] * len(bands),
        "image_std": [0.2] * len(bands),
        "value_range": (0, 255),
    }
    crops = ViewMaker(recipe, **settings)(images, 3).crops[0]
    assert crops.shape == (12, len(bands), 32, 32)
    torch_crops = ViewMaker(recipe, **settings, backend="torch")(images, 3).crops[0]
    assert ((crops - torch_crops).abs().mean() * 0.2 * 255) < 0.6


@pytest.mark.parametrize("backend", BACKENDS)
def test_contrast_of_other_bands_is_about_each_bands_mean(backend):
    images = scenes(low=90, high=140, bands=4)
    images[:, 3] += 60
    view = whole(48, jitter=(0.0, 0.5, 0.9, 0.4), jitter_probability=1.0)
    factor = drawn(view, images).jitter[:, 1].view(-1, 1, 1, 1)
    x = images.float()
    expected = factor * x + (1 - factor) * x.mean((2, 3), keepdim=True)
    assert (make(view, images, backend, bands=(*RGB, "nir")) - expected).abs().max() < 1.1
    view = dataclasses.replace(view, grey_probability=1.0)
    expected = expected.mean(1, keepdim=True)
    assert (make(view, images, backend, bands=(*RGB, "nir")) - expected).abs().max() < 1.6


def test_colours_follow_band_names_not_places():
    view = RECIPES["simclr"](32).views[0]
    images = scenes()
    crops = make(view, images)
    swapped = make(view, images.flip(1), bands=RGB[::-1])
    assert (crops - swapped.flip(1)).abs().mean() < 0.3


def test_uint16_reflectance():
    images = (scenes().to(torch.int32) * 40).to(torch.uint16)  # up to 10,200: clouds pass 10,000
    assert images.to(torch.int32).max() > 10_000
    crops = make(whole(48), images, value_range=(0, 10_000))
    assert torch.allclose(crops, images.float().clamp(max=10_000), atol=0.1)
    view = RECIPES["tov"](32).views[0]
    small = make(view, scenes(), "torch") * 40
    large = make(view, images, value_range=(0, 10_200))
    assert (small - large).abs().max() < 0.1  # the same views in other units


# The batch


def test_backends_agree_on_real_images(shared_data):
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(shared_data / "aid96"), split="validation")
    arrays = [np.asarray(rows[i]["image"].convert("RGB")) for i in range(0, 960, 20)]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    for size in (64, 96, 128):
        for view in RECIPES["tov"](size).views:
            view = dataclasses.replace(view, solarize_probability=0.2)
            one, other = make(view, images, "opencv", size), make(view, images, "torch", size)
            difference = (one - other).abs()
            # A grey level where solarisation turns over on either side counts for more.
            assert difference.mean() < 0.6
            assert difference.quantile(0.99) < 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_repeats_and_samples_differ(backend):
    images = scenes(1).expand(6, -1, -1, -1)
    maker = ViewMaker(
        RECIPES["tov"](32),
        bands=RGB,
        image_mean=[0.5] * 3,
        image_std=[0.2] * 3,
        value_range=(0, 255),
        backend=backend,
    )
    first = maker(images, 7).crops[0]
    torch.manual_seed(99)  # the global generator plays no part
    assert torch.equal(first, maker(images, 7).crops[0])
    assert not torch.equal(first, maker(images, 8).crops[0])
    flat = first.flatten(1)
    distance = (flat[:, None] - flat[None]).abs().mean(2) + torch.eye(12)
    assert distance.min() > 1e-3  # six samples, two views: no two are alike


@pytest.mark.parametrize("backend", BACKENDS)
def test_view_major_order_and_sizes(backend):
    plain, dark = whole(32), whole(32, grey_probability=1.0)
    images = scenes(4)
    maker = ViewMaker(
        Recipe((plain, whole(16), dark)),
        bands=RGB,
        image_mean=[0.0] * 3,
        image_std=[1 / 255] * 3,
        value_range=(0, 255),
        backend=backend,
    )
    index, labels = torch.arange(4), torch.tensor([3, 1, 0, 2])
    batch = maker(images, 0, index=index, labels=labels)
    large, small = batch.crops
    assert large.shape == (8, 3, 32, 32)
    assert small.shape == (4, 3, 16, 16)
    assert torch.equal(large[:4], make(plain, images, backend))
    assert torch.allclose(large[4:], make(dark, images, backend))
    assert batch.index is index
    assert batch.labels is labels


def test_threads_change_nothing_and_leave_opencv_alone():
    import cv2

    view, images = RECIPES["tov"](32).views[0], scenes(7)
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        one = make(view, images, num_threads=1)
        assert torch.equal(one, make(view, images, num_threads=3))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_finished_batch_is_written_over():
    recipe, images = RECIPES["simclr"](32), scenes()
    maker = ViewMaker(
        recipe, bands=RGB, image_mean=[0.5] * 3, image_std=[0.2] * 3, value_range=(0, 255)
    )
    old = maker(images, 0)
    expected = maker(images, 1).crops[0]
    new = maker(images, 1, out=old)
    assert new.crops[0].data_ptr() == old.crops[0].data_ptr()
    assert torch.equal(new.crops[0], expected)
    # A last, smaller batch does not fit and gets memory of its own.
    assert maker(images[:3], 1, out=old).crops[0].shape[0] == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_views_on_the_gpu_without_synchronisation():
    recipe, images = RECIPES["tov"](64), scenes(16, 96)
    maker = ViewMaker(
        recipe, bands=RGB, image_mean=[0.5] * 3, image_std=[0.2] * 3, value_range=(0, 255)
    )
    on_device = images.cuda()
    maker(on_device, 0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        crops = maker(on_device, 1).crops[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert ((crops.cpu() - maker(images, 1).crops[0]).abs().mean() * 0.2 * 255) < 0.6


# What a user may get wrong


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"size": 0}, "size"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"horizontal_flip": 1.5}, "horizontal_flip"),
        ({"blur_probability": "often"}, "blur_probability"),
        ({"jitter": (0.8, 0.8, 0.8)}, "jitter"),
        ({"jitter": (0.8, 0.8, 0.8, 0.6)}, "hue"),
        ({"blur_sigma": (0.0, 2.0)}, "blur_sigma"),
    ],
)
def test_bad_view_settings_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        View(**{"size": 32, **settings})


def test_recipe_from_settings():
    recipe = recipe_from_settings("tov", 64, {"scale": [0.08, 1.0], "blur_probability": 0.1})
    assert [(view.size, view.scale, view.blur_probability) for view in recipe.views] == [
        (64, (0.08, 1.0), 0.1)
    ] * 2
    assert recipe.views[0].quarter_turns == 1.0  # the rest is as named
    with pytest.raises(UserError, match=r"blurr.*blur_probability"):
        recipe_from_settings("tov", 64, {"blurr": 1.0})
    with pytest.raises(UserError, match=r"byol.*simclr"):
        recipe_from_settings("byol", 64)


def test_images_that_do_not_fit_are_named():
    view = whole(16)
    with pytest.raises(UserError, match="4 bands but 3"):
        make(view, scenes(bands=4))
    with pytest.raises(UserError, match="float32"):
        make(view, scenes().float())
    with pytest.raises(UserError, match="opencv"):
        make(view, scenes().to(torch.uint16), "opencv")
    with pytest.raises(UserError, match="image_mean"):
        make(view, scenes(), image_mean=[0.5])
    with pytest.raises(UserError, match="image_std"):
        make(view, scenes(), image_std=[0.5, 0.0, 0.5])
    with pytest.raises(UserError, match="value_range"):
        make(view, scenes(), value_range=(10, 5), image_std=[1.0] * 3)
    with pytest.raises(UserError, match="kornia"):
        make(view, scenes(), "kornia")
