"""ONNX files give torch's answers at other batches and sizes than those of the export."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rs_models import backbones
from rs_models.cli import main
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.predict import from_model, load_predictor
from rs_models.predict.model import Predictor
from rs_models.preprocessing import Preprocessing
from rs_models.tasks.classification import classify, over
from rs_models.tasks.faster_rcnn import FasterRcnnConfig, FasterRcnnForObjectDetection
from rs_models.tasks.segmenters import (
    DeepLabV3PlusForSemanticSegmentation,
    FcnForSemanticSegmentation,
)
from rs_models.tasks.upernet import over as upernet
from tests.support.models import images, nano, provenance, shaken

onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")

RGB = Preprocessing(("red", "green", "blue"), (0.0, 255.0), (0.5,) * 3, (0.25,) * 3, 64)


def answers(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session, session.run(None, {"pixel_values": x.numpy()})


def close(found, wanted):
    scale = float(wanted.abs().max())
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["resnet_nano", pytest.param("vit_nano", marks=pytest.mark.slow)])
def test_a_backbone_takes_any_batch_and_size(tmp_path, name, capsys):
    backbone = nano(name)
    folder = export(backbone, tmp_path / "m", provenance=provenance(backbone), timm=False)
    assert main(["onnx", str(folder), "--output", f"{tmp_path}/m.onnx"]) == 0
    assert "pooled, dense, any batch, any image size" in capsys.readouterr().out
    for shape in ((5, 96, 64), (1, 64, 128)):
        x = images(size=shape[1:], batch=shape[0])
        session, (pooled, dense) = answers(tmp_path / "m.onnx", x)
        with torch.no_grad():
            wanted = backbones.pooled_and_dense(backbones.load(str(folder)), x)
        close(pooled, wanted[0])
        close(dense, wanted[1])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["rs_models"])["image_mean"] == pytest.approx([0.3, 0.31, 0.32])
    assert facts["task"] == "embedding"
    assert b"rs_models/backbones.py" not in (tmp_path / "m.onnx").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "m.onnx"]


@pytest.mark.slow
def test_a_swin_takes_any_batch_of_one_size(tmp_path):
    from rs_models.export.onnx import export_onnx

    backbone = nano("swin_nano")
    predictor = Predictor(
        "embedding", backbone, RGB, [], "swin", "1", 32, lambda x: backbones.dense(backbone, x)
    )
    done = export_onnx(predictor, tmp_path / "m.onnx", size=96)
    assert done.size == (96, 96)
    x = images(size=96, batch=4)
    with torch.no_grad():
        wanted = backbones.pooled_and_dense(backbone, x)
    for found, expected in zip(answers(tmp_path / "m.onnx", x)[1], wanted, strict=True):
        close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["classification", "vit", "deeplabv3plus", "fcn", "upernet"])
def test_heads_come_along(tmp_path, head):
    from rs_models.export.onnx import export_onnx

    backbone = nano("vit_nano" if head == "vit" else "resnet_nano")
    if head in ("classification", "vit"):
        model = shaken(over(backbone, {0: "a", 1: "b", 2: "c"}))
        predictor = from_model(model, "classification", RGB)
    else:
        made = {
            "deeplabv3plus": lambda: DeepLabV3PlusForSemanticSegmentation.over(
                backbone, num_labels=3, decoder_channels=16, low_level_channels=8
            ),
            "fcn": lambda: FcnForSemanticSegmentation.over(backbone, num_labels=3),
            "upernet": lambda: upernet(
                backbone, 3, hidden_size=16, use_auxiliary_head=False, pool_scales=[1, 2]
            ),
        }[head]()
        model = shaken(made)
        predictor = from_model(model, "segmentation", RGB)
    done = export_onnx(predictor, tmp_path / "m.onnx")
    assert done.size == ((64, 64) if head == "upernet" else None)
    x = images(size=done.size or (96, 128), batch=3)
    with torch.no_grad():
        whole = classify(model, x) if head in ("classification", "vit") else model(x).logits
    session, (found,) = answers(tmp_path / "m.onnx", x)
    close(found, whole)
    assert len(json.loads(session.get_modelmeta().custom_metadata_map["classes"])) == 3


def test_what_cannot_be_exported_is_said(tmp_path, capsys):
    from rs_models.export.onnx import export_onnx

    config = backbones.backbone_config("resnet_nano", image_size=64)
    config.rs_models = RGB.record()
    detector = FasterRcnnForObjectDetection(
        FasterRcnnConfig(backbone_config=config, num_labels=2, pyramid_channels=8, head_dim=8)
    )
    detector.save_pretrained(tmp_path / "d")
    with pytest.raises(UserError, match="is a detector"):
        export_onnx(load_predictor(str(tmp_path / "d")), tmp_path / "d.onnx")
    assert main(["onnx", str(tmp_path / "d"), "--output", "x.txt"]) == 2
    assert "should end in .onnx" in capsys.readouterr().err
    assert not (tmp_path / "d.onnx").exists()


def test_a_diverged_model_is_no_file(tmp_path):
    from rs_models.export.onnx import export_onnx

    backbone = nano("resnet_nano")
    with torch.no_grad():
        backbone.embedder.embedder.convolution.weight[0, 0, 0, 0] = float("nan")
    predictor = from_model(over(backbone, {0: "a", 1: "b"}), "classification", RGB)
    with pytest.raises(UserError, match="answers NaN or infinite values"):
        export_onnx(predictor, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
