from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

import rs_models  # noqa: F401  (registers the networks)
from rs_models import backbones
from rs_models.backbones.decoders import AsppEncoder, DeepLabV3PlusDecoder
from rs_models.errors import UserError
from rs_models.tasks.segmenters import (
    SEGMENTERS,
    DeepLabV3PlusConfig,
    DeepLabV3PlusForSemanticSegmentation,
    FcnConfig,
    FcnForSemanticSegmentation,
    from_pretraining_decoder,
)
from tests.support.golden_weights import (
    TOLERANCE,
    fill_by_rule,
    glcnet_name,
    golden_input,
    renamed,
    torchvision_name,
)
from tests.support.models import images, nano, shaken

NETWORKS = [model for _, model in SEGMENTERS]
PAIRS = [
    (DeepLabV3PlusForSemanticSegmentation, "resnet_nano"),
    (DeepLabV3PlusForSemanticSegmentation, "swin_nano"),
    (FcnForSemanticSegmentation, "resnet_nano"),
    (FcnForSemanticSegmentation, "swin_nano"),
    (FcnForSemanticSegmentation, "vit_nano"),
]


def make(network, backbone="resnet_nano", bands="rgb", num_labels=5, **settings):
    native = backbones.backbone_config(backbone, bands=bands, image_size=64)
    if network is DeepLabV3PlusForSemanticSegmentation:
        settings = {"decoder_channels": 32, "low_level_channels": 8, **settings}
    config = network.config_class(backbone_config=native, num_labels=num_labels, **settings)
    return shaken(network(config))


def labels_for(x, num_labels=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, num_labels, (len(x), *x.shape[2:]), generator=generator)


def settings_of(config):
    """What a saved config holds, but for the type of the weights and the path of the folder."""
    settings = json.loads(config.to_json_string(use_diff=False))
    for part in (settings, settings["backbone_config"]):
        for key in ("dtype", "_name_or_path", "architectures"):
            part.pop(key, None)
    return settings


# --- the authors' networks -----------------------------------------------------------------------


def test_deeplab_is_glcnets_fine_tuning_network(golden):
    expected = np.load(golden / "architectures.npz")["glcnet_ft/logits_slice"]
    native = backbones.backbone_config("resnet50", bands="rgbn")
    config = DeepLabV3PlusConfig(backbone_config=native, num_labels=7)
    model = DeepLabV3PlusForSemanticSegmentation(config)
    assert sum(p.numel() for p in model.parameters()) == 40_351_719
    assert len(model.state_dict()) == 374
    # Its decoder has another name than that of pretraining, so that loading leaves it out.
    fill_by_rule(model, partial(glcnet_name, decoder="decoder_ft", output="conv4"))
    with torch.no_grad():
        logits = model(golden_input("glcnet_x1")).logits
    torch.testing.assert_close(logits[..., ::8, ::8], torch.from_numpy(expected), **TOLERANCE)


def test_fcn_is_tovs_network(golden):
    expected = np.load(golden / "architectures.npz")["tov_fcn_d8/out"]
    whole = json.loads((golden / "architectures.json").read_text())["tov_fcn_d8"]
    model = FcnForSemanticSegmentation(FcnConfig(num_labels=18))
    assert sum(p.numel() for p in model.parameters()) == whole["n_params"] == 47_187_044
    names = {
        key: renamed(
            [
                (r"^decoder\.up(\d)\.", r"uplayer\1."),
                (r"^decoder\.output\.0\.", "classifier.1."),
                (r"^decoder\.output\.1\.", "classifier.2."),
            ]
        )(torchvision_name(key, "backbone.", "features."))
        for key in model.state_dict()
    }
    assert len(set(names.values())) == whole["n_tensors"]
    assert set(whole["keys_tail"]) <= set(names.values())
    fill_by_rule(model, names.__getitem__)
    with torch.no_grad():
        logits = model(golden_input("tov")).logits
    torch.testing.assert_close(logits[..., ::4, ::4], torch.from_numpy(expected), **TOLERANCE)
    found = [logits.mean(), logits.std(), logits.min(), logits.max()]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(whole["stat"]), **TOLERANCE)


# --- every network over every backbone -----------------------------------------------------------


@pytest.mark.parametrize(("network", "backbone"), PAIRS)
@pytest.mark.parametrize("size", [64, (72, 104)])
def test_every_pixel_gets_scores_at_any_image_size(network, backbone, size):
    x = images(size=size)
    with torch.no_grad():
        output = make(network, backbone)(x)
    assert output.loss is None
    assert output.logits.shape == (2, 5, *x.shape[2:]) and output.logits.isfinite().all()


@pytest.mark.parametrize(("network", "backbone"), PAIRS)
def test_every_weight_gets_a_gradient_also_after_loading(network, backbone, tmp_path):
    make(network, backbone).save_pretrained(tmp_path)
    model = network.from_pretrained(tmp_path).train()
    x = images()
    model(x, labels_for(x)).loss.backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize(("network", "backbone"), PAIRS)
def test_a_saved_network_is_restored_exactly_by_the_auto_class(network, backbone, tmp_path):
    names = {i: f"class {i}" for i in range(5)}
    model = make(network, backbone, bands="rgbn", id2label=names, norm_momentum=0.9)
    model.save_pretrained(tmp_path)
    restored = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert type(restored) is network and restored.config.id2label[4] == "class 4"
    for key, value in model.state_dict().items():
        assert torch.equal(restored.state_dict()[key], value), key
    # A file's memory map is aligned otherwise, and some processors then round otherwise.
    for parameter in restored.parameters():
        parameter.data = parameter.data.clone()
    with torch.no_grad():
        assert torch.equal(restored(images(4)).logits, model(images(4)).logits)
    assert settings_of(restored.config) == settings_of(model.config)


@pytest.mark.parametrize("network", NETWORKS)
def test_dilation_is_restored(network, tmp_path):
    model = make(network, output_stride=8, first_block_dilated=True)
    model.save_pretrained(tmp_path)
    restored = network.from_pretrained(tmp_path)
    block = restored.backbone.encoder.stages[3].layers[0].layer
    assert [layer.convolution.dilation[0] for layer in block] == [4, 4]
    assert backbones.output_stride(restored.backbone.config) == 8
    assert (
        make(network).config.output_stride
        == {"rs_fcn": 8, "rs_deeplabv3plus": 16}[network.config_class.model_type]
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_other_classes_replace_the_output_layer_only(network, tmp_path):
    model = make(network)
    model.save_pretrained(tmp_path)
    other = network.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert other(images()).logits.shape[1] == other.config.num_labels == 9
    changed = {
        key.rsplit(".", 1)[0]
        for key, value in other.state_dict().items()
        if not torch.equal(value, model.state_dict()[key])
    }
    assert changed == (
        {"decoder.output.0", "decoder.output.1"}
        if network is FcnForSemanticSegmentation
        else {"decoder.output"}
    )
    for key, value in other.state_dict().items():
        assert value.isfinite().all(), key
    if network is FcnForSemanticSegmentation:
        norm = other.decoder.output[1]
        assert (norm.weight == 1).all() and (norm.running_var == 1).all()
        assert not norm.bias.any() and not norm.running_mean.any()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_loads_in_half_precision(network, tmp_path):
    make(network).save_pretrained(tmp_path)
    half = network.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half(images().bfloat16()).logits.dtype == torch.bfloat16


# --- loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_loss_is_cross_entropy_over_the_labelled_pixels(network):
    model, x = make(network), images()
    labels = labels_for(x)
    labels[:, :20] = 255
    with torch.no_grad():
        output = model(x, labels)
        wanted = torch.nn.functional.cross_entropy(output.logits, labels, ignore_index=255)
        torch.testing.assert_close(output.loss, wanted)
        output = model(x, labels.to(torch.uint8))  # as masks are stored
        torch.testing.assert_close(output.loss, wanted)
        # Also among its own classes: an index to ignore is a setting.
        model.config.loss_ignore_index = 0
        wanted = torch.nn.functional.cross_entropy(output.logits, labels_for(x), ignore_index=0)
        torch.testing.assert_close(model(x, labels_for(x)).loss, wanted)


def test_a_batch_without_labelled_pixels_costs_nothing():
    model, x = make(FcnForSemanticSegmentation).train(), images()
    loss = model(x, torch.full((2, 64, 64), 255)).loss
    loss.backward()
    assert loss == 0 and all(not p.grad.any() for p in model.parameters())


def test_labels_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"Labels \(2, 32, 32\) do not fit images \(2, 3, 64, 64\)"):
        make(FcnForSemanticSegmentation)(images(), torch.zeros(2, 32, 32, dtype=torch.long))


# --- configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_stride": 4}, "output_stride is 4"),
        ({"output_stride": "8"}, "output_stride"),
        ({"backbone_config": {"model_type": "swin"}, "output_stride": 16}, "left out for other"),
        ({"decoder_dropout": [0.5]}, "has 1 values, not 2"),
        ({"num_labels": 1}, "num_labels is 1"),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings, words):
    with pytest.raises(Exception, match=words):
        DeepLabV3PlusConfig(**settings)


def test_a_config_leaves_the_one_it_was_given_alone():
    native = backbones.backbone_config("resnet_nano")
    config = FcnConfig(backbone_config=native)
    assert config.native.output_stride == 8 and not hasattr(native, "output_stride")


def test_deeplab_refuses_a_vit():
    config = DeepLabV3PlusConfig(backbone_config=backbones.backbone_config("vit_nano"))
    with pytest.raises(UserError, match="use a ResNet or a Swin"):
        DeepLabV3PlusForSemanticSegmentation(config)


# --- from trained weights ------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "backbone"), PAIRS)
def test_starts_from_a_trained_backbone(network, backbone, tmp_path):
    trained = nano(backbone)
    trained.config.rs_models = {"bands": ["red", "green", "blue"], "output_stride": 32}
    trained.save_pretrained(tmp_path)
    model = network.from_backbone(str(tmp_path), num_labels=4)
    assert not model.training and model.config.num_labels == 4
    assert model.config.native.rs_models["bands"] == ["red", "green", "blue"]
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key]), key
    wider = network.from_backbone(str(tmp_path), bands="rgbn")
    assert wider(images(4)).logits.shape == (2, 2, 64, 64)
    assert wider.config.native.rs_models["bands"] == ["red", "green", "blue", "nir"]


def test_an_unknown_setting_is_refused():
    with pytest.raises(UserError, match="FcnConfig has no setting num_label: "):
        FcnForSemanticSegmentation.from_backbone("anything", num_label=4)


@pytest.mark.parametrize("first_block_dilated", [True, False])
def test_starts_from_everything_that_glcnet_pretrains(first_block_dilated, tmp_path):
    backbone = backbones.dilate(
        nano("resnet_nano", "rgbn"), 16, first_block_dilated=first_block_dilated
    )
    backbone.config.rs_models = {"method": "glcnet"}
    encoder = shaken(AsppEncoder(128, 32, rates=(2, 4), norm_momentum=0.9))
    decoder = shaken(DeepLabV3PlusDecoder(16, 64, channels=32, low_channels_out=8))
    model = from_pretraining_decoder(backbone, encoder, decoder, num_labels=7)
    assert model.config.norm_momentum == 0.9 and model.config.native.rs_models["method"] == "glcnet"
    with torch.no_grad():
        x = images(4)
        low, *_, last = backbones.stages(backbone, x)
        features = decoder.reduce(low), encoder(last)
        low, *_, last = backbones.stages(model.backbone, x)
        assert torch.equal(model.decoder.reduce(low), features[0])
        assert torch.equal(model.encoder(last), features[1])
    for key, value in decoder.state_dict().items():
        if not key.startswith("output."):
            assert torch.equal(model.decoder.state_dict()[key], value), key
    assert model.decoder.output.weight.shape == (7, 32, 1, 1)
    # The network owns copies: training it leaves the pretrained modules alone.
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())

    model.save_pretrained(tmp_path)
    task = DeepLabV3PlusForSemanticSegmentation.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True
    )
    assert task(images(4)).logits.shape == (2, 5, 64, 64)


def test_a_half_precision_method_gives_a_float32_network():
    backbone = nano("resnet_nano").bfloat16()
    backbone.config.dtype = torch.bfloat16
    encoder, decoder = AsppEncoder(128, 32), DeepLabV3PlusDecoder(16, 64, channels=32)
    model = from_pretraining_decoder(backbone, encoder.bfloat16(), decoder.bfloat16())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model(images()).logits.shape == (2, 2, 64, 64)
