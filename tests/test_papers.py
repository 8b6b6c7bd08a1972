"""What is written about the methods agrees with the methods."""

from __future__ import annotations

import re

import pytest
import yaml

from rs_models.methods import METHODS, method_classes
from rs_models.papers import PAPERS, REVIEWS, Paper, bibtex
from rs_models.settings import parse
from rs_models.trainer.config import RunConfig
from rs_models.trainer.method import DataInfo, build_method
from tests.conftest import ROOT

BASELINES = [base for paper in PAPERS.values() for base in paper.baselines]


def test_every_method_has_its_paper():
    assert list(PAPERS) == list(METHODS)


@pytest.mark.parametrize("name", PAPERS)
def test_defaults_are_those_of_the_code(name):
    config, run = method_classes(name)[0](), RunConfig()
    for key, value in PAPERS[name].settings.items():
        group, dot, field = key.partition(".")
        if group == "method":
            default = getattr(config, field)
        else:
            default = getattr(getattr(run, group), field) if dot else getattr(run, group)
        assert (default, type(default)) == (value, type(value)), key


@pytest.mark.parametrize("name", PAPERS)
def test_recipes_are_there_and_train_the_method(name):
    paper = PAPERS[name]
    assert paper.recipe != paper.small_recipe
    for recipe in (paper.recipe, paper.small_recipe):
        config = parse(RunConfig, ["--config", str(ROOT / recipe)])
        # A bare `false` in YAML is the method of that name.
        assert str(config.method["name"]).lower() == name


@pytest.mark.parametrize("name", PAPERS)
def test_facts_are_well_formed(name):
    paper = PAPERS[name]
    assert re.fullmatch(r"10\.\d{4,9}/\S+", paper.doi)
    assert paper.arxiv is None or re.fullmatch(r"\d{4}\.\d{5}", paper.arxiv)
    where = r"(arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.\d{4,9}/\S+)"
    assert re.fullmatch(f"https://{where}", paper.link)
    assert paper.code is None or re.fullmatch(r"https://github\.com/[\w./-]+", paper.code)
    assert all(re.fullmatch(r"\w[\w' -]*, \w[\w'. -]*", author) for author in paper.authors)
    texts = (paper.label, paper.title, paper.learns_from, *paper.venue)
    assert all(text.strip() == text and text for text in texts)
    assert not any(mark in "".join(texts) for mark in "|\n{}")  # of tables and of BibTeX


def test_the_reviews_are_cited_with_the_methods():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for name, review in REVIEWS.items():
        assert f"doi = {{{review.doi}}}" in re.sub(" +", " ", bibtex(name))
        assert review.doi in cited and " ".join(review.title.split()) in cited
        assert review.doi in (ROOT / "docs" / "survey.md").read_text(encoding="utf-8")
    assert "In Chinese: 遥感影像" in re.sub(r"\s+", " ", bibtex("review"))


def test_the_citation_file_has_every_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    said = {entry["doi"]: entry for entry in cited["references"]}
    for reference in (*PAPERS.values(), *REVIEWS.values()):
        entry = said.pop(reference.doi)
        names = [f"{one['family-names']}, {one['given-names']}" for one in entry["authors"]]
        assert (entry["title"], entry["year"]) == (reference.title, reference.year)
        assert names == list(reference.authors)
    assert not said


def test_a_conference_paper_is_cited_as_one(monkeypatch):
    paper = Paper(
        label="CPC",
        title="Contrast",
        authors=("van den Oord, Aäron", "Li, Yazhe"),
        venue=("NeurIPS", "Advances in Neural Information Processing Systems"),
        year=2018,
        doi="10.48550/arXiv.1807.03748",
        arxiv="1807.03748",
        code=None,
        learns_from="what comes next",
        settings={},
        recipe="",
        small_recipe="",
        conference=True,
    )
    monkeypatch.setitem(PAPERS, "cpc", paper)
    entry = bibtex("cpc")
    assert entry.startswith("@inproceedings{vandenoord2018cpc,\n")
    assert "booktitle = {Advances" in entry and "journal" not in entry


@pytest.mark.parametrize("name", PAPERS)
def test_the_header_of_the_method_cites_the_same_paper(name):
    paper = PAPERS[name]
    header = method_classes(name)[0].__module__
    text = " ".join((ROOT / f"{header.replace('.', '/')}.py").read_text().split('"""')[1].split())
    families = ", ".join(author.partition(",")[0] for author in paper.authors)
    assert families in text
    assert f'"{paper.title}"'.lower() in text.lower()
    assert f"{paper.venue[0]} {paper.year}" in text
    assert (paper.arxiv or paper.doi) in text


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda base: base.arguments)
def test_baselines_are_settings_that_exist(baseline):
    small = ["backbone=resnet_nano", "image_size=32"]  # where the baseline names no backbone itself
    config = parse(RunConfig, [*small, *baseline.arguments.split()])
    method = build_method(config, DataInfo([0.0, 255.0], [0.5] * 3, [0.5] * 3), None)
    settings = dict(config.method)
    assert method.config.model_type == f"rs_{str(settings.pop('name')).lower()}"
    for key, value in settings.items():
        assert getattr(method.config, key) == value
    assert re.fullmatch(r"\d{4}\.\d{5}", baseline.arxiv)
