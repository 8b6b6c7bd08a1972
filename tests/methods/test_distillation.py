"""Distillation of trained models into one: what is compared, what is kept, what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForPreTraining

from rs_models import backbones
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.methods.distillation import Teacher
from rs_models.preprocessing import recorded
from rs_models.signals.losses import feature_distillation
from rs_models.trainer import loop, pretrain
from tests.methods.test_methods import make, views_of
from tests.support.models import nano, provenance
from tests.trainer.helpers import stopped_at, tiny


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folders of two backbones, of other statistics than the student's and of two families."""
    folders = []
    torch.manual_seed(0)
    for name in ("resnet_nano", "swin_nano"):
        folder = tmp_path_factory.mktemp("teachers") / name
        backbone = nano(name, image_size=32)
        export(backbone, folder, provenance=provenance(backbone, train_size=32), timm=False)
        folders.append(str(folder))
    return folders


def test_the_loss_compares_what_tells_images_apart():
    generator = torch.Generator().manual_seed(0)
    target = 5 + torch.rand(64, 16, generator=generator) * torch.linspace(0, 3, 16)  # one silent
    standard = (target - target.mean(0)) / target.std(0, correction=0).clamp_min(1e-6)
    assert feature_distillation(7 * standard, target) == pytest.approx(0, abs=1e-5)
    assert feature_distillation(-standard, target) == pytest.approx(2, abs=1e-5)
    # The features themselves, all alike, are no better than any constant.
    assert feature_distillation(target.mean(0).expand_as(target), target) == pytest.approx(
        1, abs=0.05
    )
    assert torch.nn.functional.cosine_similarity(target, target.mean(0)[None]).mean() > 0.95


def test_a_teacher_sees_the_pixels_as_it_was_trained_on(teachers):
    model = make("tov", "resnet_nano")
    teacher = Teacher.load(teachers[0], model.config, torch.device("cpu"))
    assert not any(p.requires_grad for p in teacher.model.parameters())
    stored = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5] * 3, [0.5] * 3))
    views = (stored / 255 - mean) / std  # the student's
    own = recorded(teacher.model.config).network_input(stored)
    with torch.no_grad():
        wanted = backbones.pooled(teacher.model, own)
    torch.testing.assert_close(teacher(views), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rsisc", "tov", "false", "tov-crops", "sticl", "last"])
def test_the_student_learns_from_teachers_and_keeps_none(teachers, tmp_path, name):
    plain = make(name, "resnet_nano").train()
    model = make(name, "resnet_nano", teachers=teachers, distillation_weight=0.5).train()
    assert list(model.config.teacher_widths) == [128, 128]
    more = model.state_dict().keys() - plain.state_dict().keys()
    assert {key.split(".")[0] for key in more} == {"predictors"} and len(more) == 4
    model.load_state_dict(plain.state_dict(), strict=False)
    batch = views_of(model)
    output = model(batch)
    far = output.terms["distillation"]
    torch.testing.assert_close(output.loss, plain(batch).loss + 0.5 * far)
    output.loss.backward()
    assert all(p.grad.any() for p in model.predictors.parameters())
    assert 0.5 < far < 1.5
    # The checkpoint is whole where no teacher is at hand.
    model.config.teachers = ["gone/away", "gone/too"]
    model.save_pretrained(tmp_path)
    restored = AutoModelForPreTraining.from_pretrained(tmp_path)
    assert restored.state_dict().keys() == model.state_dict().keys()


def distilled(model, batch):
    """The term of the teachers over thirty steps on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    values = []
    for _ in range(30):
        output = model(batch)
        values.append(output.terms["distillation"].item())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    return values


def test_predictions_come_to_agree_with_the_teachers(teachers):
    model = make("tov", "resnet_nano", teachers=teachers[:1], distillation_weight=100.0).train()
    batch = views_of(model)
    values = distilled(model, batch)
    assert values[-1] < 0.5 * values[0]


SMALL_LAST = {"prototypes": 16, "head_hidden_dim": 16, "head_bottleneck_dim": 8, "local_views": 2}


@pytest.mark.parametrize(
    ("name", "readout", "more"),
    [
        ("tov", "features", {}),
        ("tov", "stages", {}),
        ("sticl", "stages", {"queue_size": 16}),
        ("last", "stages", {**SMALL_LAST, "local_size": 16}),
    ],
)
def test_a_run_with_teachers_resumes_to_the_bit(
    teachers, tmp_path, monkeypatch, name, readout, more
):
    near = tmp_path / "near"
    shutil.copytree(teachers[0], near)
    method = {"name": name, "teachers": [str(near)], "teacher_readout": readout, **more}
    changes = {"method": method, "precision": "no"}
    pretrain(tiny(tmp_path / "whole", **changes))
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["distillation"] > 0 for line in lines)
    assert str(tmp_path) not in (tmp_path / "whole" / "run.yaml").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", stopped_at(4))
        assert pretrain(tiny(tmp_path / "cut", **changes)) is None
    pretrain(tiny(tmp_path / "cut", **changes, resume=True))
    one, two = (
        load_file(tmp_path / folder / "pretraining" / "model.safetensors")
        for folder in ("whole", "cut")
    )
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


STAGES = {"teachers": ["TEACHER"], "teacher_readout": "stages"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teachers": ["no/such/model"]}, "no/such/model"),
        ({"teachers": ["PRETRAINING"]}, "is no backbone but a 'rs_tov'"),
        ({"teachers": ["BARE"]}, "does not say what it was trained on"),
        ({"teachers": ["TEACHER"], "distillation_weight": -1.0}, "0 or more"),
        ({"teachers": ["TEACHER"], "teacher_widths": [1, 2]}, "one number for each of the 1"),
        ({"teachers": ["TEACHER"], "teacher_widths": [-1]}, "1 or more"),
        ({"teachers": ["TEACHER"], "teacher_widths": [64]}, "whose features have 128 numbers"),
        ({"teachers": [3]}, "a list of models' names"),
        ({"teachers": ["TEACHER"], "teacher_readout": "head"}, "teacher_readout"),
        ({"teachers": [], "teacher_readout": "stages"}, "left out without method.teachers"),
        ({**STAGES, "teacher_widths": [999]}, "whose stages have 240 numbers"),
        ({"name": "rsisc", "signal": "inpainting", "teachers": ["TEACHER"]}, "one view"),
    ],
)
def test_teachers_that_cannot_teach_are_told_before_training(teachers, tmp_path, change, words):
    places = {"TEACHER": teachers[0], "BARE": str(tmp_path / "bare")}
    places["PRETRAINING"] = str(tmp_path / "pretraining")
    nano("resnet_nano").save_pretrained(places["BARE"])
    model = make("tov", "resnet_nano")
    model.config.rs_models = provenance(model.backbone)
    model.save_pretrained(places["PRETRAINING"])
    named = [places.get(name, name) for name in change["teachers"]]
    with pytest.raises(UserError, match=words):
        pretrain(tiny(tmp_path / "run", method={"name": "tov", **change, "teachers": named}))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_bands_and_values_that_the_student_lacks_are_told(tmp_path):
    for bands, words in (("rgbn", "sees nir, which the bands"), ("sentinel2", "from 0 to 10000")):
        backbone = nano("resnet_nano", bands=bands)
        folder = tmp_path / bands
        export(backbone, folder, provenance=provenance(backbone, bands), timm=False)
        with pytest.raises(UserError, match=words):
            make("tov", "resnet_nano", teachers=[str(folder)])


def test_a_stage_may_bring_teachers_but_no_layers_of_another_size(tmp_path, teachers):
    first = {"epochs": 1, "method": {"name": "tov"}}
    taught = {"epochs": 1, "method": {"teachers": teachers[:1]}}
    pretrain(tiny(tmp_path / "run", method={"name": "tov"}, stages=[first, taught]))
    before, after = (
        load_file(tmp_path / "run" / part / "pretraining" / "model.safetensors")
        for part in ("stages/1", ".")
    )
    assert before.keys() < after.keys() and "predictors.0.weight" in after
    stages = [first, {"method": {"projector_dim": 12}}]
    with pytest.raises(UserError, match=r"A stage changes the size of \S+, from"):
        pretrain(tiny(tmp_path / "other", method={"name": "tov"}, stages=stages))


def test_of_stages_images_are_read_first_so_none_may_stream(teachers, tmp_path):
    method = {"name": "tov", "teachers": teachers, "teacher_readout": "stages"}
    data = {"name": "synthetic", "streaming": True}
    with pytest.raises(UserError, match="reads images before training"):
        tiny(tmp_path, method=method, data=data, max_steps=4).check()


def test_of_stages_a_view_learns_what_the_teachers_say_of_it(teachers):
    model = make("tov", "resnet_nano", teachers=teachers, teacher_readout="stages").train()
    batch = views_of(model)
    with pytest.raises(UserError, match="needs what whitens the teachers' stages"):
        model(batch)
    said = [
        Teacher.load(name, model.config, torch.device("cpu"), (torch.zeros(w), torch.eye(w)))
        for name, w in zip(teachers, model.config.teacher_widths, strict=True)
    ]
    raw = [teacher(batch.crops[0]) for teacher in said]
    own = backbones.load(teachers[0])
    maps = backbones.stages(own, batch.crops[0] * said[0].scale + said[0].offset)
    torch.testing.assert_close(
        raw[0], torch.cat([m.mean((2, 3)) for m in maps], 1), rtol=1e-4, atol=1e-5
    )
    model.teach([(x.mean(0), torch.diag(1 / x.std(0).clamp_min(1e-3))) for x in raw])
    values = distilled(model, batch)
    assert values[0] == pytest.approx(1, abs=0.1) and values[-1] < 0.7
    # It is each view's own that was learned.
    with torch.no_grad():
        features = model.view_features(batch)
        right = model.distillation(features, batch.crops[0])
        wrong = model.distillation(features, batch.crops[0].flip(0))
    assert right < wrong - 0.2


def test_stages_are_whitened_as_the_read_out_is(teachers, tmp_path, monkeypatch):
    import numpy as np

    from rs_models.data import build_cache, load
    from rs_models.evaluation.features import extract
    from rs_models.evaluation.loading import load_encoder
    from rs_models.evaluation.readout import Whitening, at_all_stages
    from rs_models.trainer import whitening

    monkeypatch.setenv("RS_MODELS_CACHE", str(tmp_path))
    cache = build_cache(load("synthetic:num=60,size=32", "train"), progress=False)
    model = make("tov", "resnet_nano", teachers=teachers, teacher_readout="stages")
    device = torch.device("cpu")
    found = whitening.stage_whitenings(model.config, cache, size=48, device=device)
    for name, width, (mean, matrix) in zip(
        teachers, model.config.teacher_widths, found, strict=True
    ):
        x = extract(at_all_stages(load_encoder(name)), cache, size=48, progress=False)
        assert x.shape == (60, width)
        said = ((torch.from_numpy(x) - mean) @ matrix).numpy()
        np.testing.assert_allclose(said, Whitening.fit(x)(x), rtol=1e-3, atol=1e-3)
    # Of many images some tell it for all, the same in every process and when a run goes on.
    monkeypatch.setattr(whitening, "_FITTED", 50)
    some, again = (
        whitening.stage_whitenings(model.config, cache, size=48, device=device) for _ in range(2)
    )
    assert torch.equal(some[0][1], again[0][1]) and not torch.equal(some[0][1], found[0][1])


def test_a_teacher_that_diverged_is_told_in_a_sentence(teachers, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(teachers[0], broken)
    weights = load_file(broken / "model.safetensors")
    key = next(k for k, v in weights.items() if k.endswith("weight") and v.ndim == 4)
    weights[key] = torch.full_like(weights[key], float("inf"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    method = {"name": "tov", "teachers": [str(broken)], "teacher_readout": "stages"}
    with pytest.raises(UserError, match="NaN or infinite"):
        pretrain(tiny(tmp_path / "run", method=method))
