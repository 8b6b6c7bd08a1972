"""Tables in pages come from results files."""

from __future__ import annotations

import numpy as np
import pytest

from rs_models.cards import BEGIN, END, RESULTS, check_tables, render_tables
from rs_models.errors import UserError
from rs_models.evaluation.results import Result, write

from .conftest import ROOT


def record(folder, model: str, right: int) -> None:
    correct = np.arange(10)[None] < right
    keys = {"model_revision": "r", "data": "d", "data_revision": "r", "protocol": "knn20"}
    write(Result.measured(correct, model=model, settings={}, command="c", **keys), folder)


def test_a_page_is_rendered_and_a_stale_one_detected(tmp_path):
    page, results = tmp_path / "README.md", tmp_path / "results"
    page.write_text(f"# Title\n\n{BEGIN}\n{END}\n\nrest\n")
    check_tables(page, results)
    record(results, "first", 7)
    with pytest.raises(UserError, match=r"README\.md are not those of"):
        check_tables(page, results)
    assert render_tables(page, results)
    check_tables(page, results)
    assert not render_tables(page, results)
    text = page.read_text()
    assert "| first | - | 70.0 [" in text
    assert text.startswith("# Title\n\n<!--")
    assert text.endswith("-->\n\nrest\n")
    record(results, "first", 8)
    with pytest.raises(UserError, match="render them with"):
        check_tables(page, results)
    page.write_text(page.read_text().replace("70.0", "80.0"))
    with pytest.raises(UserError, match="do not edit them by hand"):
        check_tables(page, results)


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}\n{BEGIN}\n{END}", f"{END}\n{BEGIN}"])
def test_markers_that_do_not_pair_are_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=r"page\.md"):
        render_tables(page, tmp_path)
    assert page.read_text() == text


def test_the_readme_shows_the_recorded_results():
    check_tables(ROOT / "README.md", ROOT / RESULTS)
