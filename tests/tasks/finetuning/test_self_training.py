"""Images without labels: what is known of them at first, what is drawn, learned and tested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from rs_models import backbones
from rs_models.cli import main
from rs_models.evaluation.linear import fit_probe
from rs_models.tasks import classification
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune
from rs_models.tasks.finetuning.config import SELF_TRAINING, SelfTraining
from rs_models.tasks.finetuning.plan import Plan
from rs_models.tasks.finetuning.run import Run
from rs_models.tasks.finetuning.self_training import (
    SelfLearner,
    beginning,
    embeddings,
    stage_embeddings,
)
from rs_models.tasks.finetuning.trainer import FinetuneTrainer
from rs_models.tasks.table import task
from tests.support.models import images, nano


def config(folder, **changes):
    settings = {
        "model": "baseline:random-resnet_nano",
        "data": FinetuneData("synthetic:num=60,size=32", label="scenes"),
        "labels": "3/class",
        "holdout": 0.4,
        "seeds": [0],
        "max_steps": 4,
        "evaluations": 2,
        "batch_size": 4,
        "output_dir": str(folder),
        "self_training": SelfTraining(weight=1.0, confidence=0.0),
    }
    return FinetuneConfig(**{**settings, **changes})


def clusters():
    """Three groups of directions; one labelled image of each, classes of very different size."""
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], [60, 20, 10])
    features = np.eye(3)[true] + 0.3 * rng.normal(size=(90, 3))
    labels = np.full(90, -1)
    labels[[0, 60, 80]] = [0, 1, 2]
    return features.astype(np.float32), labels, true


def started(folder, **changes):
    """A run's learner after its start, and what it learns from."""
    run = Run(Plan.of(config(folder, **changes)), "")
    drawn = run.plan.draw(0)
    learner, network = run._learner(run.plan, drawn.learned, 0)
    labelled = run._examples(run.plan, network, run.plan.train, drawn.learned, seed=0)
    both = run._with_unlabelled(run.plan, network, learner, labelled, drawn, 0)
    return run, drawn, learner, network, both


def strips():
    """Two long strips side by side, each with one label, not side by side."""
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1], 40)
    along = np.tile(np.linspace(0, 4, 40), 2)
    features = np.stack([along, 2.0 * true + 0.1 * rng.normal(size=80)], axis=1)
    labels = np.full(80, -1)
    labels[[0, 59]] = [0, 1]
    return features.astype(np.float32), labels, true


def test_what_is_known_at_first_is_more_than_the_labels_tell():
    features, labels, true = strips()
    probe, answers = beginning(features, features, labels, 2, SelfTraining(neighbours=5))
    alone = fit_probe(features[labels >= 0], labels[labels >= 0], c=0.1).predict(features)
    assert (alone == true).mean() < 0.9
    assert (answers.argmax(1) == true).mean() > 0.95
    assert (probe.predict(features) == true).mean() > 0.95
    np.testing.assert_array_equal(answers[labels >= 0], np.eye(2))
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)


def test_a_class_without_labels_is_never_answered():
    features, labels, _ = clusters()
    labels[60] = -1
    labels = np.where(labels == 2, 3, labels)
    probe, answers = beginning(features, features, labels, 5, SelfTraining())
    assert (answers[:, [1, 2, 4]] == 0).all()
    assert probe.weight.shape == (3, 5)
    assert set(probe.predict(features)) == {0, 3}


def test_what_is_held_out_helps_neither_as_a_label_nor_as_an_image(tmp_path):
    _, drawn, _, _, both = started(tmp_path / "run")
    assert len(drawn.held) == 12
    assert not {*both.weak.rows} & {*drawn.held.tolist(), *drawn.learned.tolist()}
    assert len(both.weak) == len(both.targets) == 60 - 36
    first, again = both[3], both[3]
    assert first["weak"].shape == first["strong"].shape == (2, 3, 32, 32)
    assert first["targets"].shape == (2, 12)
    torch.testing.assert_close(first["strong"], again["strong"], rtol=0, atol=0)
    both.epoch.fill_(1)
    assert not torch.equal(both[3]["strong"], first["strong"])
    assert not torch.equal(first["weak"], first["strong"])


def test_a_run_starts_from_what_is_known(tmp_path):
    """Before a step, test images are answered as by the classifier over frozen features."""
    run, drawn, learner, network, both = started(tmp_path / "run", **SELF_TRAINING)
    whole = run._examples(run.plan, network, run.plan.train, range(60))
    features = embeddings(network.model, whole)
    labels = np.full(60, -1)
    labels[drawn.learned] = run.plan.train.labels[drawn.learned]
    assert not len(drawn.held) and len(drawn.learned) == 36
    stages = stage_embeddings(network.model, whole, network.preprocessing)
    assert stages.shape == (60, 2 * sum(backbones.stage_dims(network.model.config)))
    probe, answers = beginning(features, stages, labels, 12, run.config.self_training)
    np.testing.assert_array_equal(both.targets, answers[labels < 0])
    x = torch.stack([whole[i]["pixel_values"] for i in range(8)])
    with torch.inference_mode():
        logits = learner.eval()(x)["logits"]
    torch.testing.assert_close(logits, torch.from_numpy(probe.logits(features[:8])))
    torch.testing.assert_close(classification.classify(learner.model.eval(), x), logits)
    # Its BatchNorm statistics stay those that the classifier was fitted with.
    assert not any(
        part.training for part in learner.train().backbone.modules() if hasattr(part, "running_var")
    )


def learner_of(**settings):
    model = classification.over(nano("resnet_nano"), {0: "a", 1: "b"})
    settings = SelfTraining(weight=1.0, **settings)
    return SelfLearner(model, task("classification"), settings=settings, num_classes=2).eval()


def test_answers_of_others_are_learned_as_far_as_they_are_certain():
    x, labels, weak, strong = images(), torch.tensor([0, 1]), images(seed=1), images(seed=2)
    at_first = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    learner = learner_of(confidence=0.0)
    known = learner(x, labels)["loss"]
    logits = classification.classify(learner.model, strong)
    cross_entropy = torch.nn.functional.cross_entropy
    early = learner(x, labels, weak, strong, at_first, own=False)["loss"]
    torch.testing.assert_close(early, known + cross_entropy(logits, at_first))
    odds = classification.classify(learner.model, weak).softmax(1)
    answers = (odds / (0.99 * 0.5 + 0.01 * odds.mean(0))).argmax(1)
    late = learner(x, labels, weak, strong, at_first, own=True)["loss"]
    torch.testing.assert_close(late, known + cross_entropy(logits, answers))
    # Where none is certain, images without labels count for nothing.
    doubtful = learner_of(confidence=0.999999)
    late = doubtful(x, labels, weak, strong, at_first, own=True)["loss"]
    torch.testing.assert_close(late, doubtful(x, labels)["loss"])


def test_the_running_mean_answers_follows_and_does_not_learn():
    learner = learner_of(average=0.9)
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    assert not any(part.training for part in learner.train().teacher.modules())
    x, before = images(), learner.tested.classifier[1].weight.clone()
    with torch.no_grad():
        learner.model.classifier[1].weight.add_(1.0)
    torch.testing.assert_close(learner(x)["logits"], classification.classify(learner.tested, x))
    learner.average(1)  # short at first
    torch.testing.assert_close(learner.tested.classifier[1].weight, before + 0.9)
    learner.average(1000)
    torch.testing.assert_close(learner.tested.classifier[1].weight, before + 0.91)


def test_a_run_says_what_helped_and_is_named_for_it(tmp_path, capsys):
    result = finetune(config(tmp_path / "run"))
    assert "24 images without labels help" in capsys.readouterr().err
    assert result.protocol == "finetune-self-n3"
    assert result.settings["self_training"]["weight"] == 1.0
    assert result.settings["runs"][0]["labelled_images"] == 36
    assert result.settings["runs"][0]["validation_images"] == 12


def test_a_stopped_run_goes_on_with_its_running_mean(tmp_path, monkeypatch):
    whole = finetune(config(tmp_path / "whole", holdout=0.0))
    plain, calls = FinetuneTrainer.compute_loss, []

    def stops(self, *args, **keys):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, *args, **keys)

    monkeypatch.setattr(FinetuneTrainer, "compute_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        finetune(config(tmp_path / "run", holdout=0.0))
    before = len(calls)
    again = finetune(config(tmp_path / "run", holdout=0.0))
    assert len(calls) - before == 2  # steps 3 and 4
    assert again.values == whole.values
    one, other = (
        transformers.AutoModelForImageClassification.from_pretrained(tmp_path / name / "model")
        for name in ("whole", "run")
    )
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=segmentation", "labels=4", "self_training.weight=1"], "one class an image"),
        (["labels=all", "self_training.weight=1"], "no image without a label"),
    ],
)
def test_where_it_cannot_help_it_is_refused(tmp_path, capsys, arguments, message):
    base = ["model=baseline:random-resnet_nano", "data.name=synthetic:num=24,size=32"]
    assert main(["finetune", *base, f"output_dir={tmp_path}/run", "seeds=[0]", *arguments]) == 2
    assert message in capsys.readouterr().err
