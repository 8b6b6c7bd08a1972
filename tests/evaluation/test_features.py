"""Encoders: any native or timm backbone, baselines, what is refused, the kept features."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import ConvNextConfig, ConvNextModel

from rs_models import backbones
from rs_models.bands import band_statistics
from rs_models.errors import UserError
from rs_models.evaluation.features import Encoder, extract
from rs_models.evaluation.loading import load_encoder
from rs_models.export import export
from tests.evaluation.helpers import cache_of
from tests.support.models import nano

RGB = ("red", "green", "blue")


@pytest.fixture(scope="module")
def cache():
    return cache_of()


def provenance(**changes):
    return {
        "method": "tov",
        "bands": RGB,
        "value_range": (0, 255),
        "image_mean": (0.4, 0.5, 0.6),
        "image_std": (0.2, 0.3, 0.25),
        "train_size": 32,
        "output_stride": 32,
        "data": "synthetic",
        "data_revision": None,
        "epochs": 1,
        "version": "0",
        "commit": None,
        **changes,
    }


def by_hand(model, cache, mean, std):
    x = (cache.images.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    with torch.no_grad():
        return backbones.pooled(model, x).numpy()


def test_an_export_is_read_with_its_own_preprocessing(tmp_path, cache):
    model = nano("resnet_nano", image_size=32)
    folder = export(model, tmp_path / "tov-nano" / "export", provenance=provenance(), timm=False)
    encoder = load_encoder(str(folder))
    assert encoder.name == "tov-nano"
    assert encoder.revision.startswith("sha256:")
    assert encoder.pretrained_on == "synthetic"
    expected = by_hand(model, cache, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    found = extract(encoder, cache, progress=False, device="cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_any_other_native_model_is_read_by_its_processor(tmp_path, cache):
    config = ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], image_size=64)
    model = ConvNextModel(config).eval()
    model.save_pretrained(tmp_path / "peer")
    with pytest.raises(UserError, match="does not say how its images are normalised"):
        load_encoder(str(tmp_path / "peer"))
    settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    settings |= {"rescale_factor": 1 / 255, "size": {"shortest_edge": 32}}
    (tmp_path / "peer" / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load_encoder(str(tmp_path / "peer"))
    assert (encoder.bands, encoder.value_range, encoder.train_size) == (RGB, (0, 255), 32)
    x = cache.images.float() / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    with torch.no_grad():
        expected = model(x / torch.tensor([0.1, 0.2, 0.3])[:, None, None]).pooler_output
    found = extract(encoder, cache, progress=False, device="cpu")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "mobilenetv3_small_050"])
def test_a_timm_model_runs_at_its_own_and_at_another_size(tmp_path, cache, name):
    import timm
    from safetensors.torch import save_file

    model = timm.create_model(name, num_classes=0).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 160, 160], "num_classes": 0}
    cfg["fixed_input_size"] = hasattr(model, "set_input_size")  # as in timm's repositories
    settings = {"architecture": name, "num_classes": 0, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    encoder = load_encoder(str(tmp_path))
    assert (encoder.train_size, encoder.preprocessing.image_mean[0]) == (160, 0.5)
    images = cache.images[:2]
    with torch.no_grad():
        at_own = torch.nn.functional.interpolate(
            images.float(), (160, 160), mode="bicubic", antialias=True
        ).clamp(0, 255)
        expected = model((at_own / 255 - 0.5) / 0.25)
        torch.testing.assert_close(encoder(images), expected, rtol=1e-3, atol=1e-3)
        # An image's features do not depend on its neighbours in the batch.
        torch.testing.assert_close(encoder(images[:1]), expected[:1], rtol=1e-3, atol=1e-3)
        small = encoder(images, size=64)
        torch.testing.assert_close(encoder(images), expected, rtol=1e-3, atol=1e-3)
    assert small.shape == expected.shape
    assert not torch.allclose(small, expected, rtol=1e-2)


def test_bands_are_taken_by_name_and_never_filled():
    model = nano("resnet_nano", bands="nir,red", image_size=32)
    kind = {"value_range": (0, 255), "image_mean": (0, 0), "image_std": (1, 1), "train_size": 32}
    encoder = Encoder.from_model(model, bands=("nir", "red"), name="two", **kind)
    four = cache_of(bands="rgbn")
    with torch.no_grad():
        expected = backbones.pooled(model, four.images[:, [3, 0]].float() / 255).numpy()
    found = extract(encoder, four, progress=False, device="cpu")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="nir"):
        extract(encoder, cache_of(), progress=False)


def test_wrong_values_and_shapes_are_refused(cache):
    kind = {"bands": RGB, "image_mean": (0, 0, 0), "image_std": (1, 1, 1), "train_size": 32}
    model = nano("resnet_nano", image_size=32)
    reflectance = Encoder.from_model(model, value_range=(0, 10000), name="s2", **kind)
    with pytest.raises(UserError, match="0 to 10000, but these images hold them from 0 to 255"):
        extract(reflectance, cache, progress=False)
    encoder = Encoder.from_model(model, value_range=(0, 255), name="rgb", **kind)
    with pytest.raises(UserError, match="stored integers up to 255"):
        encoder(cache.images[:2].float() / 255)
    with pytest.raises(UserError, match="bands red, green, blue"):
        encoder(cache.images[:2, :2])
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        extract(encoder, cache, progress=False, device="cpu")


def test_kept_features_are_read_again_until_something_changes(tmp_path, cache):
    encoder = load_encoder("baseline:random-resnet_nano").fit(cache)
    settings = {"cache_dir": tmp_path, "progress": False, "device": "cpu"}
    first = extract(encoder, cache, **settings)
    [file] = tmp_path.iterdir()
    np.save(file, first + 1)
    np.testing.assert_array_equal(extract(encoder, cache, **settings), first + 1)
    other_size = extract(encoder, cache, size=48, **settings)
    assert not np.allclose(other_size, first)
    with torch.no_grad():
        next(encoder.model.parameters()).mul_(1.5)
    changed = extract(encoder, cache, **settings)
    assert not np.allclose(changed, first)
    assert not np.allclose(changed, first + 1)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "name",
    [
        "image-statistics",
        "random-convolutions",
        pytest.param("kmeans-convolutions", marks=pytest.mark.slow),
        "random-vit_nano",
    ],
)
def test_baselines_are_repeatable_and_take_the_bands_that_are_there(name):
    four = cache_of(bands="rgbn")
    features = []
    for seed in (0, 0, 1):
        torch.rand(3)  # what ran before must not matter
        encoder = load_encoder(f"baseline:{name}", seed=seed).fit(four)
        features.append(extract(encoder, four, progress=False, device="cpu"))
    np.testing.assert_array_equal(features[0], features[1])
    assert np.allclose(features[0], features[2]) == (name == "image-statistics")
    assert encoder.bands == (*RGB, "nir")


def test_image_statistics_are_those_of_the_pixels(cache):
    encoder = load_encoder("baseline:image-statistics").fit(cache)
    found = extract(encoder, cache, progress=False, device="cpu")
    pixels = cache.images.numpy() / 255
    np.testing.assert_allclose(found[:, :3], pixels.mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(found[:, 3:6], pixels.std((2, 3)), atol=1e-5)
    np.testing.assert_allclose(found[:, 9:12], np.median(pixels, (2, 3)), atol=1e-5)
    mean, _ = band_statistics(cache.images, cache.value_range)
    np.testing.assert_allclose(found[:, :3].mean(0), mean, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("baseline:nothing", "No baseline 'nothing'"),
        ("no-such-timm-model", "no-such-timm-model"),
        ("no/such/folder", "No model at 'no/such/folder'"),
    ],
)
def test_an_unknown_name_is_one_sentence(name, words):
    with pytest.raises(UserError, match=words):
        load_encoder(name)
