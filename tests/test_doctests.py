"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from tests.conftest import ROOT

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "rs_models").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
# Functions that a stranger meets first; each shows how it is called.
FIRST = {
    "rs_models.labelling.suggest",
    "rs_models.labelling.classify",
    "rs_models.labelling.propagate",
    "rs_models.labelling.search",
    "rs_models.labelling.index",
    "rs_models.data.masks",
    "rs_models.bands",
    "rs_models.files.writing",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(import_module(name), verbose=False)
    assert found.attempted and not found.failed


def test_what_a_stranger_meets_first_has_an_example():
    assert set(MODULES) >= FIRST
