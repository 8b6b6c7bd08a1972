"""Each command says its own lines and draws one bar: nothing of the libraries comes through."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rs_models import cli
from rs_models.settings import duration
from tests.predict.helpers import pixels, write

BAR = re.compile(r"(?P<job>[a-z-]+) +\d+% \|.*\| \d+/\d+ [a-z]+s, \S+ left.*")
PRETRAIN = (
    *("pretrain", "--config", "quickstart", "--data.name", "synthetic:num=48,size=40"),
    *("--backbone", "resnet_nano", "--image_size", "32", "--batch_size", "16", "--epochs", "2"),
    *("--evaluation.every", "1", "--evaluation.beside", "null"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a small pretraining run."""
    root = tmp_path_factory.mktemp("quiet")
    assert cli.main([*PRETRAIN, "--output_dir", str(root / "run")]) == 0
    return root


def said(capfd, arguments) -> tuple[list[str], list[str]]:
    """(lines on stdout, lines on stderr without bars of which there is one kind at most)."""
    capfd.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 0
    out, err = capfd.readouterr()
    lines = [line.strip() for line in re.split(r"[\r\n]|\x1b\[\w", err) if line.strip()]
    jobs = {match["job"] for line in lines if (match := BAR.fullmatch(line))}
    assert len(jobs) <= 1, jobs
    return out.splitlines(), [line for line in lines if not BAR.fullmatch(line)]


def test_pretrain(tmp_path, capfd):
    out, err = said(capfd, [*PRETRAIN, "--output_dir", tmp_path / "run"])
    assert all(re.fullmatch(r"step \d+: k-NN [\d.]+ % on validation", line) for line in err), err
    text = "\n".join(out)
    assert "this run" in text and re.search(r"Done in .+ s", text)
    assert out[-1].startswith("Next: rs-models evaluate --model")


def test_evaluate(run, tmp_path, capfd):
    out, err = said(
        capfd,
        [
            *("evaluate", "--model", run / "run/export", "--data.name", "synthetic:num=48,size=40"),
            *("--protocols", "[knn5, linear-n50]", "--output_dir", tmp_path),
        ],
    )
    assert len(err) == 1 and "linear-n50" in err[0]  # the data is too small for it
    assert out[2].startswith("| model") and out[-1].startswith("Next: rs-models finetune --model")


@pytest.mark.parametrize(
    ("task", "more", "end"),
    [
        ("classification", ("--seeds", "[0, 1]"), "--output map.tif"),
        ("segmentation", ("--head", "fcn"), "--output map.tif"),
    ],
)
def test_finetune(run, tmp_path, capfd, task, more, end):
    out, err = said(
        capfd,
        [
            *("finetune", "--task", task, "--model", run / "run/export", "--labels", "12"),
            *("--data.name", "synthetic:num=24,size=48", "--max_steps", "3", "--batch_size", "4"),
            *("--output_dir", tmp_path / "tuned", *more),
        ],
    )
    assert all(line.endswith(".") and "{" not in line for line in err), err
    assert len(err) <= 1
    assert out[2].startswith("| model") and out[-1].endswith(end)
    assert re.search(r"holds the model of seed 0; .+ s\.", "\n".join(out))


def test_embed_and_label(run, tmp_path, capfd):
    table = tmp_path / "table"
    source = "synthetic:num=48,size=40"
    out, err = said(capfd, ["embed", source, "--model", run / "run/export", "--output", table])
    assert not err
    assert re.fullmatch(rf"{table}: 48 embeddings in 1 shard, .+ s", out[0])
    assert out[1].startswith(f"Next: rs-models suggest {table} -n 20 ")
    todo = tmp_path / "todo.csv"
    out, err = said(capfd, ["suggest", table, "-n", "8", "--output", todo])
    assert len(err) == 1 and err[0].startswith("Next: ")  # names alone go to a pipe
    assert len(out) == 8 + 1
    labels = tmp_path / "labels.csv"
    rows = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(out[:8])]
    labels.write_text("\n".join(["tile,label", *rows]) + "\n")
    answers = tmp_path / "answers.csv"
    out, err = said(capfd, ["classify", table, "--labels", labels, "--output", answers])
    assert not err and out[-1].startswith("Next: rs-models suggest")
    out, err = said(capfd, ["search", table, "--like", out and rows[0].split(",")[0], "-k", "3"])
    assert len(out) == 3 and all(line.startswith("Next: ") for line in err)


def test_predict(run, tmp_path, capfd):
    scene = tmp_path / "scene.tif"
    write(scene, pixels(90, 120))
    out, err = said(
        capfd,
        ["predict", scene, "--model", run / "run/export", "--output", tmp_path / "f.tif"],
    )
    assert not err, err
    assert re.search(r"\d+ tiles in .+ s", out[0]) and out[-1].startswith("Next: ")


def test_convert_and_collect(tmp_path, capfd):
    from tests.data.convert.tiny import make

    make("rsscn7", tmp_path / "source")
    arguments = ["rsscn7", tmp_path / "source", "--output", tmp_path / "set"]
    out, err = said(capfd, ["convert-dataset", *arguments])
    assert not err and out[-1] == f"Next: rs-models check {tmp_path / 'set'}"
    out, err = said(capfd, ["check", tmp_path / "set"])
    assert not err


def test_smaller_commands(run, tmp_path, capfd):
    export = run / "run/export"
    for arguments in (
        ["list"],
        ["info", export],
        ["export", run / "run/pretraining", tmp_path / "again"],
        ["card", run / "run", "--output", tmp_path / "card"],
    ):
        out, err = said(capfd, arguments)
        assert out and not err, (arguments, err)


def test_libraries_talk_again_after_a_command():
    import datasets
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    assert cli.main(["list"]) == 0
    assert (logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()) == shown


def test_times_are_said_as_people_do():
    assert [duration(s) for s in np.array([0.04, 59.9, 60, 3599, 3600])] == [
        *("0.0 s", "59.9 s", "1 min 00 s", "59 min 59 s", "1 h 00 min"),
    ]
