"""Blocks of pages come from data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rs_models.commands.render import main
from rs_models.errors import UserError
from rs_models.evaluation.results import Result, read_all, write
from rs_models.papers import PAPERS, bibtex
from rs_models.publish import pages
from rs_models.publish.pages import BLOCKS, RESULTS, check, citations, markers, methods, render
from tests.conftest import ROOT

BEGIN, END = markers("results")


def record(folder, model: str, right: int, *, data: str = "d", protocol: str = "knn20") -> None:
    correct = np.arange(10)[None] < right
    keys = {"model_revision": "r", "data": data, "data_revision": "r", "protocol": protocol}
    write(Result.measured(correct, model=model, settings={}, command="c", **keys), folder)


def test_a_page_is_rendered_and_a_stale_one_detected(tmp_path):
    page, results = tmp_path / "README.md", tmp_path / "results"
    page.write_text(f"# Title\n\n{BEGIN}\n{END}\n\nrest\n")
    check(page, results)
    record(results, "first", 7)
    with pytest.raises(UserError, match=r"README\.md does not show what the data say \(results\)"):
        check(page, results)
    assert render(page, results)
    check(page, results)
    assert not render(page, results)
    text = page.read_text()
    assert "| first | - | 70.0 [" in text
    assert text.startswith("# Title\n\n<!--")
    assert text.endswith("-->\n\nrest\n")
    record(results, "first", 8)
    with pytest.raises(UserError, match="render it with"):
        check(page, results)
    page.write_text(page.read_text().replace("70.0", "80.0"))
    with pytest.raises(UserError, match="do not edit it by hand"):
        check(page, results)


def test_each_block_goes_between_its_own_markers(tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "results"
    page.write_text("\n\n".join("\n".join(markers(name)) for name in reversed(BLOCKS)) + "\n")
    record(results, "tov-resnet50", 7, data="aid96")
    assert render(page, results)
    text = page.read_text()
    for name, block in BLOCKS.items():
        begin, end = markers(name)
        assert f"{begin}\n{block(read_all(results))}\n{end}\n" in text
    page.write_text(text.replace("tao2023tov", "tao2023"))
    with pytest.raises(UserError, match=r"\(citations\)"):
        check(page, results)
    record(results, "tov-resnet50", 8, data="aid96")
    with pytest.raises(UserError, match=r"\(results, methods, citations, zoo\)"):
        check(page, results)


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        f"{BEGIN}\n{BEGIN}\n{END}",
        f"{END}\n{BEGIN}",
        BEGIN,
        f"{BEGIN}\n{END}\n{markers('methods')[1]}",
    ],
)
def test_markers_that_do_not_pair_are_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=r"page\.md"):
        render(page, tmp_path)
    assert page.read_text() == text


def test_the_methods_table_shows_what_was_measured(tmp_path):
    record(tmp_path, "tov-resnet50", 7, data="aid96")
    record(tmp_path, "tov-resnet50", 9, data="aid96", protocol="linear")
    record(tmp_path, "rs/tov-swin-tiny", 6, data="aid96", protocol="linear")
    for other in ("knn5", "linear-n5", "linear@224"):
        record(tmp_path, "last-swin-tiny", 5, data="aid96", protocol=other)
    record(tmp_path, "false-resnet50", 5, data="rsscn7")
    record(tmp_path, "falsest", 5, data="aid96")
    table = methods(read_all(tmp_path)).partition("\n\n")[0].splitlines()
    cells = {name: row.split(" | ")[-1] for name, row in zip(PAPERS, table[2:], strict=True)}
    assert cells.pop("tov") == "rs/tov-swin-tiny: -, 60.0<br>tov-resnet50: 70.0, 90.0 |"
    assert set(cells.values()) == {"- |"}
    assert len({row.count("|") for row in table}) == 1


def test_settings_are_written_as_on_the_command_line():
    text = methods([])
    for pair in ("method.style=true", "data.place=null", "method.scope=batch", "stages=[]"):
        assert f"`{pair}`" in text
    for paper in PAPERS.values():
        assert f"[`{paper.recipe}`]({paper.recipe})" in text
        assert all(f"`{base.arguments}`" in text for base in paper.baselines)


def test_the_readme_counts_what_was_tested_and_shows_what_was_decided(tmp_path, monkeypatch):
    found = {"mean": 1.5, "low": 0.5, "high": 2.5, "values": [1.0, 2.0], "measure": "a/linear-n20"}
    found["seeds"] = [0, 1]
    verdicts = ("holds", "the reverse", "cannot be told", "not tested", "not measured")
    told = [
        {
            "says": f"Claim {number}.",
            "verdict": verdict,
            "better": "new",
            "worse": "old",
            "measures": ["a/linear-n20", "b/knn20"],
            "differences": [None, None] if verdict == "not measured" else [found, None],
        }
        for number, verdict in enumerate(verdicts)
    ]
    told.append({**told[0], "says": "Claim 5.", "afterwards": True})
    base = {"backbone": "resnet_mini", "image_size": 64, "epochs": 12}
    about = {"base": base, "seeds": [0, 1], "budgets": {"old": ["swin_mini", "20 epochs"]}}
    folder = tmp_path / pages.STUDY
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(about))
    (folder / "claims.json").write_text(json.dumps(told))
    monkeypatch.setattr(pages, "_ROOT", tmp_path)
    text = pages.claims()
    assert "epochs, 2 seeds, or as said; of 5 claims 3 tested" in text
    assert "2 decided so far, by a/linear-n20:" in text
    # What was asked when the answer was known counts for nothing.
    assert [f"Claim {number}." in text for number in range(6)] == [True, True, *[False] * 4]
    assert "Claim 0. (swin_mini, 20 epochs)" in text
    (folder / "claims.json").write_text(json.dumps(told[:4]))
    assert "2 decided, by" in pages.claims()


def test_citations_are_entries_of_balanced_braces():
    text = citations()
    assert text.startswith("```bibtex\n@article{") and text.endswith("}\n```")
    keys = [bibtex(name).partition("{")[2].partition(",")[0] for name in PAPERS]
    assert len(set(keys)) == len(PAPERS)
    for name, paper in PAPERS.items():
        entry = bibtex(name)
        assert entry in text
        assert entry.count("{") == entry.count("}")
        assert paper.doi in entry
        assert f"{{{{{paper.title}}}}}" in " ".join(entry.split())
        assert max(map(len, entry.splitlines())) <= 100


def test_the_command_renders_and_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    with pytest.raises(UserError, match="no folder"):
        main([])
    record(RESULTS, "first", 7)
    with pytest.raises(UserError, match=r"rs-models render"):
        main(["--check"])
    assert main([]) == 0
    assert main(["--check", "README.md", "--results", str(RESULTS)]) == 0
    assert "| first |" in page.read_text()
    assert capsys.readouterr().out == "README.md: rendered\nREADME.md: up to date\n"
    with pytest.raises(UserError, match=r"nowhere\.md: No such file"):
        main(["nowhere.md"])
    manual = tmp_path / "docs" / "methods"
    manual.mkdir(parents=True)
    (manual / "one.md").write_text("\n".join(markers("settings-tov")) + "\n")
    (manual / "two.md").write_text("no place for a block\n")
    assert main([]) == 0  # the README and every page of the manual that has a place
    assert "method.temperature" in (manual / "one.md").read_text()
    assert "two.md" not in capsys.readouterr().out


def test_the_readme_shows_the_recorded_results_and_the_methods():
    check(ROOT / "README.md", ROOT / RESULTS)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(marker in text for name in ("headline", "models") for marker in markers(name))
