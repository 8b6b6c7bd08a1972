"""The authors' files, made from the official key lists and the rule of tests/golden."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation

from rs_models import backbones
from rs_models.backbones.timm_interop import timm_state_dict
from rs_models.commands.convert_upstream import main
from rs_models.convert_upstream import UPSTREAM, convert, read_checkpoint
from rs_models.errors import UserError
from rs_models.settings import run_script
from tests.conftest import ROOT
from tests.support.golden_weights import TOLERANCE, golden_input, rule_tensor
from tests.support.models import assert_features, images, nano

TOV_PREFIXES = {
    "",
    "features.",
    "module.",
    "encoder.",
    "online_network.encoder.",
    "encoder_q.features.",
    "model.features.",
}


@cache
def trunk_shapes():
    """Names and shapes of torchvision's ResNet-50 without classifier, bands = 3."""
    return {k: tuple(v.shape) for k, v in timm_state_dict(backbones.build("resnet50")).items()}


def by_rule(shapes, prefix=""):
    """Tensors of these names (after a prefix) and shapes, filled as architectures.json says."""
    return {
        prefix + key: torch.tensor(7)
        if key.endswith("num_batches_tracked")
        else rule_tensor(prefix + key, tuple(shape))
        for key, shape in shapes.items()
    }


def small(prefix="", bands="rgb"):
    """A small ResNet and its weights under torchvision's names."""
    model = nano("resnet_nano", bands)
    return model, {prefix + key: value for key, value in timm_state_dict(model).items()}


def saved(content, path):
    torch.save(content, path)
    return path


def refused(content, tmp_path, match, **options):
    """Nothing is written, and the error says why in one sentence."""
    file = content if isinstance(content, os.PathLike) else saved(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=match) as caught:
        convert(file, tmp_path / "out", **{"method": "tov", **options})
    assert not (tmp_path / "out").exists() and "\n" not in str(caught.value)
    return str(caught.value)


def check_small(done, model, bands=3):
    """The features are those of the source, for plain transformers too."""
    x = images(bands)
    with torch.no_grad():
        expected = backbones.pooled(model, x)
        assert_features(backbones.pooled(backbones.load(str(done.output)), x), expected)
        plain = AutoModel.from_pretrained(done.output).eval()(x).pooler_output.flatten(1)
        assert_features(plain, expected)
    return json.loads((done.output / "config.json").read_text())


# --- whole networks of the authors ---------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(golden):
    stored = np.load(golden / "architectures.npz")
    return {key: torch.from_numpy(stored[key]) for key in stored if not key.endswith("rois")}


@pytest.fixture(scope="module")
def glcnet_keys(golden):
    return json.loads((golden / "glcnet_state_dict_keys.json").read_text())


@pytest.fixture(scope="module")
def glcnet(glcnet_keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("glcnet")
    file = saved(by_rule(glcnet_keys), folder / "Potsdam_GLCNet.pth")
    return convert(file, folder / "out")


def test_glcnet_backbone_is_the_authors_network(glcnet, expected):
    model = backbones.load(str(glcnet.output))
    backbones.dilate(model, 16, first_block_dilated=True)  # as it was trained
    with torch.no_grad():
        low, *_, last = backbones.stages(model, golden_input("glcnet_x1"))
    torch.testing.assert_close(low[:, :4, :4, :4], expected["glcnet/low_slice"], **TOLERANCE)
    torch.testing.assert_close(last[:, :8], expected["glcnet/backbone_slice"], **TOLERANCE)


def test_glcnet_says_how_it_was_trained(glcnet):
    meta = backbones.load(str(glcnet.output)).config.rs_models
    assert meta["method"] == "glcnet" and meta["epochs"] == 400 and meta["train_size"] == 224
    assert meta["bands"] == ["red", "green", "blue", "nir"] and meta["value_range"] == [0, 255]
    # (x / 255 - mean) / std is the authors' x / 255 * 3.2 - 1.6.
    assert meta["image_mean"] == [0.5] * 4 and meta["image_std"] == [1 / 3.2] * 4
    assert meta["output_stride"] == 32  # of the backbone as everybody loads it
    settings = json.loads((glcnet.output / "segmentation" / "config.json").read_text())
    assert (
        settings["output_stride"] == 16 and settings["first_block_dilated"] is True
    )  # ... trained
    image = np.full((224, 224, 4), 51, dtype=np.uint8)
    x = AutoImageProcessor.from_pretrained(glcnet.output)(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(x, torch.full_like(x, 51 / 255 * 3.2 - 1.6))


def test_every_key_of_glcnet_is_used_or_reported(glcnet, glcnet_keys):
    assert len(glcnet.loaded) == 318 and len(glcnet.segmentation) == 54
    assert set(glcnet.dropped) == {
        *(f"decoder.conv41.{kind}" for kind in ("weight", "bias")),
        *(key for key in glcnet_keys if key.startswith("proj")),
    }
    assert glcnet.unmatched == ()
    used = [*(f"backbone.{key}" for key in glcnet.loaded), *glcnet.segmentation, *glcnet.dropped]
    assert sorted(used) == sorted(glcnet_keys)
    counts = {"decoder.*": 2, "proj.*": 4, "proj1.*": 4}
    assert glcnet.source["dropped"] == counts and "proj1.* (4)" in glcnet.report()


def test_glcnet_segmentation_network_is_the_authors(glcnet, expected):
    network = AutoModelForSemanticSegmentation.from_pretrained(
        glcnet.output, subfolder="segmentation"
    )
    x = golden_input("glcnet_x1")
    output = network.decoder.output  # to classes, at random; the golden one is to features
    assert output.weight.shape[0] == 2 and network.config.native.rs_models["method"] == "glcnet"
    with torch.no_grad():
        low, *_, last = backbones.stages(network.backbone, x)
        encoded = network.encoder(last)
        network.decoder.output = torch.nn.Conv2d(256, 64, 1)
        for key, value in network.decoder.output.named_parameters():
            value.copy_(rule_tensor(f"decoder.conv41.{key}", tuple(value.shape)))
        decoded = network.decoder(encoded, low)
    torch.testing.assert_close(encoded, expected["glcnet/encoder_out"], **TOLERANCE)
    torch.testing.assert_close(decoded[:, :8], expected["glcnet/decoder_slice"], **TOLERANCE)


@pytest.mark.slow
def test_glcnet_fine_tuning_files_keep_their_classes(glcnet_keys, expected, tmp_path):
    shapes = {
        key.replace("decoder.", "decoder_ft.").replace("conv41", "conv4"): (
            [7, *shape[1:]] if "conv41" in key else shape
        )
        for key, shape in glcnet_keys.items()
        if not key.startswith("proj")
    }
    done = convert(saved(by_rule(shapes), tmp_path / "ft.pth"), tmp_path / "out")
    assert done.dropped == () and len(done.segmentation) == 56
    assert done.method == "glcnet_finetuned"  # labels have moved the backbone
    network = AutoModelForSemanticSegmentation.from_pretrained(done.output / "segmentation")
    with torch.no_grad():
        logits = network(golden_input("glcnet_x1")).logits
    found, wanted = logits[..., ::8, ::8], expected["glcnet_ft/logits_slice"]
    torch.testing.assert_close(found, wanted, **TOLERANCE)


def features(output, name):
    with torch.no_grad():
        return AutoModel.from_pretrained(output).eval()(golden_input(name)).pooler_output.flatten(1)


def test_sticl_is_the_authors_encoder(expected, tmp_path):
    # The rule goes by the names inside the encoder.
    trunk = by_rule(trunk_shapes())
    mlp = {
        "fc.0.weight": (2048, 2048),
        "fc.0.bias": (2048,),
        "fc.2.weight": (128, 2048),
        "fc.2.bias": (128,),
    }
    heads = by_rule(mlp)
    state = {f"module.encoder_q.{key}": value for key, value in {**trunk, **heads}.items()}
    # The key encoder is another one: taking it would show.
    state |= {f"module.encoder_k.{key}": value * 0.5 for key, value in trunk.items()}
    state |= {"module.queue": torch.zeros(128, 16), "module.queue_ptr": torch.zeros(1).long()}
    content = {
        "epoch": 300,
        "arch": "resnet50",
        "state_dict": state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{}]},
    }
    done = convert(saved(content, tmp_path / "sticl.pth.tar"), tmp_path / "out", method="sticl")
    assert (done.container, done.prefix) == ("state_dict", "module.encoder_q.")
    assert len(done.loaded) == 318 and done.unmatched == () and done.beside == {}
    assert done.source["dropped"] == {
        "module.encoder_q.fc.*": 4,
        "module.encoder_k.*": 318,
        "module.queue": 1,
        "module.queue_ptr": 1,
    }
    x = F.relu(F.linear(features(done.output, "sticl"), heads["fc.0.weight"], heads["fc.0.bias"]))
    found = F.linear(x, heads["fc.2.weight"], heads["fc.2.bias"])
    torch.testing.assert_close(found, expected["sticl_encoder_q/out"], **TOLERANCE)


def test_rsisc_is_the_authors_classifier(expected, tmp_path):
    heads = by_rule({"classifier.1.weight": (10, 2048), "classifier.1.bias": (10,)})
    state = {**by_rule(trunk_shapes(), "feature."), **heads}
    assert len(state) == 320
    file = tmp_path / "net.pth"
    torch.save(state, file, _use_new_zipfile_serialization=False)  # the format before torch 1.6
    done = convert(file, tmp_path / "out")
    assert done.method == "rsisc" and done.source["dropped"] == {"classifier.*": 2}
    found = F.linear(features(done.output, "rs2020"), *heads.values())
    torch.testing.assert_close(found, expected["rs2020_cls/out"], **TOLERANCE)


def test_rsisc_full_is_the_authors_simclr(expected, tmp_path):
    shapes = {
        "g.0.weight": (512, 2048),
        "g.1.weight": (512,),
        "g.1.bias": (512,),
        "g.1.running_mean": (512,),
        "g.1.running_var": (512,),
        "g.1.num_batches_tracked": (),
        "g.3.weight": (128, 512),
        "g.3.bias": (128,),
    }
    g = by_rule(shapes)
    state = {
        **by_rule(trunk_shapes(), "feature."),
        **g,
        "classifier.1.weight": torch.zeros(128, 2048),
        "classifier.1.bias": torch.zeros(128),
    }
    assert len(state) == 328
    done = convert(saved(state, tmp_path / "net_full_.pth"), tmp_path / "out")
    assert done.source["dropped"] == {"g.*": 8, "classifier.*": 2}
    x = F.linear(features(done.output, "rs2020"), g["g.0.weight"])
    running = g["g.1.running_mean"], g["g.1.running_var"]
    x = F.relu(F.batch_norm(x, *running, g["g.1.weight"], g["g.1.bias"]))
    found = F.linear(x, g["g.3.weight"], g["g.3.bias"])
    torch.testing.assert_close(found, expected["rs2020_simclr/out"], **TOLERANCE)


# --- every layout, small -------------------------------------------------------------------------


def test_the_official_tov_prefixes_are_known(golden):
    """Apart from the first map, which adds a prefix, each takes one away."""
    maps = json.loads((golden / "tov_key_mapping.json").read_text())
    official = {prefix for entry in maps[1:] for prefix in entry["map"]}
    assert official | {"", "features."} == TOV_PREFIXES


@pytest.mark.parametrize("prefix", sorted(TOV_PREFIXES))
def test_tov(prefix, golden, tmp_path):
    model, state = small(prefix)
    maps = json.loads((golden / "tov_key_mapping.json").read_text())
    after = next((entry["out"] for entry in maps[1:] if prefix in entry["map"]), [])
    # Of a plain file, the classifier; else the strangers in the official list.
    heads = ["fc.weight"] if not prefix else [k for k in after if k.count(".") < 1 or "0.w" in k]
    heads = [key for key in heads if not key.startswith("layer")]
    file = tmp_path / "resnet50_pretrained_on_TOV-RS-balanced_ep800.pth.tar"
    saved({"state_dict": {**state, **{key: torch.ones(2) for key in heads}}}, file)
    done = convert(file, tmp_path / "out")
    assert (done.method, done.container, done.prefix) == ("tov", "state_dict", prefix)
    assert set(done.dropped) == set(heads) and done.unmatched == ()
    settings = check_small(done, model)
    assert settings["rs_models"] == {
        "method": "tov",
        "bands": ["red", "green", "blue"],
        "value_range": [0, 255],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "train_size": 224,
        "output_stride": 32,
        "data": "TOV-RS-balanced",
        "data_revision": None,
        "epochs": 800,
        "version": settings["rs_models"]["version"],
        "commit": None,
    }
    source = settings["rs_models_source"]
    assert source["file"] == file.name and "no licence file" in source["licence_question"]
    assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert source["repository"] == "https://github.com/GeoX-Lab/G-RSIM"


@pytest.mark.parametrize("method", ["false", "grass"])
def test_vissl(method, tmp_path):
    model, trunk = small("_feature_blocks.")
    heads = {f"{i}.clf.0.{kind}": torch.ones(2) for i in (0, 1) for kind in ("weight", "bias")}
    inner = {"trunk": trunk, "heads": heads}
    content = {
        "iteration": 10,
        "loss": np.float64(0.5),
        "classy_state_dict": {"base_model": {"model": inner, "meta": {}}, "optimizer": {}},
    }
    file = saved(content, tmp_path / "model_final_checkpoint_phase199.torch")
    with pytest.raises(UserError, match="--method false or --method grass"):
        convert(file, tmp_path / "out")
    done = convert(file, tmp_path / "out", method=method)
    assert done.beside == {"classy_state_dict.base_model.model.heads.*": 4}
    assert "heads.* (4)" in done.report()
    settings = check_small(done, model)
    assert settings["rs_models"]["image_mean"] == [0.485, 0.456, 0.406]
    assert settings["rs_models"]["epochs"] == {"false": 200, "grass": 350}[method]
    assert "VISSL" in settings["rs_models_source"]["licence_question"]


def test_a_trunk_in_safetensors(tmp_path):
    model, trunk = small("_feature_blocks.")
    save_file(trunk, tmp_path / "trunk.safetensors")
    done = convert(tmp_path / "trunk.safetensors", tmp_path / "out", method="grass")
    assert done.container == "" and check_small(done, model)


def test_the_moco_baseline_of_glcnet(tmp_path):
    _, state = small("encoder_q.backbone.", "rgbn")
    state |= {"encoder_q.encoder.ASPP._image_pool.1.weight": torch.ones(2)}
    state |= {"encoder_k.backbone.conv1.weight": torch.ones(2), "proj.0.weight": torch.ones(2)}
    state |= {"queue": torch.ones(2, 2), "queue_ptr": torch.zeros(1)}
    done = convert(saved(state, tmp_path / "x.pth"), tmp_path / "out")
    assert done.method == "moco_v2" and done.source["method"] == "glcnet"
    assert len(done.dropped) == 5 and done.segmentation == ()
    with torch.no_grad():
        found = backbones.load(str(done.output))(images(4)).last_hidden_state
    assert found.shape[-1] == 2  # stride 32, as everybody loads it


def test_glcnet_names_of_sync_batch_norm_are_the_same(tmp_path):
    _, state = small("backbone.", "rgbn")
    state["encoder.ASPP._image_pool.1.weight"] = torch.ones(2)
    done = convert(saved(state, tmp_path / "x.pth"), tmp_path / "out", data="Hubei")
    assert done.segmentation == () and done.dropped == ("encoder.ASPP._image_pool.1.weight",)
    assert backbones.load(str(done.output)).config.rs_models["data"] == "Hubei"


def sequential_of_2020():
    """A small ResNet, and its weights as of a Sequential in RSISC's layout."""
    model, plain = small()
    numbers = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in range(1, 5)}}
    state = {}
    for key, value in plain.items():
        head, _, rest = key.partition(".")
        state[f"feature.{numbers[head]}.{rest}"] = value
    return model, state


def test_the_sequential_trunk_of_2020(tmp_path):
    model, state = sequential_of_2020()
    state["jigsaw.weight"] = torch.ones(2)
    file = saved(state, tmp_path / "jigsaw_full_.pth")
    done = convert(file, tmp_path / "out")
    assert done.unmatched == ("jigsaw.weight",)
    assert "unmatched: jigsaw.weight" in done.report()
    settings = check_small(done, model)
    assert settings["rs_models_source"]["unmatched"] == ["jigsaw.weight"]
    assert "BY-NC" in settings["rs_models_source"]["licence_question"]
    with pytest.raises(UserError, match=r"1 \(jigsaw\.weight\)"):
        convert(file, tmp_path / "strict", strict=True)


def test_thirteen_bands_need_their_names_and_scale(tmp_path):
    model, state = small("feature.", "sentinel2")
    file = saved(state, tmp_path / "eurosat.pth")
    refused(file, tmp_path, "takes 13 bands: say which with --bands", method=None)
    refused(file, tmp_path, "--value-range", method=None, bands="sentinel2")
    options = {"bands": "sentinel2", "value_range": (0, 10_000), "train_size": 64}
    done = convert(file, tmp_path / "out", **options)
    meta = check_small(done, model, 13)["rs_models"]
    assert meta["image_mean"] == [0.5] * 13 and meta["train_size"] == 64


def dino_file(path, state, **more):
    """As DINO's training script saves it: student, teacher, loss, options, the last epoch."""
    teacher = {f"module.backbone.{key}": value for key, value in state.items()}
    teacher |= {"module.head.mlp.0.weight": torch.ones(2), "module.head.last_layer.weight_g": ONE}
    student = {key: value + 1 for key, value in teacher.items()}
    options = argparse.Namespace(arch="vit_small", lr=5e-4, local_crops_scale=(0.05, 0.4))
    content = {"student": student, "teacher": teacher, "epoch": 100, "args": options}
    return saved({**content, "dino_loss": {"center": ONE}, **more}, path)


ONE = torch.ones(1)


def test_dino_vit(tmp_path):
    model = nano("vit_nano")
    file = dino_file(tmp_path / "checkpoint.pth", timm_state_dict(model))
    refused(file, tmp_path, "--method dino or --method last", method=None)
    refused(file, tmp_path, "64 channels wide .* say --heads N", method="dino")
    done = convert(file, tmp_path / "out", method="last", heads=2)
    assert (done.container, done.prefix) == ("teacher", "module.backbone.")
    assert done.source["dropped"] == {"module.head.*": 2}
    assert done.beside == {"student.*": len(timm_state_dict(model)) + 2, "dino_loss.*": 1}
    meta = check_small(done, model)["rs_models"]
    assert meta["epochs"] == 100 and meta["train_size"] == 64 and meta["output_stride"] == 8


def test_a_bare_dino_backbone_needs_its_epochs(tmp_path):
    model = nano("vit_nano")
    file = saved(timm_state_dict(model), tmp_path / "vit.pth")
    refused(file, tmp_path, "say --epochs N", method="dino", heads=2)
    check_small(convert(file, tmp_path / "out", method="dino", heads=2, epochs=800), model)


@pytest.mark.parametrize("official", [True, False])
def test_dino_swin(official, tmp_path):
    """EsViT's Swin merges patches at the end of a stage, timm's at the start of the next."""
    model = nano("swin_nano")
    state = timm_state_dict(model)
    if official:
        for stage in range(1, 4):
            for key in [k for k in state if k.startswith(f"layers.{stage}.downsample.")]:
                state[key.replace(str(stage), str(stage - 1), 1)] = state.pop(key)
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
        state["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(49, 49)
    done = convert(dino_file(tmp_path / "x.pth", state), tmp_path / "out", method="last")
    assert done.backbone == "swin"
    if official:
        buffers = {"*.attn_mask": 1, "*.relative_position_index": 1}
        assert done.source["dropped"] == {"module.head.*": 2, **buffers}
    x = images(size=224)
    with torch.no_grad():
        found = AutoModel.from_pretrained(done.output).eval()(x).pooler_output
        assert_features(found, backbones.pooled(model, x))


@pytest.mark.parametrize("name", ["resnet18", "resnet_nano"])
def test_sizes_are_read_from_the_weights(name, tmp_path):
    model = nano(name)
    state = {key: v for key, v in timm_state_dict(model).items() if "tracked" not in key}
    done = convert(saved(state, tmp_path / "x.pth"), tmp_path / "out", method="tov")
    settings = check_small(done, model)
    assert settings["layer_type"] == "basic" and settings["depths"] == model.config.depths
    assert settings["architecture"] == "resnet18"


# --- refused -------------------------------------------------------------------------------------


def test_only_a_leading_prefix_goes(tmp_path):
    """The official loaders replace "module." anywhere in a name."""
    _, state = small("module.")
    state["module.layer2.module.0.conv1.weight"] = state.pop("module.layer2.0.conv1.weight")
    message = refused(state, tmp_path, "missing 1")
    assert "missing 1 (layer2.0.conv1.weight)" in message
    assert "unmatched 1 (layer2.module.0.conv1.weight)" in message


def test_backbone_keys_without_a_place_are_listed(tmp_path):
    _, state = small("features.")
    extra = {f"features.attention.{i}.weight": torch.ones(2) for i in range(7)}
    message = refused({**state, **extra}, tmp_path, "never loaded")
    assert "missing none, unmatched 7 (attention.0.weight, " in message and ", ...)" in message


@pytest.mark.parametrize(
    "key",
    [
        "layer4.0.bn2.running_var",
        "layer2.0.conv2.weight",
        "bn1.bias",
        "layer1.0.conv1.weight",
        "layer4.0.conv1.weight",
    ],
)
def test_nothing_is_loaded_in_part(key, tmp_path):
    _, state = small()
    del state[key]
    assert key in refused(state, tmp_path, "never loaded")


def test_nothing_of_a_sequential_is_loaded_in_part_or_twice(tmp_path):
    _, state = sequential_of_2020()
    twice = {**state, "feature.conv1.weight": state["feature.0.weight"]}
    refused(twice, tmp_path, r"missing none, unmatched 1 \(0\.weight\)", method=None)
    del state["feature.4.0.conv1.weight"]
    refused(state, tmp_path, r"missing 1 \(layer1\.0\.conv1\.weight\)", method=None)


def test_a_stage_or_stem_of_another_shape(tmp_path):
    _, state = small()
    refused({**state, "conv1.weight": torch.ones(64, 3, 3, 3)}, tmp_path, "7x7 stem")
    wide = {**state, "layer3.0.conv1.weight": torch.ones(80, 32, 3, 3)}
    refused(wide, tmp_path, r"layer3\.0\.conv1\.weight has shape \(80, 32, 3, 3\)")
    refused({**state, "bn1.bias": torch.full((64,), np.nan)}, tmp_path, "NaN")


def test_an_incomplete_segmentation_network(glcnet_keys, tmp_path):
    _, state = small("backbone.", "rgbn")
    width = {2048: 128, 256: 16, 304: 64, 48: 48}  # in_channels of the small backbone
    shapes = {
        key: [shape[0], width.get(shape[1], shape[1]), *shape[2:]]
        if ("ASPP" in key and len(shape) == 4) or key == "decoder.conv1.weight"
        else shape
        for key, shape in glcnet_keys.items()
        if key.startswith(("encoder", "decoder"))
    }
    whole = {**state, **by_rule(shapes)}
    done = convert(saved(whole, tmp_path / "whole.pth"), tmp_path / "whole")
    assert len(done.segmentation) == 54
    broken = {**whole, "decoder.bn1.bias": torch.full((48,), np.nan)}
    refused(broken, tmp_path, r"NaN or infinite values in decoder\.bn1\.bias", method=None)
    del whole["encoder.ASPP._image_pool.2.bias"]
    refused(whole, tmp_path, r"lacks encoder\.ASPP\._image_pool\.2\.bias", method=None)


def test_bands_are_checked(tmp_path):
    _, state = small("feature.", "rgbn")
    file = saved(state, tmp_path / "x.pth")
    refused(file, tmp_path, "takes 4 bands: say which", method=None)
    refused(file, tmp_path, "takes 4 bands but --bands names 3", method=None, bands="rgb")
    done = convert(file, tmp_path / "out", bands="nir,red,green,blue")
    assert done.bands == ("nir", "red", "green", "blue")
    _, trunk = small("_feature_blocks.", "rgbn")
    file = saved(trunk, tmp_path / "y.pth")
    with pytest.raises(UserError, match="statistics of false are known for 3"):
        convert(file, tmp_path / "other", method="false", bands="rgbn")


def test_files_that_do_not_tell_their_method(tmp_path):
    _, state = small()
    refused(state, tmp_path, "say --method tov or --method dino or --method last", method=None)
    refused(small("module.encoder_q.")[1], tmp_path, "say --method sticl", method=None)
    refused(small("backbone.")[1], tmp_path, "say --method glcnet", method=None)


def test_another_method_than_the_file(tmp_path):
    _, state = small("feature.")
    wrong = "not laid out as glcnet files are, but as those of rsisc"
    refused(state, tmp_path, wrong, method="glcnet")
    refused({"state_dict": {"a.b": ONE}}, tmp_path, r"begins with state_dict\)")
    refused({}, tmp_path, "begins with nothing")
    refused([ONE], tmp_path, "holds a list and not a dictionary")
    refused(state, tmp_path, "Unknown method 'simclr'", method="simclr")


class Malicious:
    """Writes a file when unpickled."""

    def __init__(self, target):
        self.command = f"touch {target}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle2", "pickle4", "buried", "module"])
def test_a_file_that_would_run_code_is_refused(form, tmp_path):
    target, file = tmp_path / "owned", tmp_path / "TOV-RS.pth.tar"
    bad = Malicious(target)
    if form == "module":
        bad = torch.nn.Linear(2, 2)  # a whole pickled model is code too
    if form in ("zip", "legacy", "module"):
        torch.save(bad, file, _use_new_zipfile_serialization=form != "legacy")
    elif form == "buried":
        torch.save({"state_dict": small()[1], "args": argparse.Namespace(x=[bad])}, file)
    else:
        file.write_bytes(pickle.dumps(bad, protocol=int(form[-1])))
    said = refused(file, tmp_path, r"would run code when loaded.* so it was not loaded")
    assert form in ("pickle4", "module") or f"({os.system.__module__}.system)" in said
    assert not target.exists()
    if form != "module":
        pickle.loads(pickle.dumps(Malicious(target)))  # the file does what it is refused for
        assert target.exists()


def test_values_that_training_scripts_save_are_read(tmp_path):
    content = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "n": np.int64(3)}
    found = read_checkpoint(saved(content, tmp_path / "x.pth"))
    assert found["args"].lr == 0.1 and found["best"] == 0.5 and found["n"] == 3
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("kind", ["truncated", "legacy", "empty", "text", "safetensors", "folder"])
def test_a_broken_file_is_one_sentence(kind, tmp_path):
    file = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    torch.save(small()[1], file, _use_new_zipfile_serialization=kind != "legacy")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    if kind in ("empty", "text"):
        file.write_bytes(b"<html>quota exceeded</html>" if kind == "text" else b"")
    if kind == "folder":
        refused(tmp_path, tmp_path, "is not a file")
    else:
        refused(file, tmp_path, "cut short or no checkpoint")


def test_nothing_but_a_model_is_replaced(tmp_path):
    model, state = small()
    (tmp_path / "work").mkdir()
    file = saved(state, tmp_path / "work" / "TOV-RS.pth")
    with pytest.raises(UserError, match=r"lies in .* would be replaced"):
        convert(file, tmp_path / "work")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for name in ("other", "other/thesis.tex"):
        with pytest.raises(UserError, match="no model's folder"):
            convert(file, tmp_path / name)
    assert file.exists() and (tmp_path / "other" / "thesis.tex").exists()
    convert(file, tmp_path / "out")
    check_small(convert(file, tmp_path / "out"), model)


# --- command -------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    _, state = small()
    file = saved({"state_dict": state}, tmp_path / "x.pth.tar")
    argv = [str(file), "--output", str(tmp_path / "out")]
    assert run_script(main, argv) == 2
    assert "say --method tov" in capsys.readouterr().err
    assert run_script(main, [*argv, "--method", "tov", "--data", "TOV-RS-imbalanced"]) == 0
    shown = capsys.readouterr().out
    assert hashlib.sha256(file.read_bytes()).hexdigest() in shown
    assert "unmatched: none" in shown and "may you use and publish these weights?" in shown
    assert backbones.load(str(tmp_path / "out")).config.rs_models["data"] == "TOV-RS-imbalanced"


def test_a_failed_check_is_exit_code_1(tmp_path, capsys, monkeypatch):
    def differs(*_, **__):
        raise RuntimeError("Features of the timm weights differ")

    monkeypatch.setattr("rs_models.convert_upstream.run.export", differs)
    file = saved(small()[1], tmp_path / "TOV-RS.pth")
    assert run_script(main, [str(file), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: Features of the timm weights differ.\n"


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rs_models.convert_upstream.run.export", full)
    refused(small()[1], tmp_path, r"Cannot write .*: No space left on device\.")


def test_the_module_runs():
    shown = subprocess.run(
        [sys.executable, "-m", "rs_models.cli", "convert-upstream", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert all(method in shown.stdout for method in UPSTREAM)
    assert shown.stderr == ""


def test_random_numbers_do_not_move(tmp_path):
    file = saved(small()[1], tmp_path / "TOV-RS.pth")
    state = torch.get_rng_state()
    convert(file, tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), state)
