"""The examples of the evaluation's docstrings."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("features", "kinds", "knn", "loading", "shards", "metrics.scores")


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    module = import_module(f"rs_models.evaluation.{name}")
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0 and outcome.failed == 0
