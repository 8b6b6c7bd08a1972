"""What learns, at which rate, by which loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models import backbones
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.tasks import classification, segmenters
from rs_models.tasks.finetuning.config import FinetuneConfig, FinetuneData
from rs_models.tasks.finetuning.data import open_split
from rs_models.tasks.finetuning.learner import Learner, balanced_weights, parameter_groups
from rs_models.tasks.finetuning.network import build
from rs_models.tasks.finetuning.plan import Plan
from rs_models.tasks.finetuning.start import find_start
from rs_models.tasks.table import task
from tests.support.models import images, nano, provenance

NAMES = {0: "a", 1: "b", 2: "c"}


def deeplab(**settings):
    return segmenters.DeepLabV3PlusForSemanticSegmentation.over(
        nano("resnet_nano"), num_labels=3, decoder_channels=8, low_level_channels=4, **settings
    )


def test_a_frozen_backbone_keeps_weights_and_statistics():
    learner = Learner(deeplab(), task("segmentation"), frozen=True)
    before = {k: v.clone() for k, v in learner.model.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    labels = torch.randint(3, (2, 64, 64))
    for _ in range(2):
        learner.train()(images(), labels)["loss"].backward()
        optimizer.step()
    for key, value in learner.model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert learner.model.decoder.training


def test_frozen_statistics_leave_the_weights_free():
    learner = Learner(deeplab(), task("segmentation"), freeze_norm=True).train()
    before = {k: v.clone() for k, v in learner.model.backbone.named_buffers()}
    learner(images(), torch.randint(3, (2, 64, 64)))["loss"].backward()
    assert all(torch.equal(v, before[k]) for k, v in learner.model.backbone.named_buffers())
    assert all(p.grad is not None for p in learner.model.backbone.parameters())


@pytest.mark.parametrize("name", ["resnet_nano", "swin_nano", "vit_nano"])
def test_rates_fall_towards_the_stem(name):
    model = classification.over(nano(name), NAMES)
    config = FinetuneConfig(
        tune="layer_decay", layer_decay=0.5, learning_rate=1.0, head_learning_rate=4.0
    )
    learner = Learner(model, task("classification"))
    rates = {
        id(p): group["lr"] for group in parameter_groups(learner, config) for p in group["params"]
    }
    assert len(rates) == len(list(learner.parameters()))
    by_name = {key: rates[id(p)] for key, p in learner.model.named_parameters()}
    assert {v for k, v in by_name.items() if k.startswith("classifier")} == {4.0}
    inside = {k: v for k, v in by_name.items() if not k.startswith("classifier")}
    depth = 3 if name == "vit_nano" else 4
    stem = [v for k, v in inside.items() if "embeddings" in k or "embedder" in k]
    assert set(stem) == {0.5 ** (depth + 1)} and max(inside.values()) == 0.5
    decayed = parameter_groups(learner, config)
    for group in decayed:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_loss_leaves_out_what_is_ignored_and_weighs_classes():
    torch.manual_seed(0)
    weights = torch.tensor([1.0, 3.0, 0.5])
    learner = Learner(deeplab(), task("segmentation"), class_weights=weights).eval()
    labels = torch.randint(3, (2, 64, 64))
    labels[:, :20] = 255
    x = images()
    output = learner(x, labels)
    reference = torch.nn.functional.cross_entropy(
        learner(x)["logits"], labels, weights, ignore_index=255
    )
    torch.testing.assert_close(output["loss"], reference)
    nothing = learner(x, torch.full_like(labels, 255))["loss"]
    assert nothing.item() == 0.0
    plain = Learner(learner.model, task("segmentation")).eval()
    torch.testing.assert_close(plain(x, labels)["loss"], learner.model(x, labels).loss)


@pytest.mark.parametrize("name", ["resnet_nano", "swin_nano", "vit_nano"])
def test_classifiers_are_transformers_own(tmp_path, name):
    from transformers import AutoModelForImageClassification

    backbone = nano(name, image_size=224 if name == "swin_nano" else 64)
    model = classification.over(backbone, NAMES, multilabel=True)
    x = images(size=224 if name == "swin_nano" else 64)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert again.config.id2label == NAMES
    assert again.config.problem_type == "multi_label_classification"
    with torch.no_grad():
        found = classification.classify(model, x)
        torch.testing.assert_close(again(x).logits, found, rtol=1e-4, atol=1e-4)
        features = backbones.pooled(backbone, x)
        torch.testing.assert_close(backbones.pooled(model.base_model, x), features)
        small = classification.classify(model, images(size=40))  # no plain Swin takes that
    assert small.shape == (2, 3)


def split(kind="segmentation", bands=("red", "green", "blue")):
    return open_split(FinetuneData("synthetic:num=24,size=32"), "train", kind, bands)


def planned(start, config, part, bands, classes):
    return Plan(config, task(config.task), start, bands, part, None, part, 32, classes)


def test_balanced_weights_are_inverse_frequencies():
    part = split("classification")
    rows = np.arange(24)
    weights = balanced_weights(part, rows, 12)
    counts = np.bincount(part.labels, minlength=12)
    np.testing.assert_allclose(weights * counts, 2.0)
    masks = balanced_weights(split(), rows[:3], 14)
    there = np.unique([np.asarray(split().rows[i]["mask"]) for i in range(3)])
    assert set(np.flatnonzero(masks)) == set(there) - {255}


def test_a_start_is_looked_up_before_any_data(tmp_path):
    random = find_start(FinetuneConfig(model="baseline:random-resnet_nano"))
    assert random.kind == "random" and random.preprocessing is None
    for model, message in (
        ("baseline:random-resnet9", "Unknown backbone"),
        ("baseline:image-statistics", "no weights to fine-tune"),
        (str(tmp_path / "nowhere"), "nowhere"),
    ):
        with pytest.raises(UserError, match=message):
            find_start(FinetuneConfig(model=model))
    deeplab().save_pretrained(tmp_path / "s")
    with pytest.raises(UserError, match="how its images are normalised"):
        find_start(FinetuneConfig(model=str(tmp_path / "s"), task="segmentation"))
    with pytest.raises(UserError, match="is a segmentation network"):
        find_start(FinetuneConfig(model=str(tmp_path / "s")))


def test_bands_that_the_weights_have_not_seen_take_the_datas_statistics(tmp_path):
    backbone = nano("resnet_nano")
    export(backbone, tmp_path / "m", provenance=provenance(backbone), timm=False)
    config = FinetuneConfig(
        model=str(tmp_path / "m"), task="segmentation", head="fcn", data=FinetuneData("synthetic")
    )
    bands = ("red", "green", "blue", "nir")
    part = split(bands=bands)
    plan = planned(find_start(config), config, part, bands, ["a", "b"])
    network = build(plan, np.arange(8))
    known = network.preprocessing
    assert known.image_mean[:3] == pytest.approx((0.3, 0.31, 0.32))
    nir = np.concatenate([part.image(i)[..., 3].ravel()[::4] for i in range(8)]) / 255
    assert known.image_mean[3] == pytest.approx(nir.mean(), abs=1e-3)
    assert network.model.backbone.config.num_channels == 4
    assert network.model.config.backbone_config.rs_models["bands"] == list(bands)


def test_a_pretrained_decoder_is_kept_but_for_its_output(tmp_path):
    model = deeplab()
    model.config.rs_models = provenance(nano("resnet_nano"), output_stride=16)
    model.save_pretrained(tmp_path / "run" / "segmentation")
    config = FinetuneConfig(model=str(tmp_path / "run" / "segmentation"), task="segmentation")
    start = find_start(config)
    assert start.name == "run-with-decoder"
    rgb = ("red", "green", "blue")
    network = build(planned(start, config, split(), rgb, ["a", "b", "c"]), np.arange(4))
    mine, theirs = network.model.state_dict(), model.state_dict()
    changed = {key for key in theirs if not torch.equal(mine[key], theirs[key])}
    assert changed == {"decoder.output.weight", "decoder.output.bias"}
    assert network.model.config.id2label == NAMES
    with pytest.raises(UserError, match="takes red, green, blue"):
        build(planned(start, config, split(), (*rgb, "nir"), ["a", "b"]), np.arange(4))
