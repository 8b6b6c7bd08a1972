"""Labels that were suggested against labels that came at random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models.evaluation.answers import Inputs, Labelled, Material
from rs_models.evaluation.kinds import protocol


def long_tailed():
    """Eight groups of features, of 300 to 20 rows; every fifth row is counted."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(8), [300, 300, 100, 60, 40, 30, 20, 20])
    x = (np.eye(8, 16)[group] + 0.12 * rng.normal(size=(len(group), 16))).astype(np.float32)
    held = np.arange(len(group)) % 5 == 0
    splits = {"train": Labelled(x[~held], group[~held]), "test": Labelled(x[held], group[held])}
    return Material(splits, None, Inputs(seeds=3, device=torch.device("cpu")))


def test_suggested_labels_are_worth_more_where_classes_are_rare():
    material = long_tailed()
    suggested = protocol("suggested-n1").measure(material)
    random = protocol("random-n1").measure(material)
    assert np.mean(suggested.correct) > np.mean(random.correct) + 0.03
    assert np.mean(suggested.settings["classes_met"]) > np.mean(random.settings["classes_met"])
    assert suggested.settings["labels"] == random.settings["labels"] == 8
    again = protocol("suggested-n1").measure(material)
    assert again.settings["draws"] == suggested.settings["draws"]


def test_larger_budgets_go_on_from_smaller_ones():
    material = long_tailed()
    kind = protocol("suggested-n5")
    few = protocol("suggested-n2")._draw(material.train.x, 8, 0)
    many = kind._draw(material.train.x, 8, 0)
    assert len(many) == len(set(many.tolist())) == 40
    assert many[:16].tolist() == few.tolist()


def test_a_budget_larger_than_the_pile_is_told():
    labels = {"train": np.arange(20) % 4}
    assert "24 labels are asked for of 20" in protocol("random-n6").too_small(labels, None)
    assert protocol("suggested-n5").too_small(labels, None) == ""


def test_one_class_alone_is_no_error():
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    both = Labelled(rows, np.repeat([0, 1], [9, 1]))
    material = Material({"train": both, "test": both}, None, Inputs(2, torch.device("cpu")))
    answers = protocol("random-n1").measure(material)
    assert [len(correct) for correct in answers.correct] == [10, 10]
    assert min(answers.settings["classes_met"]) >= 1


@pytest.mark.parametrize("name", ["suggested-n0", "suggested", "random-n"])
def test_names_that_stand_for_none(name):
    with pytest.raises(ValueError, match="Unknown protocol"):
        protocol(name)
