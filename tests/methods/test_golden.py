"""Whole methods against the numbers of the authors' own functions and networks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rs_models import backbones
from rs_models.methods.glcnet import GlcnetConfig, GlcnetForPreTraining, style
from rs_models.methods.heads import DinoHead, mlp
from rs_models.methods.last import LastForPreTraining
from rs_models.methods.rsisc import RsiscConfig, RsiscForPreTraining, central_mask
from rs_models.methods.sticl import SticlConfig, SticlForPreTraining
from rs_models.signals.losses import masked_reconstruction, nt_xent, region_nt_xent
from rs_models.signals.regions import pool_regions
from tests.methods.test_methods import make
from tests.support.golden_weights import (
    TOLERANCE,
    fill_by_rule,
    glcnet_name,
    golden_input,
    renamed,
    torchvision_name,
)


@pytest.fixture(scope="module")
def networks(golden):
    return np.load(golden / "architectures.npz")


def tensor(vectors, key: str) -> torch.Tensor:
    return torch.from_numpy(vectors[key])


# --- whole networks, weights by the rule of their official names ---------------------------------
def rsisc(**settings) -> RsiscForPreTraining:
    return RsiscForPreTraining(RsiscConfig(image_size=64, **settings))


def test_instance_discrimination_network(networks):
    def official(key: str) -> str:
        return re.sub(r"^projector\.", "g.", torchvision_name(key, "backbone.", "feature."))

    model = fill_by_rule(rsisc(), official)
    with torch.no_grad():
        out = model.projector(model.features(golden_input("rs2020")))
    torch.testing.assert_close(out, tensor(networks, "rs2020_simclr/out"), **TOLERANCE)


def test_inpainting_network(networks):
    names = renamed(
        [
            # The authors' stem is a sequence of convolution, norm and ReLU.
            (r"^conv1\.", "conv1.0."),
            (r"^bn1\.", "conv1.1."),
            (r"^decoder\.bottleneck\.", "bottleneck_conv."),
            (r"^decoder\.up(\d)\.", r"decoder\1."),
            (r"^decoder\.final\.", "conv_final.0."),
        ]
    )
    model = fill_by_rule(
        rsisc(signal="inpainting"), lambda key: names(torchvision_name(key, "backbone."))
    )
    assert sum(p.numel() for p in model.parameters()) == 39_986_627
    with torch.no_grad():
        out, _ = model.decoder(model.backbone, golden_input("rs2020"))
    sampled = out[..., ::4, ::4]
    torch.testing.assert_close(sampled, tensor(networks, "rs2020_inpaint/out"), **TOLERANCE)


def test_relative_position_network(networks):
    # The authors' trunk is a sequence: convolution, norm, ReLU, pooling, four stages, compression.
    names = renamed(
        [
            (r"^conv1\.", "feature.0."),
            (r"^bn1\.", "feature.1."),
            (r"^layer1\.", "feature.4."),
            (r"^layer2\.", "feature.5."),
            (r"^layer3\.", "feature.6."),
            (r"^layer4\.", "feature.7."),
            (r"^solver\.compress\.", "feature.8."),
            (r"^solver\.cell\.", "fc5."),
            (r"^solver\.puzzle\.", "fc6."),
            (r"^solver\.order\.", "classifier.0."),
        ]
    )
    model = fill_by_rule(
        rsisc(signal="relative_position"), lambda key: names(torchvision_name(key, "backbone."))
    )
    assert sum(p.numel() for p in model.parameters()) == 38_240_344
    cells = golden_input("rs2020_jigsaw").transpose(0, 1).flatten(0, 1)  # place-major
    with torch.no_grad():
        out = model.solver(backbones.dense(model.backbone, cells))
    torch.testing.assert_close(out, tensor(networks, "rs2020_jigsaw2/out"), **TOLERANCE)


def test_sticl_encoder(networks):
    def official(key: str) -> str:
        return re.sub(r"^projector\.", "fc.", torchvision_name(key, "backbone."))

    model = fill_by_rule(SticlForPreTraining(SticlConfig(image_size=64, queue_size=8)), official)
    with torch.no_grad():
        out = F.normalize(model.projector(model.features(golden_input("sticl"))), dim=1)
        raw = model.projector(model.features(golden_input("sticl")))
    expected = tensor(networks, "sticl_encoder_q/out")
    unit = torch.allclose(expected.norm(dim=1), torch.ones(len(expected)), atol=1e-4)
    torch.testing.assert_close(out if unit else raw, expected, **TOLERANCE)


def test_glcnet_network_heads_and_regions(networks):
    def official(key: str) -> str:
        key = re.sub(r"^projector\.", "proj.", key)
        return glcnet_name(re.sub(r"^region_projector\.", "proj1.", key))

    bands = ["red", "green", "blue", "nir"]
    config = GlcnetConfig(
        bands=bands, image_mean=[0.5] * 4, image_std=[0.5] * 4, image_size=64, patch_size=16
    )
    model = fill_by_rule(GlcnetForPreTraining(config), official)
    assert sum(p.numel() for p in model.parameters()) == 40_522_464
    assert len(model.state_dict()) == 382
    rois = tensor(networks, "glcnet/rois")  # (B, R, [image, box, image, box])
    boxes = torch.stack([rois[..., 1:5], rois[..., 6:10]]).long()
    with torch.no_grad():
        for view, suffix in enumerate(("q", "k")):
            x = golden_input(f"glcnet_x{view + 1}")
            maps = backbones.stages(model.backbone, x)
            encoded = model.encoder(maps[-1])
            z = model.projector(style(encoded))
            torch.testing.assert_close(z, tensor(networks, f"glcnet/{suffix}"), **TOLERANCE)
            pooled = pool_regions(model.decoder(encoded, maps[0]), boxes[view], 64)
            z = model.region_projector(pooled)
            torch.testing.assert_close(z, tensor(networks, f"glcnet/{suffix}1"), **TOLERANCE)


# --- GLCNet's two losses -------------------------------------------------------------------------
def head(vectors) -> nn.Sequential:
    first, second = tensor(vectors, "proj_w0"), tensor(vectors, "proj_w1")
    layers = mlp(first.shape[1], first.shape[0], second.shape[0])
    weights = {"0.weight": first, "0.bias": tensor(vectors, "proj_b0")}
    weights |= {"2.weight": second, "2.bias": tensor(vectors, "proj_b1")}
    layers.load_state_dict(weights)
    return layers


def test_glcnet_style_and_both_losses(golden):
    styled = np.load(golden / "glcnet_style.npz")
    for view in "ab":
        described = style(tensor(styled, f"feat_{view}"))
        np.testing.assert_allclose(described, styled[f"style_{view}"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            tensor(styled, f"feat_{view}").mean(dim=(2, 3)), styled[f"avg_{view}"], rtol=1e-5
        )
    project = head(styled)
    z = [project(style(tensor(styled, f"feat_{view}"))) for view in "ab"]
    far = nt_xent(*z, temperature=0.5, positive_in_denominator=False)
    np.testing.assert_allclose(far.item(), styled["global_loss_tau0_5"], rtol=1e-5)

    local = np.load(golden / "glcnet_local.npz")
    rois, size, project = tensor(local, "rois"), int(local["input_size"]), head(local)
    boxes = torch.stack([rois[..., 1:5], rois[..., 6:10]]).long()
    z = [
        project(pool_regions(tensor(local, f"dec_{view}"), boxes[i], size))
        for i, view in enumerate("ab")
    ]
    near = region_nt_xent(*z, temperature=0.5)
    np.testing.assert_allclose(near.item(), local["local_loss_tau0_5"], rtol=1e-5)
    total = 0.5 * far + 0.5 * near
    np.testing.assert_allclose(total.item(), local["total_loss_lambda0_5"], rtol=1e-5)


# --- MoCo's two steps ----------------------------------------------------------------------------
class _Calls(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class _Body(nn.Module):
    """The toy encoder of the golden file in the place of a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x))


def test_moco_two_steps(golden, monkeypatch):
    vectors = np.load(golden / "moco_v2.npz")
    settings = {"queue_size": int(vectors["K"]), "projector_dim": 4, "transfer_probability": 0.0}
    model = make("sticl", "resnet_nano", **settings)
    monkeypatch.setattr(backbones, "pooled", lambda module, x: module(x))
    model.backbone, model.key_backbone = _Body(), _Body()
    model.projector, model.key_projector = mlp(5, 5, 4), mlp(5, 5, 4)
    ours = {
        "encoder_q.body": model.backbone.body,
        "encoder_q.fc.0": model.projector[0],
        "encoder_q.fc.2": model.projector[2],
        "encoder_k.body": model.key_backbone.body,
        "encoder_k.fc.0": model.key_projector[0],
        "encoder_k.fc.2": model.key_projector[2],
    }
    with torch.no_grad():
        for name, layer in ours.items():
            layer.weight.copy_(tensor(vectors, f"init/{name}.weight"))
            layer.bias.copy_(tensor(vectors, f"init/{name}.bias"))
        model.queue.copy_(tensor(vectors, "init/queue"))
    for _, teacher in model.momentum_pairs():
        teacher.requires_grad_(False)
    model.train()
    batch = type("Batch", (), {})()
    batch.crops = [torch.cat([tensor(vectors, "in/xq"), tensor(vectors, "in/xk")])]
    for step in (1, 2):
        model.before_step(step - 1, 2)
        loss = model(batch).loss
        if step == 1:
            loss.backward()
        np.testing.assert_allclose(loss.item(), vectors[f"step{step}/loss"], rtol=1e-5)
        # The file's queue "after step 1" is a view of the one after step 2: from it only the first
        # step's columns are taken, the others are still those of the start.
        expected = vectors["init/queue"].copy()
        expected[:, : 4 * step] = vectors[f"step{step}/queue"][:, : 4 * step]
        np.testing.assert_allclose(model.queue, expected, rtol=1e-5, atol=1e-6)
        assert model.queue_place.tolist() == vectors[f"step{step}/queue_ptr"].tolist()
    for name, layer in ours.items():
        prefix = "grad" if "encoder_q" in name else "final"
        for kind in ("weight", "bias"):
            found = getattr(layer, kind)
            found = (found.grad if prefix == "grad" else found).detach().numpy()
            expected = vectors[f"{prefix}/{name}.{kind}"]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# --- DINO ----------------------------------------------------------------------------------------
def test_dino_sequence_of_losses_and_centres(golden, monkeypatch):
    """Three calls of the method's own forward, whose backbones and heads hand the vectors on."""
    vectors = np.load(golden / "dino.npz")
    settings = {"prototypes": 16, "local_views": 2, "teacher_temperature": 0.07}
    settings |= {"teacher_temperature_start": 0.04, "teacher_temperature_warmup": 0.5}
    model = make("last", "resnet_nano", **settings)
    monkeypatch.setattr(backbones, "pooled", lambda module, x: module(x))
    model.backbone = model.teacher_backbone = model.head = nn.Identity()
    model.train()
    batch = type("Batch", (), {})()
    for epoch in (0, 1, 4):  # of 6: the hook's step counts epochs here
        model.before_step(epoch, 6)
        expected = vectors["teacher_temp_schedule"][epoch]
        np.testing.assert_allclose(model.teacher_temperature, expected, rtol=1e-12)
        student = tensor(vectors, f"ep{epoch}/student").requires_grad_()
        taught = tensor(vectors, f"ep{epoch}/teacher")
        model.teacher_head = _Calls(lambda _, taught=taught: taught)
        batch.crops = [student[:6], student[6:]]
        loss = model(batch).loss
        loss.backward()
        np.testing.assert_allclose(loss.item(), vectors[f"ep{epoch}/loss"], rtol=1e-5)
        np.testing.assert_allclose(
            student.grad, vectors[f"ep{epoch}/grad_student"], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            model.center, vectors[f"ep{epoch}/center_after"], rtol=1e-5, atol=1e-6
        )


def test_dino_head(golden):
    vectors = np.load(golden / "dino.npz")
    head = DinoHead(8, 6, hidden_dim=16, bottleneck_dim=4)
    weights = {k: tensor(vectors, f"head/sd/{k}") for k in head.state_dict() if "mlp" in k}
    assert (vectors["head/sd/last_layer.weight_g"] == 1).all()
    weights["last_layer.weight"] = tensor(vectors, "head/sd/last_layer.weight_v")
    head.load_state_dict(weights)
    np.testing.assert_allclose(
        head(tensor(vectors, "head/x")).detach(), vectors["head/y"], rtol=1e-5, atol=1e-6
    )


def test_region_matching_of_esvit(golden):
    """View and region loss through the method's own forward."""
    vectors = np.load(golden / "esvit_region.npz")
    batch_size, globals_ = 2, 2 * 2 * int(vectors["npatch_global"])
    settings = {"prototypes": 6, "local_views": int(vectors["ncrops"]) - 2}
    model = make("last-regions", "resnet_nano", **settings).train()

    def regions(name: str) -> list[torch.Tensor]:
        flat = tensor(vectors, name)
        width = flat.shape[1]
        parts = [flat[:globals_].view(2 * batch_size, -1, width)]
        if len(flat) > globals_:
            parts.append(flat[globals_:].view(settings["local_views"] * batch_size, -1, width))
        return parts

    features = {"student": regions("s_fea"), "teacher": regions("t_fea")}
    views = [tensor(vectors, "s_cls")[:4], tensor(vectors, "s_cls")[4:]]

    def see(backbone, x):
        if backbone is model.teacher_backbone:
            return tensor(vectors, "t_cls"), features["teacher"][0]
        return views[int(x)], features["student"][int(x)]

    model._see = see
    model.head = model.teacher_head = nn.Identity()
    outputs = {"student": iter(torch.cat([p.flatten(0, 1) for p in regions("s_region")]).split(1))}

    def region_head(part: torch.Tensor) -> torch.Tensor:  # called once a view, in order
        rows = [next(outputs["student"]) for _ in range(part.shape[0] * part.shape[1])]
        return torch.cat(rows).view(*part.shape[:2], -1)

    taught = iter(regions("t_region")[0].split(batch_size))
    model.region_head = _Calls(region_head)
    model.teacher_region_head = _Calls(lambda part: next(taught))
    batch = type("Batch", (), {})()
    # Stand-ins whose lengths count the views: the student's features come from `see`.
    batch.crops = [_Views(0, 4), _Views(1, 4)]
    loss = model(batch).loss
    np.testing.assert_allclose(loss.item(), vectors["loss"], rtol=1e-5)
    np.testing.assert_allclose(model.center, vectors["center"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.region_center, vectors["center_grid"], rtol=1e-5, atol=1e-6)


class _Views:
    def __init__(self, number: int, length: int) -> None:
        self.number, self.length = number, length

    def __len__(self) -> int:
        return self.length

    def __int__(self) -> int:
        return self.number

    def __getitem__(self, _: slice) -> _Views:
        return self


# --- inpainting ----------------------------------------------------------------------------------
def test_inpainting_mask_and_loss(golden):
    vectors = np.load(golden / "inpainting.npz")
    target, visible = tensor(vectors, "target"), tensor(vectors, "central_mask")
    hidden = central_mask(target)
    torch.testing.assert_close(hidden.expand_as(visible), 1 - visible)
    loss = masked_reconstruction(tensor(vectors, "output"), target, hidden)
    np.testing.assert_allclose(loss.item(), vectors["loss"], rtol=1e-5)
    for weight, key in ((0.0, "rec"), (1.0, "con")):
        part = masked_reconstruction(
            tensor(vectors, "output"), target, hidden, visible_weight=weight
        )
        np.testing.assert_allclose(part.item(), vectors[key], rtol=1e-5)


def test_last_is_dino_by_default():
    assert LastForPreTraining.config_class(image_size=64).native.model_type == "swin"
