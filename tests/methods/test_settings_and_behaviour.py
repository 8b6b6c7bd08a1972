"""Baselines as settings, and what each method does beyond its loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rs_models import backbones
from rs_models.errors import UserError
from rs_models.methods.base import SslModel
from rs_models.methods.glcnet import GlcnetConfig
from rs_models.methods.last import LastConfig, LastForPreTraining
from rs_models.signals.losses import nt_xent
from rs_models.signals.multi_crop import multi_crop_nt_xent
from rs_models.signals.views import RECIPES, ViewBatch
from tests.methods.test_methods import SIZE, SMALL, make, views_of


# --- settings that are baselines -----------------------------------------------------------------
def projected(model: SslModel, batch: ViewBatch) -> torch.Tensor:
    return model.projector(model.features(batch.crops[0]))


def test_rsisc_is_simclr():
    model = make("rsisc", "resnet_nano").train()
    batch = views_of(model)
    z = projected(model, batch)
    torch.testing.assert_close(model(batch).loss, nt_xent(z[:6], z[6:], temperature=0.5))


@pytest.mark.parametrize("scope", ["batch", "row"])
def test_false_without_confidence_is_simclr(scope):
    settings = {"confidence": 0.0, "threshold": -1.0, "scope": scope, "recipe": "simclr"}
    model = make("false", "resnet_nano", **settings).train()
    batch = views_of(model)
    z = projected(model, batch)
    simclr = nt_xent(z[:6], z[6:], temperature=0.5)
    torch.testing.assert_close(model(batch).loss, simclr)
    full = make("false", "resnet_nano", **{**settings, "confidence": 1.0}).train()
    assert not torch.isclose(full(batch).loss, simclr)


def test_sticl_without_transfer_is_moco_v2():
    """Its views are MoCo's alone, and its loss is InfoNCE over positive and queue."""
    settings = {"transfer_probability": 0.0, "recipe": "moco_v2"}
    model = make("sticl", "resnet_nano", **settings).train()
    assert model.recipe == RECIPES["moco_v2"](SIZE)
    batch, queue = views_of(model), model.queue.clone()
    for_query, for_key = batch.crops[0].chunk(2)
    q = F.normalize(model.projector(model.features(for_query)), dim=1)
    with torch.no_grad():
        key = model.key_projector(backbones.pooled(model.key_backbone, for_key))
        k = F.normalize(key, dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue], dim=1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(model(batch).loss, expected)
    torch.testing.assert_close(model.queue[:, :6], k.T)
    assert make("sticl", "resnet_nano").recipe.transfer is not None


def test_last_on_a_vit_is_dino():
    """Cross entropy of every student view with every other teacher view, by a loop."""
    model = make("last", "vit_nano").train()
    model.before_step(0, 10)
    batch = views_of(model)
    with torch.no_grad():
        model.center.normal_()
        center = model.center.clone()
        student = torch.cat(
            [model.head(backbones.pooled(model.backbone, crop)) for crop in batch.crops]
        )
        teacher = model.teacher_head(backbones.pooled(model.teacher_backbone, batch.crops[0]))
        pairs = []
        for q in range(2):
            target = ((teacher[q * 6 : q * 6 + 6] - center) / 0.04).softmax(dim=1)
            for v in range(4):
                if v != q:
                    log_p = (student[v * 6 : v * 6 + 6] / 0.1).log_softmax(dim=1)
                    pairs.append(-(target * log_p).sum(dim=1).mean())
    torch.testing.assert_close(model(batch).loss.detach(), torch.stack(pairs).mean())
    moved = 0.9 * center + 0.1 * teacher.mean(dim=0, keepdim=True)
    torch.testing.assert_close(model.center, moved)


# --- what else a user would miss -----------------------------------------------------------------
def test_false_counts_recalibrated_pairs_and_the_rightly_suspected():
    model = make("false-row", "resnet_nano").train()
    batch = views_of(model)
    assert "truly_false_negatives" not in model(batch).terms
    batch.labels = torch.zeros(6, dtype=torch.long)
    terms = model(batch).terms
    assert terms["recalibrated"] == terms["truly_false_negatives"] == 12  # one an anchor
    batch.labels = torch.arange(6)
    assert model(batch).terms["truly_false_negatives"] == 0


def test_false_without_confidence_recalibrates_nothing():
    model = make("false-row", "resnet_nano", confidence=0.0).train()
    assert model(views_of(model)).terms["recalibrated"] == 0


@pytest.mark.parametrize("signal", ["inpainting", "autoencoder"])
def test_a_restored_image_has_no_loss_whatever_the_statistics(signal):
    """A decoder that gives the image back on [-1, 1] has no loss, also for measured statistics."""
    from rs_models.methods.rsisc import RsiscConfig, RsiscForPreTraining

    statistics = {"image_mean": [0.1, 0.2, 0.3, 0.4], "image_std": [0.05, 0.1, 0.1, 0.2]}
    config = RsiscConfig(
        backbone_config=backbones.backbone_config("resnet_nano", bands="rgbn", image_size=SIZE),
        **{"bands": "rgbn", "signal": signal, "image_size": SIZE, **statistics},
    )
    model = RsiscForPreTraining(config).eval()
    stored = torch.rand(2, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))  # 0 to 1
    mean, std = (torch.tensor(v).view(1, 4, 1, 1) for v in statistics.values())

    class Perfect(torch.nn.Module):
        def forward(self, backbone, x):
            return 2 * stored - 1, x

    model.decoder = Perfect()
    loss = model(ViewBatch(crops=[(stored - mean) / std])).loss
    torch.testing.assert_close(loss, torch.tensor(0.0), rtol=0, atol=1e-10)


def test_an_autoencoder_sees_the_whole_image_and_hands_on_its_last_map_alone():
    model = make("rsisc-autoencoder", "resnet_nano").eval()
    batch = views_of(model)
    seen = []
    stem = model.backbone.embedder.embedder
    stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    output, deepest = model.decoder(model.backbone, batch.crops[0])
    assert torch.equal(seen[0], batch.crops[0])  # nothing is hidden
    # With the last map held, the earlier ones change nothing: there is no way around it.
    last = model.backbone.encoder.stages[-1]
    last.register_forward_hook(lambda *_: torch.zeros_like(deepest))
    blank = model.decoder(model.backbone, batch.crops[0])[0]
    other = model.decoder(model.backbone, batch.crops[0].flip(0) * 2)[0]
    assert torch.equal(blank, other)
    assert not torch.equal(output, blank)


def test_suspects_are_found_at_a_small_temperature():
    from rs_models.signals.losses import suspected_false_negatives

    z1, z2 = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    mask = suspected_false_negatives(z1, z1 + 0.01 * z2, temperature=0.01, scope="row")
    assert mask.sum() == 16  # one an anchor, where infinities would leave none or all


def test_queue_that_no_batch_divides_is_refused():
    model = make("sticl", "resnet_nano", queue_size=20).train()
    with pytest.raises(UserError, match="queue_size=20 must be a multiple of the 6 keys"):
        model(views_of(model))


def test_queue_wraps_around():
    model = make("sticl", "resnet_nano", queue_size=8)
    keys = [
        F.normalize(torch.full((4, 128), float(i)) + torch.eye(4, 128), dim=1) for i in range(3)
    ]
    for key in keys:
        model.enqueue(key)
    torch.testing.assert_close(model.queue, torch.cat([keys[2], keys[1]]).T)
    assert model.queue_place.item() == 4


def test_last_freezes_its_prototypes_at_first_and_ends_with_a_still_teacher():
    model = make("last", "swin_nano", freeze_last_layer=0.1).train()
    model.freeze()
    batch = views_of(model)
    for step, frozen in ((9, True), (10, False)):
        model.zero_grad()
        model.before_step(step, 100)
        model(batch).loss.backward()
        model.before_update(step, 100)
        assert (model.head.last_layer.weight.grad is None) == frozen
        assert model.head.mlp[0].weight.grad is not None
    before = model.teacher_head.mlp[0].weight.clone()
    with torch.no_grad():
        model.head.mlp[0].weight.add_(1.0)
    model.after_step(100, 100)
    torch.testing.assert_close(model.teacher_head.mlp[0].weight, before)


def test_last_teacher_drops_no_paths():
    model = make("last", "swin_nano")
    assert model.backbone.config.drop_path_rate > 0
    assert model.teacher_backbone.config.drop_path_rate == 0


def test_swin_takes_small_crops_and_the_large_size_still_works_afterwards():
    settings = {**SMALL["last"], "local_views": 1, "local_size": 96}
    config = backbones.backbone_config("swin_nano", image_size=224)
    model = LastForPreTraining(LastConfig(backbone_config=config, image_size=224, **settings))
    model.eval()
    large = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.backbone(large).pooler_output
        batch = ViewBatch(crops=[torch.cat([large, large]), large[..., :96, :96]])
        assert torch.isfinite(model(batch).loss)
        after = model.backbone(large).pooler_output
    torch.testing.assert_close(after, before)


def test_scale_alignment_puts_local_crops_into_global_ones_at_one_ground_scale():
    views = make("last", "swin_nano", scale_alignment="ground").recipe.views
    assert [view.inside for view in views] == [None, None, 0, 1]
    assert views[2].scale == (0.25, 0.25)  # 16 of 32 pixels
    assert all(view.inside is None for view in make("last", "swin_nano").recipe.views)


def test_local_crops_of_the_global_size_are_allowed():
    model = make("last", "resnet_nano", local_size=SIZE).train()
    batch = views_of(model)
    assert len(batch.crops) == 1
    assert torch.isfinite(model(batch).loss)


def test_a_teachers_norms_keep_the_statistics_of_its_own_features():
    model = make("last", "resnet_nano").train()
    model.before_step(0, 10)
    model(views_of(model))
    own = {key: value.clone() for key, value in model.teacher_backbone.named_buffers()}
    model.after_step(0, 10)
    student = dict(model.backbone.named_buffers())
    for key, value in model.teacher_backbone.named_buffers():
        torch.testing.assert_close(value, own[key], msg=key)
        if "running" in key:  # the student has seen local crops too
            assert not torch.equal(value, student[key]), key


def test_glcnet_leaves_the_config_that_it_is_given_alone():
    native = backbones.backbone_config("resnet_nano", image_size=SIZE)
    config = GlcnetConfig(backbone_config=native, image_size=SIZE)
    assert backbones.output_stride(config.native) == 16
    assert backbones.output_stride(native) == 32


@pytest.mark.parametrize(
    ("name", "recipe", "words"),
    [
        ("tov", "inpainting", "learns from two views of an image, and recipe 'inpainting' makes 1"),
        ("false", "jigsaw", "makes 1"),
        ("sticl", "last", "makes 10"),
        ("rsisc", "jigsaw", "choose 'rsisc'"),
        ("rsisc-inpainting", "simclr", "choose 'inpainting'"),
        ("rsisc-relative-position", "rsisc", "choose 'jigsaw'"),
        ("last", "simclr", "use 'last'"),
    ],
)
def test_a_recipe_of_other_views_is_refused(name, recipe, words):
    with pytest.raises(UserError, match=words):
        _ = make(name, "resnet_nano", recipe=recipe).recipe


@pytest.mark.parametrize(
    ("name", "backbone", "words"),
    [
        ("glcnet", "vit_nano", "works on resnet backbones, not on vit"),
        ("rsisc-inpainting", "swin_nano", "Inpainting and autoencoder need a ResNet"),
        ("rsisc-autoencoder", "swin_nano", "need a ResNet"),
    ],
)
def test_a_backbone_that_cannot_serve_is_refused(name, backbone, words):
    with pytest.raises(UserError, match=words):
        make(name, backbone)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("rsisc", {"signal": "colour"}, "signal"),
        ("rsisc", {"signal": "relative_position", "permutations": 25}, "2 to 24 orders"),
        ("false", {"confidence": 1.5}, "confidence is 1.5"),
        ("false", {"scope": "column"}, "scope"),
        ("sticl", {"transfer_probability": -0.1}, "transfer_probability is -0.1"),
        ("sticl", {"transfer_solver": "magic"}, "transfer_solver"),
        ("glcnet", {"global_weight": 2.0}, "global_weight is 2.0"),
        ("glcnet", {"patch_size": 32}, "patch_size is 32"),
        ("last", {"prototypes": 1}, "prototypes is 1"),
        ("last", {"scale_alignment": "sky"}, "scale_alignment"),
        ("last", {"local_size": 0}, "local_size is 0"),
        ("last", {"view_settings": {"scale": [0.2, 1.0]}}, "without scale, which global_scale"),
        ("tov", {"projector_dim": 0}, "projector_dim is 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, settings, words):
    with pytest.raises(Exception, match=words):
        make(name, "resnet_nano", **settings)


# --- small crops ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["rsisc", "tov", "false"])
def test_small_crops_are_views_of_their_own_size(name):
    settings = {"local_views": 4, "local_size": 16, "local_scale": [0.1, 0.5]}
    model = make(name, "resnet_nano", **settings).train()
    two, views = make(name, "resnet_nano").recipe.views, model.recipe.views
    assert views[:2] == two
    assert views[2:] == (views[2],) * 4
    assert (views[2].size, views[2].scale, views[2].jitter) == (16, (0.1, 0.5), two[1].jitter)
    batch = views_of(model)
    assert [tuple(crop.shape) for crop in batch.crops] == [
        (2 * 6, 3, SIZE, SIZE),
        (4 * 6, 3, 16, 16),
    ]
    h = torch.cat([backbones.pooled(model.backbone, crop) for crop in batch.crops])
    z = model.projector(h)
    if name != "false":
        loss = multi_crop_nt_xent(z, views=6, temperature=0.5)
        torch.testing.assert_close(model(batch).loss, loss)
    assert make(name, "resnet_nano", local_views=1).recipe.views[2].size == round(SIZE * 96 / 224)


def test_small_crops_of_false_without_confidence_are_those_of_simclr():
    settings = {"local_views": 2, "local_size": 16, "recipe": "simclr"}
    model = make("false", "resnet_nano", confidence=0.0, threshold=-1.0, **settings).train()
    batch = views_of(model)
    h = torch.cat([backbones.pooled(model.backbone, crop) for crop in batch.crops])
    loss = multi_crop_nt_xent(model.projector(h), views=4)
    torch.testing.assert_close(model(batch).loss, loss)
    full = make("false", "resnet_nano", scope="row", threshold=-1.0, **settings).train()
    assert full(batch).loss < loss
    assert full(batch).terms["recalibrated"] == 2 * 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"local_views": -1}, "local_views"),
        ({"local_views": 1, "local_size": 0}, "local_size"),
        ({"local_scale": [0.1]}, "local_scale"),
        ({"local_views": 1, "signal": "inpainting"}, "learns from one view"),
    ],
)
def test_small_crops_that_cannot_be_made_are_refused(settings, words):
    with pytest.raises(Exception, match=words):
        make("rsisc", "resnet_nano", **settings)
