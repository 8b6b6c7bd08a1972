"""Cards are filled from what their dataclass has, and tables from cells of any text."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from typing import ClassVar

import jinja2
import jinja2.meta
import pytest
from huggingface_hub import DatasetCardData

from rs_models.assets import asset
from rs_models.cards import CardData, markdown_table, render_card, size_category
from rs_models.data.convert.card import DatasetCard
from rs_models.data.windows.writing import WindowsCard
from rs_models.evaluation.card import EmbeddingsCard
from rs_models.labelling.card import LabelledCard
from rs_models.publish.card import ModelCard
from rs_models.tasks.finetuning.card import FinetunedCard
from tests.conftest import ROOT

KINDS = (DatasetCard, EmbeddingsCard, FinetunedCard, LabelledCard, ModelCard, WindowsCard)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_uses_what_the_dataclass_has_and_all_of_it(kind):
    source = jinja2.Environment().parse(asset(kind.template).read_text(encoding="utf-8"))
    names = {field.name for field in fields(kind)} - {"metadata"}
    assert jinja2.meta.find_undeclared_variables(source) == names


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_of_a_card_is_documented(kind):
    inherited = {field.name for field in fields(CardData)}
    own = [field.name for field in fields(kind) if field.name not in inherited]
    described = [line.strip().partition(":")[0] for line in kind.__doc__.splitlines()]
    assert [name for name in described if name in own] == own


def test_every_template_is_a_kinds_and_travels_in_the_wheel():
    templates = {path.name for path in (ROOT / "model_cards").glob("*.j2")}
    assert templates == {kind.template for kind in KINDS}
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = packaged["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for name in templates:
        assert included[f"model_cards/{name}"] == f"rs_models/{name}"
        assert asset(name).is_file()


def test_a_field_that_a_template_does_not_find_is_an_error_and_no_gap():
    @dataclass(frozen=True, kw_only=True)
    class Short(CardData):
        template: ClassVar[str] = "embeddings_card.md.j2"

    with pytest.raises(jinja2.UndefinedError):
        render_card(Short(metadata=DatasetCardData(), name="x"))


def test_cells_cannot_break_a_table():
    lines = markdown_table(("class", "IoU"), [("road|rail", "1.0")]).splitlines()
    assert lines == ["| class | IoU |", "|---|---|", r"| road\|rail | 1.0 |"]


@pytest.mark.parametrize(("rows", "word"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M")])
def test_sizes_are_the_hubs_words(rows, word):
    assert size_category(rows) == word
