"""The README: short, and every command and snippet of it runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from rs_models import cli
from rs_models.evaluation.results import read_all
from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
# What makes the README's own commands small, by command; its words stay as they are.
SMALL = {
    "pretrain": (
        *("--epochs", "1", "--batch_size", "8", "--backbone", "resnet_nano"),
        *("--image_size", "32", "--evaluation.beside", "null"),
    ),
    "finetune": ("--max_steps", "2", "--evaluations", "1", "--batch_size", "4"),
    "predict": ("--tile", "64"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of each command, in order; comments and `&&` apart."""
    lines = []
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            lines += [part for part in line.split("&&") if not part.strip().startswith("#")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_it_is_short_and_names_what_is_there():
    assert len(TEXT) <= 10_000, f"{len(TEXT):,} characters"
    for link in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)", TEXT):
        target = "".join(link)
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for name in re.findall(r"(?:hub|docs|training)/[\w./-]*\w", TEXT):
        assert (ROOT / name).exists(), name


def test_snippets_run_in_a_clone_without_us():
    assert blocks("python")
    for block in blocks("python"):
        code = f"{block}\nimport sys\nassert 'rs_models' not in sys.modules\nprint(features.shape)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        shape = re.search(r"# \((\d+, \d+)\)", block)
        assert shape and f"[{shape[1]}]" in done.stdout


def test_installs_name_extras_that_there_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installs = [words for words in commands() if words[:2] == ["pip", "install"]]
    assert installs
    for words in installs:
        for extra in re.findall(r"\[([\w,]+)\]", words[-1]):
            assert set(extra.split(",")) <= set(project["optional-dependencies"])


def test_every_other_command_is_run_below():
    known = {"pip", "accelerate", "rs-models", "zensical", "pytest"}
    assert {words[0] for words in commands()} <= known


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    from tests.predict.helpers import pixels, write

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "scene.tif", pixels(90, 120))
    (tmp_path / "path/to/images").mkdir(parents=True)
    from rs_models.data import load

    for number, row in enumerate(load("rs/ucmerced", "validation").select(range(24))):
        row["image"].save(tmp_path / f"path/to/images/{number}.jpg")
    ran = []
    for words in commands():
        if words[0] != "rs-models" or words[1] == "demo":  # the Spaces' own tests open them
            continue
        if words[1] == "classify":  # the reader labels what was suggested
            label_by_name(tmp_path / words[words.index("--labels") + 1])
        assert cli.main([*words[1:], *SMALL.get(words[1], ())]) == 0, capsys.readouterr().err
        ran.append(words[1])
    assert {"pretrain", "embed", "suggest", "classify", "finetune", "predict"} <= set(ran)
    assert (tmp_path / "outputs/map.tif").is_file() and (tmp_path / "outputs/map.geojson").is_file()


OPEN = ("agricultural", "beach", "chaparral", "forest", "golfcourse", "river", "baseballdiamond")


def label_by_name(path) -> None:
    """Fills in the labels that a person would: UC Merced's tiles are called by their class."""
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    assert head == "tile,label" and rows
    filled = [f"{row}{'open' if row.startswith(OPEN) else 'built'}" for row in rows]
    path.write_text("\n".join([head, *filled]) + "\n", encoding="utf-8")


def test_what_all_stages_give_is_what_was_measured():
    results = {
        one.protocol: one.mean
        for one in read_all(ROOT / "model_cards" / "results")
        if (one.model, one.data) == ("false-resnet18", "aid96")
    }
    said = f"from {results['knn20']:.1f} to {results['knn20@stages']:.1f} on AID by k-NN"
    assert said in " ".join(TEXT.split())
