"""Faster R-CNN on native backbones: torchvision's results, transformers' labels and outputs."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModelForObjectDetection, ResNetConfig

import rs_models
from rs_models import FasterRcnnConfig, FasterRcnnForObjectDetection, backbones
from rs_models.errors import UserError
from rs_models.evaluation.metrics import detection_scores
from rs_models.export import export
from tests.support.models import images, nano, provenance

SMALL = {"pyramid_channels": 16, "head_dim": 32, "detections": 20, "num_labels": 3}


def detector(name="resnet_nano", bands="rgb", **settings):
    torch.manual_seed(0)
    config = backbones.backbone_config(name, bands=bands, image_size=64)
    return FasterRcnnForObjectDetection(
        FasterRcnnConfig(backbone_config=config, **{**SMALL, **settings})
    ).eval()


def labels(*counts):
    generator = torch.Generator().manual_seed(3)
    rows = []
    for count in counts:
        sides = torch.rand(count, 2, generator=generator) * 0.2 + 0.2
        centres = torch.rand(count, 2, generator=generator) * 0.4 + 0.3
        rows.append(
            {
                "class_labels": torch.randint(0, 3, (count,), generator=generator),
                "boxes": torch.cat([centres, sides], 1),
            }
        )
    return rows


@pytest.mark.parametrize("name", ["resnet_nano", "swin_nano"])
@pytest.mark.parametrize("bands", ["rgb", "rgbn"])
def test_losses_train_every_weight_and_images_may_be_empty(name, bands):
    model = detector(name, bands).train()
    output = model(images(4 if bands == "rgbn" else 3), labels=labels(2, 0))
    assert set(output.loss_dict) == {
        *("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    }
    assert output.logits is None
    output.loss.backward()
    assert torch.isfinite(output.loss)
    idle = [
        key
        for key, p in model.named_parameters()
        if p.grad is None and "pooler" not in key and "layernorm" not in key
    ]
    assert not idle
    only_empty = model(images(4 if bands == "rgbn" else 3), labels=labels(0, 0)).loss
    assert torch.isfinite(only_empty)
    with pytest.raises(UserError, match="training mode needs labels"):
        model(images(4 if bands == "rgbn" else 3))


def test_evaluation_gives_boxes_and_with_labels_the_loss_too():
    model = detector()
    x = images()
    with torch.no_grad():
        plain, both = model(x), model(x, labels=labels(2, 1))
    assert plain.loss is None
    assert torch.isfinite(both.loss)
    assert not model.rpn.training
    assert plain.logits.shape == (2, 20, 4)
    assert plain.pred_boxes.shape == (2, 20, 4)
    torch.testing.assert_close(both.pred_boxes, plain.pred_boxes)
    with pytest.raises(UserError, match="3 images do not fit 2"):
        model(x, labels=labels(1, 1, 1))


def test_the_same_detections_as_torchvisions_own():
    """fasterrcnn_resnet50_fpn's parts with our weights, its transform switched off."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.rpn import AnchorGenerator

    # Untrained scores hardly differ: without suppression and threshold every box is compared.
    settings = {"score_threshold": 0.0, "anchor_scales": (8.0,), "detections": 50}
    model = detector(**settings)

    class Body(torch.nn.Module):
        out_channels = 16

        def forward(self, x):
            return model.body(backbones.stages(model.backbone, x))

    theirs = FasterRCNN(
        Body(),
        rpn_anchor_generator=AnchorGenerator(
            tuple((8.0 * 4 * 2**i,) for i in range(5)), ((0.5, 1.0, 2.0),) * 5
        ),
        box_head=model.roi_heads.box_head,
        box_predictor=model.roi_heads.box_predictor,
        rpn_head=model.rpn.head,
        box_score_thresh=0.0,
        box_detections_per_img=50,
        image_mean=[0, 0, 0],
        image_std=[1, 1, 1],
        min_size=64,
        max_size=64,
    ).eval()
    x = images()
    with torch.no_grad():
        expected = theirs(list(x))
        output = model(x)
    found = model.post_process_object_detection(output, 0.0, [(64, 64)] * 2)
    for ours, them in zip(found, expected, strict=True):
        order = them["scores"].argsort(descending=True, stable=True)
        torch.testing.assert_close(ours["scores"], them["scores"][order], rtol=1e-4, atol=1e-5)
        assert len(ours["boxes"]) == len(them["boxes"]) > 5
        # Equal scores may stand in another order: compare what belongs to each box.
        for box, score in zip(ours["boxes"], ours["scores"], strict=True):
            near = (them["boxes"] - box).abs().amax(1) < 1e-2
            assert near.any()
            assert (them["scores"][near] - score).abs().min() < 1e-4


def test_boxes_come_out_as_transformers_processors_give_them():
    from transformers import DetrImageProcessor

    model = detector(score_threshold=0.0)
    with torch.no_grad():
        output = model(images())
    ours = model.post_process_object_detection(output, 0.3, [(64, 64), (128, 32)])
    theirs = DetrImageProcessor().post_process_object_detection(
        output, 0.3, torch.tensor([[64, 64], [128, 32]])
    )
    for one, two in zip(ours, theirs, strict=True):
        order = two["scores"].argsort(descending=True, stable=True)
        torch.testing.assert_close(one["scores"], two["scores"][order])
        torch.testing.assert_close(one["boxes"], two["boxes"][order])
        assert one["labels"].tolist() == two["labels"][order].tolist()


def test_saved_and_restored_whole(tmp_path):
    model = detector(id2label={0: "car", 1: "ship", 2: "plane"})
    model.save_pretrained(tmp_path)
    restored = AutoModelForObjectDetection.from_pretrained(tmp_path).eval()
    assert type(restored) is FasterRcnnForObjectDetection
    assert restored.config.id2label[2] == "plane"
    with torch.no_grad():
        torch.testing.assert_close(
            restored(images()).logits, model(images()).logits, rtol=0, atol=0
        )


def test_a_trained_backbone_keeps_its_features(tmp_path):
    backbone = nano("resnet_nano")
    export(backbone, tmp_path / "m", provenance=provenance(backbone), timm=False)
    model = rs_models.FasterRcnnForObjectDetection.from_backbone(str(tmp_path / "m"), **SMALL)
    torch.testing.assert_close(
        backbones.pooled(model.backbone, images()), backbones.pooled(backbone, images())
    )
    assert model.config.backbone_config.rs_models["method"] == "tov"
    four = FasterRcnnForObjectDetection.from_backbone(str(tmp_path / "m"), bands="rgbn", **SMALL)
    assert four(images(4)).logits.shape == (2, 20, 4)
    with pytest.raises(UserError, match="no setting anchors"):
        FasterRcnnForObjectDetection.from_backbone(str(tmp_path / "m"), anchors=3)
    vit = nano("vit_nano")
    export(vit, tmp_path / "v", provenance=provenance(vit), timm=False)
    with pytest.raises(UserError, match="has no stages"):
        FasterRcnnForObjectDetection.from_backbone(str(tmp_path / "v"), **SMALL)
    with pytest.raises(StrictDataclassClassValidationError, match="ResNet or a Swin"):
        FasterRcnnConfig(backbone_config=ResNetConfig().to_dict() | {"model_type": "vit"})


@pytest.mark.slow
def test_it_learns_a_few_images_by_heart():
    """Bright squares on dark ground: AP50 above 0.8 within some hundred steps."""
    generator = torch.Generator().manual_seed(0)
    x, rows = torch.randn(4, 3, 64, 64, generator=generator) * 0.1, []
    for i in range(4):
        left, top = (int(v) for v in torch.randint(4, 40, (2,), generator=generator))
        x[i, :, top : top + 18, left : left + 18] += 3 if i % 2 else -3
        centre = [(left + 9) / 64, (top + 9) / 64, 18 / 64, 18 / 64]
        rows.append({"class_labels": torch.tensor([i % 2]), "boxes": torch.tensor([centre])})
    model = detector(num_labels=2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(x, labels=rows).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model.post_process_object_detection(model(x), 0.05, [(64, 64)] * 4)
    true = []
    for row in rows:
        cx, cy, w, h = (row["boxes"][0] * 64).tolist()
        box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        true.append({"boxes": [box], "labels": row["class_labels"]})
    assert detection_scores(found, true)["map_50"] > 0.8
