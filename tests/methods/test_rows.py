"""Nothing of a method is forgotten: what each row of METHODS needs elsewhere is there."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import rs_models
from rs_models.demos import figures, signals_shown
from rs_models.methods import METHODS, method_classes
from rs_models.papers import PAPERS
from rs_models.signals.recipes import RECIPES
from rs_models.zoo import ZOO
from tests.conftest import ROOT

# File -> how the row or paragraph begins that lists the methods by hand.
LISTS = {
    "docs/howto/pretrain.md": "| another method",
    "docs/index.md": "| know what the methods do",
    "spaces/learning-signals/README.md": "The views, ",
    "training/notebooks/05_pretrain_on_your_images.py": "# The same as `accelerate launch",
}


@pytest.mark.parametrize("name", METHODS)
def test_its_classes_are_public_and_named_for_it(name):
    config_class, model_class = method_classes(name)
    assert config_class.model_type == f"rs_{name}"
    assert model_class.config_class is config_class
    for public in (config_class, model_class):
        assert public.__name__ in rs_models.__all__
        assert getattr(rs_models, public.__name__) is public
    assert config_class().recipe in RECIPES
    header = importlib.import_module(model_class.__module__).__doc__ or ""
    assert re.search(r"arXiv|doi|DOI|10\.\d{4}", header), "the header names the paper"


@pytest.mark.parametrize("name", METHODS)
def test_it_has_its_paper_and_recipes(name):
    paper = PAPERS[name]
    for recipe in (paper.recipe, paper.small_recipe):
        assert (ROOT / recipe).is_file(), recipe


@pytest.mark.parametrize("name", METHODS)
def test_it_has_its_page_in_the_manual(name):
    page = ROOT / "docs" / "methods" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {PAPERS[name].label}")
    assert f"methods/{name}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for block in ("recipes", "settings", "results", "citation"):  # by `rs-models render`
        assert f"<!-- {block}-{name}:begin -->" in text, block
    # Drawn by `python -m rs_models.demos.figures signal_NAME`.
    picture = re.search(rf"\((\.\./figures/signal_{name}\.\w+)\)", text)
    assert picture and (page.parent / picture[1]).is_file(), "the picture of its signal"
    reference = (ROOT / "docs" / "reference" / "methods.md").read_text(encoding="utf-8")
    assert f"rs_models.methods.{METHODS[name][0]}" in reference


@pytest.mark.parametrize("name", METHODS)
def test_its_signal_can_be_shown(name):
    assert callable(getattr(signals_shown, name))
    # Its scene for the figures of the manual, or a branch of its own.
    assert name in figures.SCENES or f'"{name}"' in inspect.getsource(figures.signal)


@pytest.mark.parametrize("name", METHODS)
def test_a_test_of_its_own_holds_its_behaviour(name):
    model = METHODS[name][2]
    texts = [
        path.read_text(encoding="utf-8") for path in (ROOT / "tests/methods").glob("test_*.py")
    ]
    tests = [
        test
        for text in texts
        for test in re.findall(r"def (test_\w+)", text)
        if re.search(rf"(^|_){name}(s|_|$)", test)
    ]
    used = sum(model in text for text in texts)
    assert tests or used, f"no golden or behaviour test of {name}"


@pytest.mark.parametrize("file", LISTS)
def test_the_lists_that_are_typed_name_every_method(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    begin = text.find(LISTS[file])
    assert begin >= 0, f"{file} has no line that begins with {LISTS[file]!r}"
    end = re.compile(r"\n\|" if LISTS[file].startswith("|") else r"\n#?\n").search(text, begin)
    listed = text[begin : end.start() if end else None]
    for name in METHODS:
        assert re.search(rf"\b({name}|{PAPERS[name].label})\b", listed), f"{file}: {name}"


@pytest.mark.parametrize("name", METHODS)
def test_the_zoo_has_weights_of_it(name):
    assert any(row.method == name for row in ZOO)
