"""Images without labels: which get a pseudo-label, what they are drawn by, what is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models.cli import main
from rs_models.tasks import classification
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune
from rs_models.tasks.finetuning.config import SelfTraining
from rs_models.tasks.finetuning.plan import Plan
from rs_models.tasks.finetuning.run import Run
from rs_models.tasks.finetuning.self_training import SelfLearner, pseudo_labels
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
    features = np.eye(3)[true] + 0.15 * rng.normal(size=(90, 3))
    labels = np.full(90, -1)
    labels[[0, 60, 80]] = [0, 1, 2]
    return features.astype(np.float32), labels, true


def test_pseudo_labels_are_the_neighbours_and_as_many_of_each_class_at_most():
    features, labels, true = clusters()
    pseudo = pseudo_labels(features, labels, 3, SelfTraining(share=0.3, neighbours=5))
    taken = pseudo >= 0
    assert not taken[labels >= 0].any()
    assert (pseudo[taken] == true[taken]).mean() > 0.95
    counts = np.bincount(pseudo[taken], minlength=3)
    assert counts.max() == round(0.3 * 87 / 3) and counts.min() >= 7


def test_what_is_held_out_helps_neither_as_a_label_nor_as_an_image(tmp_path):
    run = Run(Plan.of(config(tmp_path / "run")), "")
    drawn = run.plan.draw(0)
    learner, network = run._learner(run.plan, drawn.learned, 0)
    labelled = run._examples(run.plan, network, run.plan.train, drawn.learned, seed=0)
    both = run._with_unlabelled(run.plan, network, labelled, drawn, 0)
    assert len(drawn.held) == 12 and isinstance(learner, SelfLearner)
    assert not {*both.weak.rows} & {*drawn.held.tolist(), *drawn.learned.tolist()}
    assert len(both.weak) == 60 - 36
    first, again = both[3], both[3]
    assert first["weak"].shape == first["strong"].shape == (2, 3, 32, 32)
    torch.testing.assert_close(first["strong"], again["strong"], rtol=0, atol=0)
    both.epoch.fill_(1)
    assert not torch.equal(both[3]["strong"], first["strong"])
    assert not torch.equal(first["weak"], first["strong"])


def test_only_certain_answers_are_learned():
    model = classification.over(nano("resnet_nano"), {0: "a", 1: "b"})
    x, labels, none = images(), torch.tensor([0, 1]), torch.tensor([-1, -1])
    losses = {}
    for confidence in (0.0, 0.999999):
        learner = SelfLearner(
            model,
            task("classification"),
            settings=SelfTraining(weight=1.0, confidence=confidence),
            num_classes=2,
        ).eval()
        losses[confidence] = learner(x, labels, images(seed=1), images(seed=2), none, own=True)
    plain = SelfLearner(
        model, task("classification"), settings=SelfTraining(weight=1.0), num_classes=2
    ).eval()
    known = plain(x, labels)["loss"]
    torch.testing.assert_close(losses[0.999999]["loss"], known)
    odds = classification.classify(model, images(seed=1)).softmax(1)
    answers = (odds / (0.99 * 0.5 + 0.01 * odds.mean(0))).argmax(1)
    others = torch.nn.functional.cross_entropy(
        classification.classify(model, images(seed=2)), answers
    )
    torch.testing.assert_close(losses[0.0]["loss"], known + others)
    # Before the network answers itself, an image without pseudo-label counts for nothing.
    early = plain(x, labels, images(seed=1), images(seed=2), none, own=False)["loss"]
    torch.testing.assert_close(early, known)


def test_a_run_says_what_helped_and_is_named_for_it(tmp_path, capsys):
    result = finetune(config(tmp_path / "run"))
    assert "24 images without labels help" in capsys.readouterr().err
    assert result.protocol == "finetune-self-n3"
    assert result.settings["self_training"]["weight"] == 1.0
    assert result.settings["runs"][0]["labelled_images"] == 36
    assert result.settings["runs"][0]["validation_images"] == 12
    again = finetune(config(tmp_path / "again"))
    assert again.values == result.values and again.scores == result.scores


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
