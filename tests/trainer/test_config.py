"""Settings of a run: stages, and combinations that no run could use."""

from __future__ import annotations

import pytest

from rs_models.errors import UserError
from rs_models.settings import parse
from rs_models.trainer import RunConfig
from tests.conftest import ROOT


def test_stages_override_the_run_and_merge_groups():
    run = parse(
        RunConfig,
        [
            *("data.name=a", "data.split=s", "init_from=w", "epochs=5"),
            "stages=[{data: {name: b}}, {epochs: 7, method: {temperature: 0.1}}]",
        ],
    )
    first, second = run.expand()
    assert (first.data.name, first.data.split, first.epochs) == ("b", "s", 5)
    assert (second.data.name, second.epochs) == ("a", 7)
    assert second.method == {"name": "tov", "temperature": 0.1}
    # The second stage starts from the first one's weights, not from the run's.
    assert (first.init_from, second.init_from) == ("w", None)


def test_a_recipe_tells_a_mixture_by_its_sets_and_no_way_to_a_folder(tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "mixture.json").write_text('{"sets": {"aid96": 1, "eurosat64": 4}}')
    run = parse(RunConfig, [f"data.name={mixed}", f"evaluation.name={tmp_path / 'aid96'}"])
    recipe = run.recipe()
    assert "name: aid96+eurosat64" in recipe and str(tmp_path) not in recipe


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["stages=[{epoch: 3}]"], r"Unknown setting stages\[1\].epoch .did you mean"),
        (["stages=[{output_dir: x}]"], r"stages\[1\].output_dir belongs to the whole run"),
        (["stages=[{batch_size: 0}]"], "batch_size=0 should be 1 or more"),
    ],
)
def test_wrong_stages_are_refused(argv, words):
    with pytest.raises(UserError, match=words):
        parse(RunConfig, argv).expand()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["epochs=0"], "set epochs above 0, or max_steps"),
        (["data.streaming=true"], "set max_steps"),
        (
            ["data.streaming=true", "max_steps=3", "data.sampling=class_balanced"],
            "needs a cached set",
        ),
        (["method={temperature: 0.1}"], "The method has no name"),
        (["trackers=[mlflow]"], "not 'mlflow'"),
        (["checkpoint_every=0"], "should be above 0"),
    ],
)
def test_runs_that_cannot_be_are_refused(argv, words):
    with pytest.raises(UserError, match=words):
        parse(RunConfig, argv).check()


# The others are settings of other scripts, with tests of their own.
RECIPES = [
    path
    for path in sorted((ROOT / "training/configs").glob("*.yaml"))
    if path.stem != "probe" and not path.stem.startswith(("finetune_", "study_"))
]


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(file):
    config = parse(RunConfig, ["--config", str(file)])
    config.check()
    assert config.expand()
