from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextModel,
    ResNetBackbone,
    SwinBackbone,
    ViTConfig,
    ViTModel,
)

from rs_models import backbones
from rs_models.errors import UserError
from tests.support.models import assert_features, images, nano, shaken

NANOS = ("resnet_nano", "swin_nano", "vit_nano")
# Parameters of torchvision's resnet18/34/50 without classifier and of timm's swin_tiny and
# vit_small (num_classes=0); a ViT has its identity pooler on top (384 * 385).
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "swin_tiny": 27_519_354,
    "vit_small_patch16": 21_665_664 + 384 * 385,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_those_of_the_published_architectures(name):
    with torch.device("meta"):
        model = AutoModel.from_config(backbones.backbone_config(name))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", NANOS)
@pytest.mark.parametrize("bands", ["rgb", "rgbn", "sentinel2"])
def test_features_at_any_image_size(name, bands):
    model = nano(name, bands, image_size=64)
    channels = {"rgb": 3, "rgbn": 4, "sentinel2": 13}[bands]
    stride = backbones.output_stride(model.config)
    for size in (64, 96, (72, 104)):
        x = images(channels, size)
        with torch.no_grad():
            features, maps = backbones.pooled(model, x), backbones.dense(model, x)
        assert features.shape == (2, backbones.feature_dim(model.config))
        assert features.dtype == torch.float32 and features.isfinite().all()
        height, width = x.shape[-2:]
        down = (
            (lambda side: side // stride)
            if name == "vit_nano"
            else (lambda side: -(-side // stride))
        )
        assert maps.shape == (2, features.shape[1], down(height), down(width))
        if name != "vit_nano":
            assert_features(features, maps.mean((2, 3)))


@pytest.mark.parametrize("name", NANOS)
def test_every_trainable_weight_gets_a_gradient(name):
    model = backbones.build(name, image_size=64).train()
    backbones.pooled(model, images(batch=4)).square().sum().backward()
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@pytest.mark.parametrize("name", NANOS)
def test_dense_maps_follow_the_image(name):
    model = nano(name, image_size=64)
    x = images(size=(128, 256), batch=1)
    changed = x.clone()
    changed[..., :32, -32:] += 3.0  # upper right corner
    with torch.no_grad():
        difference = (backbones.dense(model, changed) - backbones.dense(model, x)).abs().sum(1)[0]
    height, width = difference.shape
    row, column = divmod(int(difference.argmax()), width)
    assert row < height / 2 and column >= width / 2


@pytest.mark.parametrize("name", ["resnet_nano", "resnet18", "swin_nano"])
def test_stages_end_in_the_dense_map(name):
    model = nano(name)
    for size in (64, (72, 104)):
        x = images(size=size)
        with torch.no_grad():
            maps, last = backbones.stages(model, x), backbones.dense(model, x)
        assert tuple(m.shape[1] for m in maps) == backbones.stage_dims(model.config)
        strides = [4, 8, 16, 32]
        for found, stride in zip(maps, strides, strict=True):
            assert found.shape[2:] == tuple(-(-side // stride) for side in x.shape[2:])
        assert torch.equal(maps[-1], last)


def test_stages_are_those_of_transformers_own_backbones(tmp_path):
    x = images(size=224, batch=1)
    for name, native in (("resnet_nano", ResNetBackbone), ("swin_nano", SwinBackbone)):
        model = nano(name, image_size=224)
        model.save_pretrained(tmp_path / name)
        other = native.from_pretrained(tmp_path / name, out_indices=[1, 2, 3, 4]).eval()
        with torch.no_grad():
            expected = list(other(x).feature_maps)
            found = backbones.stages(model, x)
        for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
            if name == "swin_nano":  # it puts a fresh norm, of weight 1 and bias 0, on each map
                ours = torch.nn.functional.layer_norm(ours.movedim(1, -1), ours.shape[1:2])
                ours = ours.movedim(-1, 1)
            assert_features(ours, theirs)


def test_stages_of_a_dilated_resnet():
    model = backbones.dilate(nano("resnet_nano"), 8)
    with torch.no_grad():
        maps = backbones.stages(model, images())
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (32, 8, 8), (64, 8, 8), (128, 8, 8)]


def test_a_vit_has_no_stages():
    with pytest.raises(UserError, match="only one feature map: use a ResNet or a Swin"):
        backbones.stages(nano("vit_nano"), images())


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"resnet51.*resnet18.*swin_tiny.*vit_small_patch16"):
        backbones.build("resnet51")


def test_image_smaller_than_a_patch_is_refused():
    with pytest.raises(UserError, match="16 pixels but image_size is 8"):
        backbones.backbone_config("vit_small_patch16", image_size=8)


def test_wrong_number_of_bands_is_told():
    with pytest.raises(UserError, match=r"\(B, 3, H, W\) but got \(2, 4, 64, 64\)"):
        backbones.pooled(nano("resnet_nano"), images(4))


def test_swin_agrees_with_a_plain_call_and_survives_small_images():
    """A plain call does not shift a stage one window wide; always_partition alone would."""
    model = nano("swin_nano", image_size=224)
    large, small = images(size=224, batch=1), images(size=96, batch=1)
    with torch.no_grad():
        plain = model(large).pooler_output
        first = backbones.pooled(model, small)
        assert_features(backbones.pooled(model, large), plain)
        assert_features(model(large).pooler_output, plain)
        assert_features(backbones.pooled(model, small), first)
        shifted = AutoModel.from_config(model.config).eval()
        shifted.load_state_dict(model.state_dict())
        assert (shifted(large, always_partition=True).pooler_output - plain).abs().max() > 1e-4


def test_vit_pooler_is_the_class_token():
    model = nano("vit_nano")
    with torch.no_grad():
        output = model(images())
    assert_features(output.pooler_output, output.last_hidden_state[:, 0])
    assert_features(backbones.pooled(model, images()), output.last_hidden_state[:, 0])


# --- load ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NANOS)
def test_load_restores_a_native_folder_in_float32(name, tmp_path):
    model = nano(name)
    expected = backbones.pooled(model, images())
    model.half().save_pretrained(tmp_path)
    loaded = backbones.load(str(tmp_path))
    assert loaded.dtype == torch.float32 and not loaded.training
    assert_features(backbones.pooled(loaded, images()), expected, 2e-2)


@pytest.mark.parametrize("name", NANOS)
def test_load_drops_a_classifier(name, tmp_path):
    model = nano(name)
    model.save_pretrained(tmp_path / "backbone")
    classifier = AutoModelForImageClassification.from_pretrained(
        tmp_path / "backbone", num_labels=5
    )
    classifier.save_pretrained(tmp_path / "classifier")
    loaded = backbones.load(str(tmp_path / "classifier"))
    assert_features(backbones.pooled(loaded, images()), backbones.pooled(model, images()))


@pytest.mark.parametrize("name", NANOS)
def test_load_refuses_weights_that_would_be_random(name, tmp_path):
    nano(name).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    dropped = next(key for key in weights if "norm" in key)
    save_file(
        {k: v for k, v in weights.items() if k != dropped},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=r"missing 1 \(.*norm"):
        backbones.load(str(tmp_path))


def test_load_refuses_a_foreign_prefix(tmp_path):
    """AutoModel would warn and start such a file entirely at random."""
    nano("resnet_nano").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {f"backbone.{k}": v for k, v in weights.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=r"missing \d+ .*left over \d+ \(backbone\."):
        backbones.load(str(tmp_path))


def test_load_refuses_pickles(tmp_path):
    model = nano("resnet_nano")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        backbones.load(str(tmp_path))


@pytest.mark.parametrize("pooler", ["none", "tanh"])
def test_load_makes_the_pooler_of_a_foreign_vit_the_identity(pooler, tmp_path):
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    foreign = shaken(ViTModel(config, add_pooling_layer=pooler == "tanh"))
    foreign.save_pretrained(tmp_path)
    loaded = backbones.load(str(tmp_path))
    with torch.no_grad():
        token = foreign(images(size=32)).last_hidden_state[:, 0]
        assert_features(loaded(images(size=32)).pooler_output, token)


def test_load_names_what_it_does_not_know(tmp_path):
    with pytest.raises(UserError, match="resnet51"):
        backbones.load("resnet51")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        backbones.load(str(tmp_path / "empty"))
    method = tmp_path / "method"
    method.mkdir()
    (method / "config.json").write_text(json.dumps({"model_type": "rs_tov"}))
    with pytest.raises(UserError, match=r"whole method \(rs_tov\): give its export"):
        backbones.load(str(method))
    ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])).save_pretrained(
        tmp_path / "convnext"
    )
    with pytest.raises(UserError, match="'convnext' are not supported"):
        backbones.load(str(tmp_path / "convnext"))


def test_load_says_when_a_hub_id_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="No model at 'rs/not-there'"):
        backbones.load("rs/not-there")


def test_load_adapts_the_stem_by_name(tmp_path):
    model = nano("resnet_nano", "rgbn")
    model.config.rs_models = {"bands": ["red", "green", "blue", "nir"]}
    model.save_pretrained(tmp_path)
    x = images(4)
    loaded = backbones.load(str(tmp_path), bands=["nir", "blue", "green", "red"])
    assert_features(backbones.pooled(loaded, x.flip(1)), backbones.pooled(model, x))
    assert loaded.config.rs_models["bands"] == ["nir", "blue", "green", "red"]


def test_load_takes_three_unnamed_bands_as_rgb_and_refuses_to_guess_others(tmp_path):
    rgb = nano("resnet_nano")
    rgb.save_pretrained(tmp_path / "three")
    loaded = backbones.load(str(tmp_path / "three"), bands=["blue", "green", "red"])
    assert_features(backbones.pooled(loaded, images().flip(1)), backbones.pooled(rgb, images()))
    nano("resnet_nano", "rgbn").save_pretrained(tmp_path / "four")
    with pytest.raises(UserError, match="4 bands and does not say which"):
        backbones.load(str(tmp_path / "four"), bands="rgb")


def test_load_dilates_as_trained_and_automodel_does_not(tmp_path):
    model = backbones.dilate(nano("resnet_nano"), 16, first_block_dilated=True)
    model.config.rs_models = {"output_stride": 16}
    model.save_pretrained(tmp_path)
    loaded = backbones.load(str(tmp_path))
    with torch.no_grad():
        assert_features(backbones.dense(loaded, images()), backbones.dense(model, images()))
        assert backbones.dense(loaded, images()).shape[-1] == 4
        assert AutoModel.from_pretrained(tmp_path)(images()).last_hidden_state.shape[-1] == 2
