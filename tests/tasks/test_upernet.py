"""transformers' UperNet on our backbones: their weights, their bands, no custom code."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from rs_models import backbones, upernet
from rs_models.errors import UserError
from rs_models.export import export
from tests.support.models import images, nano, provenance

SMALL = {"hidden_size": 16, "auxiliary_channels": 8}


@pytest.fixture(params=["resnet_nano", "swin_nano"])
def trained(request, tmp_path):
    backbone = nano(request.param)
    export(backbone, tmp_path / "model", provenance=provenance(backbone), timm=False)
    return backbone, str(tmp_path / "model")


def test_the_backbone_keeps_its_maps(trained):
    backbone, folder = trained
    model = upernet(folder, 5, **SMALL)
    with torch.no_grad():
        ours = model.backbone(images()).feature_maps
        if backbone.config.model_type == "swin":
            # Windows as transformers' own backbone class has them, and a fresh norm behind each
            # stage.
            output = backbone(
                images(),
                output_hidden_states=True,
                output_hidden_states_before_downsampling=True,
                always_partition=True,
            )
            expected = [
                torch.nn.functional.layer_norm(m.movedim(1, -1), m.shape[1:2]).movedim(-1, 1)
                for m in output.reshaped_hidden_states[1:]
            ]
        else:
            expected = backbones.stages(backbone, images())
    assert len(ours) == len(expected) == 4
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_it_trains_and_comes_back_by_transformers_alone(trained, tmp_path):
    _, folder = trained
    model = upernet(folder, 5, bands="rgbn", **SMALL).train()
    labels = torch.randint(0, 5, (2, 64, 64))
    labels[:, :30] = 255
    output = model(images(4), labels=labels)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    model.eval().save_pretrained(tmp_path / "saved")
    restored = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            restored(images(4)).logits, model(images(4)).logits, rtol=0, atol=1e-6
        )
    assert model.config.backbone_config.rs_models["method"] == "tov"


def test_one_resolution_is_not_enough(tmp_path):
    vit = nano("vit_nano")
    export(vit, tmp_path / "v", provenance=provenance(vit), timm=False)
    with pytest.raises(UserError, match="has no stages"):
        upernet(str(tmp_path / "v"), 5)
