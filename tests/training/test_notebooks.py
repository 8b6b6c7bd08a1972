"""The notebooks: pairs without outputs, and each runs from its first cell to its last."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.support.models import nano, provenance

FOLDER = ROOT / "training" / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))


def test_there_is_one_for_each_use():
    assert [path.name[:2] for path in SCRIPTS] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_pairs_agree_and_hold_no_outputs(script):
    import jupytext

    ours = jupytext.read(script)
    paired = jupytext.read(script.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in ours.cells] == [
        (c.cell_type, c.source) for c in paired.cells
    ], f"jupytext --sync {script.name}"
    assert ours.cells[0].cell_type == "markdown" and "You get" in ours.cells[0].source
    code = [cell for cell in paired.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_runs_and_draws(script, tmp_path, monkeypatch):
    from transformers import ViTImageProcessor

    monkeypatch.syspath_prepend(str(FOLDER))
    import render

    model = nano("resnet_mini", image_size=64)
    model.config.rs_models = provenance(model)
    model.save_pretrained(tmp_path / "model")
    processor = ViTImageProcessor(
        size={"height": 64, "width": 64}, image_mean=[0.4] * 3, image_std=[0.2] * 3
    )
    processor.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("RS_MODELS_NOTEBOOK_MODEL", str(tmp_path / "model"))
    monkeypatch.setenv("RS_MODELS_NOTEBOOK_SMALL", "1")
    notebook = render.execute(script, tmp_path)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    page = render.write_page(notebook, script.stem, tmp_path / "pages")
    text = page.read_text(encoding="utf-8")
    assert f"![Drawn by the cell above]({script.stem}-1.png)" in text
    assert (page.parent / f"{script.stem}-1.png").stat().st_size > 1000
