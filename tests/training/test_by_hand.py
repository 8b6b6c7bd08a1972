"""The loop by hand: short, without the trainer, and its loss is that of the method."""

from __future__ import annotations

import ast
import math
import runpy

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "training" / "by_hand.py"


def test_the_loss_starts_at_chance_and_every_step_moves_it(capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    losses = main("synthetic:num=32,size=32", steps=4, batch_size=8)
    assert len(capsys.readouterr().out.splitlines()) == len(set(losses)) == 4
    # Each of 2B views has 2B - 1 others to choose from.
    assert losses[0] == pytest.approx(math.log(15), abs=0.4)
    assert main("synthetic:num=32,size=32", steps=4, batch_size=8) == losses  # seeded


def test_it_is_short_and_needs_no_trainer():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any("trainer" in str(module) for module in modules)
    [main] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert main.end_lineno is not None and main.end_lineno - main.lineno <= 40
