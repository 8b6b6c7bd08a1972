from __future__ import annotations

import pytest
import torch

from rs_models import backbones
from rs_models.backbones.adapt import dilate, restem
from rs_models.errors import UserError
from tests.support.models import assert_features, images, nano

NANOS = ("resnet_nano", "swin_nano", "vit_nano")


def stem_weight(model):
    resnet = model.config.model_type == "resnet"
    name = "embedder.embedder.convolution" if resnet else "embeddings.patch_embeddings.projection"
    return model.get_parameter(f"{name}.weight").detach()


@pytest.mark.parametrize("name", NANOS)
def test_reordered_bands_change_nothing(name):
    model, x = nano(name, "rgbn"), images(4)
    with torch.no_grad():
        expected = backbones.pooled(model, x)
        restem(model, "rgbn", ["nir", "red", "green", "blue"])
        assert_features(backbones.pooled(model, x[:, [3, 0, 1, 2]]), expected)


@pytest.mark.parametrize("name", NANOS)
def test_more_bands_keep_the_response_to_a_grey_image(name):
    model = nano(name)
    grey = images(1).expand(-1, 13, -1, -1)
    with torch.no_grad():
        expected = backbones.pooled(model, grey[:, :3])
        restem(model, "rgb", "sentinel2")
        assert_features(backbones.pooled(model, grey), expected)
    assert model.config.num_channels == 13


@pytest.mark.parametrize("name", NANOS)
def test_known_bands_are_copied_and_unknown_ones_get_the_mean_never_zero(name):
    model = nano(name)
    old = stem_weight(model).clone()
    restem(model, "rgb", ["nir", "blue", "red"])
    new = stem_weight(model)
    assert_features(new[:, 0], old.mean(1))
    assert_features(new[:, 1], old[:, 2])
    assert_features(new[:, 2], old[:, 0])


def test_fewer_bands_are_scaled_up():
    model = nano("resnet_nano", "rgbn")
    old = stem_weight(model).clone()
    restem(model, "rgbn", "rgb")
    assert_features(stem_weight(model), old[:, :3] * 4 / 3)
    assert backbones.pooled(model, images(3)).shape == (2, 128)


def test_adapted_stems_train_and_save(tmp_path):
    model = restem(nano("vit_nano"), "rgb", "rgbn").train()
    backbones.pooled(model, images(4)).sum().backward()
    gradient = model.get_parameter("embeddings.patch_embeddings.projection.weight").grad
    assert gradient is not None and (gradient.abs().sum((0, 2, 3)) > 0).all()
    model.eval().save_pretrained(tmp_path)
    loaded = backbones.load(str(tmp_path))
    assert_features(backbones.pooled(loaded, images(4)), backbones.pooled(model, images(4)))


def test_statistics_follow_their_bands_or_go():
    model = nano("resnet_nano")
    model.config.rs_models = {
        "bands": ["red", "green", "blue"],
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 2, 3],
    }
    restem(model, "rgb", ["blue", "red"])
    assert model.config.rs_models == {
        "bands": ["blue", "red"],
        "image_mean": [0.3, 0.1],
        "image_std": [3, 1],
    }
    restem(model, ["blue", "red"], ["blue", "red", "nir"])
    assert model.config.rs_models == {"bands": ["blue", "red", "nir"]}


def test_bands_that_do_not_fit_the_stem_are_refused():
    with pytest.raises(UserError, match="takes 3 bands but 4 are named"):
        restem(nano("resnet_nano"), "rgbn", "rgb")


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_dilation_equals_timms(architecture, output_stride):
    import timm

    from rs_models.backbones.timm_interop import from_timm

    small = {"layers": (1, 2, 2, 2), "channels": (8, 16, 24, 32), "num_classes": 0}
    plain = timm.create_model(architecture, **small).eval()
    dilated = timm.create_model(architecture, output_stride=output_stride, **small).eval()
    dilated.load_state_dict(plain.state_dict())
    model = dilate(from_timm(plain), output_stride)
    with torch.no_grad():
        expected = dilated.forward_features(images())
        assert_features(backbones.dense(model, images()), expected)
    assert expected.shape[-1] == 64 // output_stride
    restored = backbones.from_config(model.config)
    restored.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert_features(backbones.dense(restored.eval(), images()), expected)


def test_first_block_of_a_dilated_stage_on_request():
    kept = dilate(nano("resnet_nano"), 16)
    dilated = dilate(nano("resnet_nano"), 16, first_block_dilated=True)

    def rates(model):
        return [layer.convolution.dilation[0] for layer in model.encoder.stages[3].layers[0].layer]

    assert rates(kept) == [1, 2] and rates(dilated) == [2, 2]
    with torch.no_grad():
        assert backbones.dense(dilated, images()).shape == backbones.dense(kept, images()).shape


def test_dilation_can_be_undone():
    model = nano("resnet_nano")
    with torch.no_grad():
        expected = backbones.dense(model, images())
        dilate(dilate(model, 8), 32)
        assert_features(backbones.dense(model, images()), expected)


def test_what_cannot_be_dilated_is_refused():
    with pytest.raises(UserError, match="Only a ResNet"):
        dilate(nano("vit_nano"), 16)
    with pytest.raises(UserError, match="use 8, 16 or 32"):
        dilate(nano("resnet_nano"), 4)
