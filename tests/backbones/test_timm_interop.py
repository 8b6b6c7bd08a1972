from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from rs_models import backbones
from rs_models.backbones.timm_interop import (
    from_timm,
    timm_config,
    timm_features,
    timm_state_dict,
)
from rs_models.errors import UserError
from tests.support.models import assert_features, images, nano, shaken

NANOS = ("resnet_nano", "swin_nano", "vit_nano")
timm = pytest.importorskip("timm")


def timm_twin(model, size):
    """The timm model that the exported keys describe, with random weights."""
    keys = timm_config(model.config)
    fixed = {} if model.config.model_type == "resnet" else {"img_size": size}
    arguments = {**keys.get("model_args", {}), **fixed}
    twin = timm.create_model(
        keys["architecture"], num_classes=0, in_chans=model.config.num_channels, **arguments
    )
    assert twin.num_features == keys["num_features"]
    return twin.eval()


@pytest.mark.parametrize("name", NANOS)
@pytest.mark.parametrize("bands", ["rgb", "rgbn", "sentinel2"])
def test_features_agree_both_ways(name, bands):
    size = 224 if name == "swin_nano" else 64
    model = nano(name, bands, image_size=size)
    twin = timm_twin(model, size)
    twin.load_state_dict(
        timm_state_dict(model)
    )  # strict: every weight and BatchNorm buffer has a place
    x = images(model.config.num_channels, size)
    with torch.no_grad():
        native, other = backbones.pooled(model, x), timm_features(twin, x)
    assert (native - other).abs().max() < 1e-4
    back = from_timm(twin)
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "swin_tiny", "vit_small_patch16"])
def test_published_sizes_agree_with_timm(name):
    model = nano(name, image_size=224)
    keys = timm_config(model.config)
    assert "model_args" not in keys  # a name of timm's own
    twin = timm_twin(model, 224)
    twin.load_state_dict(timm_state_dict(model))
    x = images(3, 224, batch=1)
    with torch.no_grad():
        native, other = backbones.pooled(model, x), timm_features(twin, x)
    assert (native - other).abs().max() / native.abs().max().clamp_min(1) < 1e-4


def test_timm_classifier_is_dropped_and_its_model_left_as_it_was():
    twin = shaken(
        timm.create_model("resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=7)
    ).train()
    model = from_timm(twin)
    assert twin.training and twin.num_classes == 7
    with torch.no_grad():
        assert_features(backbones.pooled(model, images()), timm_features(twin.eval(), images()))


SMALL_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
SMALL_VIT = {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32}


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        # The first three differ only in parts without weights.
        ("resnet18", {**SMALL_RESNET, "aa_layer": torch.nn.AvgPool2d}),
        ("resnet18", {**SMALL_RESNET, "output_stride": 8}),
        ("resnet18", {**SMALL_RESNET, "act_layer": torch.nn.SiLU}),
        ("resnet18", {**SMALL_RESNET, "stem_type": "deep", "stem_width": 32}),
        ("resnet50", {**SMALL_RESNET, "block_args": {"attn_layer": "se"}}),
        ("vit_small_patch16_224", {**SMALL_VIT, "init_values": 0.1}),
        ("vit_small_patch16_224", {**SMALL_VIT, "reg_tokens": 2}),
        ("vit_small_patch16_224", {**SMALL_VIT, "global_pool": "avg"}),
        ("test_convnext", {}),
    ],
)
def test_models_that_are_not_plain_are_refused(architecture, arguments):
    model = timm.create_model(architecture, num_classes=0, **arguments)
    with pytest.raises(UserError, match="plain ResNet, Swin"):
        from_timm(shaken(model), name=architecture)


def test_load_converts_a_timm_folder_and_knows_its_preprocessing(tmp_path):
    twin = shaken(
        timm.create_model(
            "vit_small_patch16_224", embed_dim=32, depth=1, num_heads=2, num_classes=0
        )
    )
    arguments = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    preprocessing = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "input_size": [3, 224, 224],
        "num_classes": 0,
    }
    settings = {
        "architecture": "vit_small_patch16_224",
        "model_args": arguments,
        "pretrained_cfg": preprocessing,
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(twin.state_dict(), tmp_path / "model.safetensors")
    model = backbones.load(str(tmp_path))
    x = images(3, 224)
    with torch.no_grad():
        assert_features(backbones.pooled(model, x), timm_features(twin, x))
    assert model.config.rs_models["image_mean"] == [0.1, 0.2, 0.3]
    assert model.config.rs_models["train_size"] == 224
    swapped = backbones.load(str(tmp_path), bands=["blue", "green", "red"])
    assert swapped.config.rs_models["image_std"] == [0.6, 0.5, 0.4]


def test_unusual_resnets_without_a_timm_counterpart_are_told():
    config = backbones.backbone_config("resnet_nano")
    config.embedding_size = 32
    with pytest.raises(UserError, match="timm=False"):
        timm_config(config)
