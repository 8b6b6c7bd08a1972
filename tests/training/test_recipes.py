"""Every method's recipes run: the paper's and the small one, a step each on a tiny backbone."""

from __future__ import annotations

import pytest
from transformers import AutoModel

from rs_models.papers import PAPERS
from rs_models.settings import parse
from rs_models.trainer import RunConfig, pretrain
from tests.conftest import ROOT
from tests.trainer.helpers import DATA

RECIPES = [
    (name, recipe)
    for name, paper in PAPERS.items()
    for recipe in (paper.recipe, paper.small_recipe)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_a_recipe_trains_and_exports(name, recipe, tmp_path):
    config = parse(
        RunConfig,
        [
            *("--config", str(ROOT / recipe)),
            *(f"data.name={DATA}", "data.image_size=null", "batch_size=8", "image_size=64"),
            f"backbone={'swin_nano' if name == 'last' else 'resnet_nano'}",
            *("max_steps=1", "precision=no", "evaluation.every=0", f"output_dir={tmp_path}/run"),
        ],
    )
    for stage in config.stages:  # one step each of what the recipe does at two resolutions
        stage.pop("image_size", None)
    assert pretrain(config) is not None
    assert AutoModel.from_pretrained(tmp_path / "run" / "export").config.rs_models["method"] == name
