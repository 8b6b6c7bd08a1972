"""The probe script as a user starts it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from rs_models.evaluation.results import read_all
from rs_models.export import export
from rs_models.settings import run_script
from tests.conftest import ROOT
from tests.evaluation.test_features import provenance
from tests.support.models import nano

SCRIPT = ROOT / "training" / "probe.py"
DATA = "data.name=synthetic:num=48,size=32"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("probe_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_models_are_measured_and_their_table_rendered(tmp_path, script, capsys):
    folder = export(
        nano("resnet_nano", image_size=32), tmp_path / "model", provenance=provenance(), timm=False
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    arguments = [
        DATA,
        f"model=[baseline:image-statistics, {folder}]",
        "names=[baseline:image-statistics, mine]",
        "protocols=[knn20, linear-n2]",
        "seeds=2",
        f"output_dir={tmp_path}/results",
        f"cache_dir={tmp_path}/cache",
        f"readme={page}",
    ]
    assert script.main(arguments) == 0
    results = read_all(tmp_path / "results")
    assert {r.model for r in results} == {"baseline:image-statistics", "mine"}
    assert {r.protocol for r in results} == {"knn20", "linear-n2"}
    assert results[0].command.startswith("python training/probe.py data.name=synthetic")
    table, _, ending = capsys.readouterr().out.rpartition("|")
    assert f"{table}|" in page.read_text()
    assert f"a file a result in {tmp_path}/results" in ending and "rs-models" in ending
    assert "| mine | synthetic |" in page.read_text()


def test_free_baselines_stand_beside_a_model_and_small_data_is_noted(tmp_path, script, capsys):
    folder = export(
        nano("resnet_nano", image_size=32), tmp_path / "mine", provenance=provenance(), timm=False
    )
    arguments = [
        DATA,
        f"model={folder}",
        "protocols=[knn5, linear-n50]",
        f"output_dir={tmp_path}/results",
        f"cache_dir={tmp_path}/cache",
    ]
    assert script.main(arguments) == 0
    models = ["baseline:image-statistics", "baseline:random-convolutions", "mine"]
    assert sorted(r.model for r in read_all(tmp_path / "results")) == models
    assert capsys.readouterr().err.count("linear-n50 is skipped: class ") == 1
    assert script.main([*arguments[:-2], f"output_dir={tmp_path}/alone", "baselines=[]"]) == 0
    assert [r.model for r in read_all(tmp_path / "alone")] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["protocols=[knn20, linear_n5]"], "Unknown protocol 'linear_n5'"),
        (["model=no/such/folder"], "No model at 'no/such/folder'"),
        (["names=[a]"], "names has 1 entries for 3 models"),
        (["data.test_split=tset"], "tset"),
        (["data.validation_split=validation", "protocols=[linear-n50]"], "50 per class"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, script, capsys, arguments, words):
    where = [f"output_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    assert run_script(script.main, [DATA, *where, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_exit_code_of_bad_input_is_two(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "modle=x", f"output_dir={tmp_path}/results"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown setting modle (did you mean model?)")
