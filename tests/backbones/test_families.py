"""Every family goes everywhere: heads, layer decay, bands, export, timm and ONNX, by one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

import rs_models
from rs_models import backbones, zoo
from rs_models.backbones.loading import load
from rs_models.backbones.timm_interop import timm_features
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.export.backbone import _timm_model
from rs_models.tasks import upernet
from rs_models.tasks.classification import classify, over
from rs_models.tasks.faster_rcnn import FasterRcnnForObjectDetection
from rs_models.tasks.segmenters import (
    DeepLabV3PlusForSemanticSegmentation,
    FcnForSemanticSegmentation,
)
from tests.support.models import NANOS, STAGED, assert_features, images, nano, provenance, shaken


def whole(name):
    """A size that plain calls of the family take."""
    return 224 if name == "swin_nano" else 64


@pytest.mark.parametrize("name", NANOS)
def test_a_classifier_is_transformers_own(name):
    model = shaken(over(nano(name, image_size=whole(name)), {0: "a", 1: "b", 2: "c"}))
    x = images(size=whole(name))
    with torch.no_grad():
        assert_features(classify(model, x), model(pixel_values=x).logits)
        assert classify(model, images(size=96)).shape == (2, 3)


@pytest.mark.parametrize("name", NANOS)
def test_networks_of_pixels_and_boxes_learn(name):
    backbone = nano(name)
    heads = [FcnForSemanticSegmentation.over(backbone, num_labels=3)]
    if name in STAGED:
        heads += [
            DeepLabV3PlusForSemanticSegmentation.over(
                backbone, num_labels=3, decoder_channels=8, low_level_channels=4
            ),
            upernet.over(backbone, 3, hidden_size=8, use_auxiliary_head=False, pool_scales=[1, 2]),
        ]
    labels = torch.randint(3, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    for head in heads:
        loss = head.train()(pixel_values=images(), labels=labels).loss
        loss.backward()
        without = [k for k, p in head.named_parameters() if p.requires_grad and p.grad is None]
        assert loss.isfinite() and not [k for k in without if "layernorm" not in k], without
    if name not in STAGED:
        with pytest.raises(UserError, match="use a ResNet or a Swin"):
            upernet.over(backbone, 3)
        with pytest.raises(UserError, match=r"needs a ResNet or a Swin|use a ResNet or a Swin"):
            FasterRcnnForObjectDetection.over(backbone, num_labels=2)
        return
    detector = FasterRcnnForObjectDetection.over(
        backbone, num_labels=2, pyramid_channels=8, head_dim=8
    )
    boxes = [{"boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]), "class_labels": torch.tensor([1])}] * 2
    assert detector.train()(images(), boxes).loss.isfinite()


@pytest.mark.parametrize("name", NANOS)
def test_layers_are_told_by_depth(name):
    model = nano(name)
    depths = backbones.family(model).depths(key for key, _ in model.named_parameters())
    last = max(depths.values())
    assert last == len(getattr(model.config, "depths", range(3)))
    assert set(depths.values()) == set(range(last + 1))
    assert depths[f"{backbones.family(model).stem}.weight"] == 0
    assert all(depth == last for key, depth in depths.items() if key.startswith("layernorm."))


@pytest.mark.parametrize("name", NANOS)
def test_stems_take_other_bands(name):
    model = nano(name)
    x = images()
    with torch.no_grad():
        before = backbones.pooled(model, x)
        backbones.restem(model, "rgb", ["blue", "green", "red"])
        assert_features(backbones.pooled(model, x.flip(1)), before)
        backbones.restem(model, ["blue", "green", "red"], "rgbn")
    assert backbones.pooled(model, images(4)).shape == before.shape


@pytest.mark.parametrize("name", NANOS)
def test_an_export_is_read_alike_by_automodel_by_timm_and_by_us(name, tmp_path):
    model = nano(name, image_size=whole(name))
    export(model, tmp_path / "m", provenance=provenance(model, train_size=whole(name)))
    x = images(size=whole(name))
    with torch.no_grad():
        expected = backbones.pooled(model, x)
        plain = AutoModel.from_pretrained(tmp_path / "m").eval()(x).pooler_output.flatten(1)
        assert_features(plain, expected, 1e-5)
        assert_features(backbones.pooled(load(str(tmp_path / "m")), x), expected, 1e-5)
        assert_features(timm_features(_timm_model(tmp_path / "m"), x), plain, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_nano", "convnextv2_nano", "dinov2_nano"])
def test_onnx_gives_torchs_answers(name, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from rs_models.export.onnx import export_onnx

    model = nano(name)
    export(model, tmp_path / "m", provenance=provenance(model), timm=False)
    done = export_onnx(str(tmp_path / "m"), tmp_path / "m.onnx")
    assert done.difference < 1e-4
    assert (done.size is None) == (not backbones.family(model).onnx_fixed)


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_the_zoo_and_the_card_know_each_family(name):
    config = backbones.backbone_config(name)
    kind = backbones.family(config)
    row = zoo.ZooModel("x", "tov", name, "x.yaml", "x")
    assert ("detection" in row.tasks) == kind.has_stages
    assert kind.describe(config.to_dict()).startswith(kind.long_title)


def test_nothing_outside_asks_for_a_model_type():
    """Methods of one family and the authors' files may; everything else asks the family."""
    root = Path(rs_models.__file__).parent
    asks = re.compile(
        r"model_type (==|!=|in|not in) [(\"]|(ResNet|Swin|ViT|ConvNext\w*)(Model|Config)\b"
    )
    exempt = {"backbones", "methods", "convert_upstream"}
    for path in root.rglob("*.py"):
        if path.relative_to(root).parts[0] not in exempt:
            code = re.sub(r'""".*?"""|#.*', "", path.read_text(encoding="utf-8"), flags=re.S)
            found = [m[0] for m in asks.finditer(code) if "upernet" not in code[m.end() :][:10]]
            assert not found, f"{path}: {found}"
