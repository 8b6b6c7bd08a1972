"""What every method must do, over every backbone family; a new method adds a row to METHODS."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForPreTraining

import rs_models  # noqa: F401  (registers the methods)
from rs_models import backbones
from rs_models.bands import resolve_bands
from rs_models.export import export, export_segmentation
from rs_models.methods import METHODS, method_classes
from rs_models.methods.base import SslModel, collapse_meters
from rs_models.signals.views import ViewBatch, ViewMaker
from tests.support.models import shaken

SIZE = 32
BACKBONES = ["resnet_nano", "swin_nano", "vit_nano"]


# What a method needs to be small enough for tests.
SMALL = {
    "sticl": {"queue_size": 48, "transfer_probability": 0.5, "transfer_samples": 50},
    "last": {
        **{"prototypes": 32, "head_hidden_dim": 64, "head_bottleneck_dim": 16},
        **{"local_views": 2, "local_size": 16},
    },
}
VARIANTS = {
    "rsisc-inpainting": {"signal": "inpainting"},
    "rsisc-autoencoder": {"signal": "autoencoder", "decoder_dim": 24},
    "rsisc-relative-position": {"signal": "relative_position"},
    "last-regions": {"region_matching": True, "scale_alignment": "ground", **SMALL["last"]},
    "glcnet-local": {"global_weight": 0.0},
    "glcnet-global": {"global_weight": 1.0, "style": False},
    "false-row": {"scope": "row", "threshold": -1.0, "projector_relu": True},
    "rsisc-crops": {"local_views": 2, "local_size": 16},
    "tov-crops": {"local_views": 1, "local_size": 32},
    "false-crops": {"scope": "row", "threshold": -1.0, "local_views": 2, "local_size": 16},
}


def fits(name: str, backbone: str) -> bool:
    """Whether a method (or variant) works on a backbone."""
    types = method_classes(name.partition("-")[0])[1].backbone_types
    if name in ("rsisc-inpainting", "rsisc-autoencoder"):
        types = ("resnet",)
    return backbone.partition("_")[0] in types


PAIRS = [(n, b) for n in METHODS for b in BACKBONES if fits(n, b)]
ALL_PAIRS = [(n, b) for n in (*METHODS, *VARIANTS) for b in BACKBONES if fits(n, b)]


def make(
    name: str, backbone: str, bands: str = "rgb", image_size: int = SIZE, **settings
) -> SslModel:
    """A small method by its name or that of a variant."""
    settings = {**SMALL.get(name, {}), **VARIANTS.get(name, {}), **settings}
    config_class, model_class = method_classes(name.partition("-")[0])
    channels = len(resolve_bands(bands))
    torch.manual_seed(0)
    return model_class(
        config_class(
            backbone_config=backbones.backbone_config(backbone, bands=bands, image_size=image_size),
            bands=bands if bands != "rgb" else ["red", "green", "blue"],
            image_mean=[0.5] * channels,
            image_std=[0.5] * channels,
            image_size=image_size,
            **settings,
        )
    )


def views_of(model: SslModel, images: int = 6) -> ViewBatch:
    config = model.config
    generator = torch.Generator().manual_seed(1)
    side = config.image_size + 8
    pixels = torch.randint(0, 256, (images, len(config.bands), side, side), generator=generator)
    maker = ViewMaker(
        model.recipe,
        bands=config.bands,
        image_mean=config.image_mean,
        image_std=config.image_std,
        value_range=tuple(config.value_range),
    )
    return maker(pixels.to(torch.uint8), 0)


@pytest.mark.parametrize(("name", "backbone"), ALL_PAIRS)
def test_loss_is_finite_and_trains_every_weight(name, backbone):
    model = make(name, backbone).train()
    model.freeze()
    model.before_step(0, 10)
    output = model(views_of(model))
    output.loss.backward()
    assert output.loss.ndim == 0
    assert torch.isfinite(output.loss)
    assert output.embeddings.shape == (6, backbones.feature_dim(model.config.backbone_config))
    assert not output.embeddings.requires_grad
    assert all(not term.requires_grad and term.ndim == 0 for term in output.terms.values())
    teachers = {p for _, teacher in model.momentum_pairs() for p in teacher.parameters()}
    for key, parameter in model.named_parameters():
        if parameter in teachers:
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
        elif parameter.requires_grad and "pooler" not in key and "mask_token" not in key:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            # Adding a constant to all keys of an attention changes nothing: its bias gets none.
            if parameter.ndim > 1 or "bias" not in key:
                assert parameter.grad.any(), key


@pytest.mark.parametrize(("name", "backbone"), ALL_PAIRS)
def test_bfloat16_gives_a_loss_near_that_of_float32(name, backbone):
    """Under autocast, as the loop runs it; weights, queue and centre stay float32.

    At twice the size, so that the last stage of a ResNet sees more than one pixel: torch 2.14 reads
    memory that nobody wrote in the weight gradient of a bfloat16 convolution of stride 2 over one
    pixel, on CPUs with AVX-512 BF16 or AMX.
    """
    local = {"local_size": SIZE} if name.startswith("last") or name.endswith("crops") else {}
    losses = []
    for enabled in (False, True):
        model = make(name, backbone, image_size=2 * SIZE, **local).train()
        batch = views_of(model)
        torch.manual_seed(0)  # dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(batch).loss
        loss.backward()
        losses.append(loss.item())
        assert loss.dtype == torch.float32
        assert all(b.dtype != torch.bfloat16 for b in model.buffers())
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.parametrize(("name", "backbone"), ALL_PAIRS)
def test_saved_method_is_restored_whole_by_the_auto_class(name, backbone, tmp_path):
    model = make(name, backbone).train()
    model(views_of(model))  # queue and centre are not those of the start
    model.eval().save_pretrained(tmp_path)
    restored = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    assert type(restored) is type(model)
    state = restored.state_dict()
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=0, atol=0, msg=key)
    batch = views_of(model)
    with torch.no_grad():
        torch.testing.assert_close(restored(batch).loss, model(batch).loss, rtol=0, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_builds_from_a_config_alone(name):
    config = AutoConfig.for_model(
        f"rs_{name}",
        backbone_config={"model_type": "resnet", "depths": [1, 1, 1], "hidden_sizes": [8, 16, 24]},
    )
    model = AutoModelForPreTraining.from_config(config)
    assert model.backbone.config.hidden_sizes == [8, 16, 24]
    assert model.config.bands == ["red", "green", "blue"]


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_four_bands_reach_the_stem(name):
    model = make(name, "resnet_nano", bands="rgbn")
    assert model.config.bands == ["red", "green", "blue", "nir"]
    assert torch.isfinite(model(views_of(model)).loss)


@pytest.mark.parametrize(("name", "backbone"), PAIRS)
def test_starts_from_trained_weights(name, backbone, tmp_path):
    trained = backbones.build(backbone, image_size=SIZE)
    trained.save_pretrained(tmp_path)
    _, model_class = method_classes(name)
    model = model_class.from_backbone(str(tmp_path), image_size=SIZE, **SMALL.get(name, {}))
    for key, tensor in trained.state_dict().items():
        torch.testing.assert_close(model.backbone.state_dict()[key], tensor, msg=key)
        torch.testing.assert_close(model.exported.state_dict()[key], tensor, msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_teachers_follow_the_closed_form(name):
    """After k updates a teacher that stood still is 1 - m^k of the way to its student."""
    model = make(name, "resnet_nano")
    start = {k: v.clone() for k, v in model.named_parameters()}
    names = {id(p): n for n, p in model.named_parameters()}
    with torch.no_grad():
        for student, _ in model.momentum_pairs():
            for parameter in student.parameters():
                parameter.add_(1.0)
    for _ in range(5):
        model.update_momentum(0.9)
    for student, teacher in model.momentum_pairs():
        for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(mine, start[names[id(mine)]] + (1 - 0.9**5))
            torch.testing.assert_close(theirs, start[names[id(theirs)]] + 1)
    assert bool(model.momentum_pairs()) == (name in ("sticl", "last"))


def provenance(model: SslModel) -> dict:
    config = model.config
    return {
        **{"method": "m", "bands": config.bands, "value_range": list(config.value_range)},
        **{"image_mean": list(config.image_mean), "image_std": list(config.image_std)},
        **{"train_size": SIZE, "output_stride": backbones.output_stride(config.native)},
        **{"data": "d", "data_revision": None, "epochs": 1, "version": "0", "commit": None},
    }


@pytest.mark.parametrize(("name", "backbone"), PAIRS)
def test_export_gives_the_features_of_the_method(name, backbone, tmp_path):
    """The student's, or the teacher's for LaST; a GLCNet's, dilated as it was trained."""
    model = make(name, backbone)
    shaken(model)
    folder = export(model, tmp_path / "export", provenance=provenance(model), timm=False)
    loaded = backbones.load(str(folder))
    if name == "glcnet":  # written as everybody loads it
        backbones.dilate(loaded, model.config.output_stride, first_block_dilated=True)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbones.pooled(model.exported.eval(), x)
        torch.testing.assert_close(backbones.pooled(loaded, x), expected, rtol=1e-4, atol=1e-5)
    if name == "last":
        assert not torch.equal(model.exported.state_dict()[key_of(model)], first_of(model))


def key_of(model: SslModel) -> str:
    return next(key for key, value in model.exported.state_dict().items() if value.ndim > 1)


def first_of(model: SslModel) -> torch.Tensor:
    return model.backbone.state_dict()[key_of(model)]


@pytest.mark.parametrize("name", ["tov", "glcnet-global"])
def test_a_method_without_a_decoder_leaves_no_segmentation_checkpoint(name, tmp_path):
    model = make(name, "resnet_nano")
    assert export_segmentation(model, tmp_path / "s", provenance=provenance(model)) is None
    assert not (tmp_path / "s").exists()


def test_glcnets_segmentation_checkpoint_carries_encoder_and_decoder(tmp_path):
    from rs_models.tasks.segmenters import DeepLabV3PlusForSemanticSegmentation

    model = make("glcnet", "resnet_nano", encoder_dim=16).eval()
    shaken(model)
    folder = export_segmentation(model, tmp_path / "s", provenance=provenance(model))
    network = DeepLabV3PlusForSemanticSegmentation.from_pretrained(
        folder, num_labels=5, ignore_mismatched_sizes=True
    ).eval()
    assert network.config.rs_models["output_stride"] == 16
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert network(x).logits.shape == (2, 5, SIZE, SIZE)
        theirs, mine = (
            (part.encoder(maps[-1]), maps[0])
            for part in (network, model)
            for maps in [backbones.stages(part.backbone, x)]
        )
        torch.testing.assert_close(theirs[0], mine[0])
        # All of the decoder but its last layer, whose outputs are classes now.
        network.decoder.output, model.decoder.output = torch.nn.Identity(), torch.nn.Identity()
        torch.testing.assert_close(network.decoder(*theirs), model.decoder(*mine))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_mean": [0.5]}, "image_mean has 1 values for 3 bands"),
        ({"bands": ["red", "purple"]}, "purple"),
        ({"backbone_config": {"model_type": "resnet", "num_channels": 4}}, "4 channels"),
        ({"image_size": "big"}, "image_size"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(settings, words):
    config_class, _ = method_classes("tov")
    with pytest.raises(Exception, match=words):
        config_class(**settings)


def test_tov_loss_is_simclr_on_its_own_projections():
    from rs_models.signals.losses import nt_xent

    model = make("tov", "resnet_nano").train()
    batch = views_of(model)
    z = model.projector(model.features(batch.crops[0]))
    torch.testing.assert_close(model(batch).loss, nt_xent(z[:6], z[6:], temperature=0.5))


def test_meters_tell_collapsed_features_from_spread_ones():
    spread = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    meters = collapse_meters(spread)
    assert 0.9 < meters["feature_std"] < 1.1
    assert abs(meters["mean_cosine"]) < 0.05
    assert 50 < meters["effective_rank"] <= 63
    same = spread[:1] + 1e-4 * spread
    meters = collapse_meters(same)
    assert meters["mean_cosine"] > 0.999
    assert meters["feature_std"] < 0.01
    line = torch.outer(torch.linspace(-1, 1, 64), spread[0])
    assert collapse_meters(line)["effective_rank"] < 1.5
