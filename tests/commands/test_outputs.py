"""An output that cannot be written is told by every command before it reads or computes."""

from __future__ import annotations

import pytest

from rs_models.cli import main
from rs_models.errors import UserError
from rs_models.files import check_writable

# Inputs that are not there: a command that looked at them first would tell of them.
COMMANDS = {
    "predict": "predict gone.tif --model gone/m --output {place}",
    "embed": "embed gone --model gone/m --output {place}",
    "evaluate": "evaluate --model gone/m --data.name gone --output_dir {place}",
    "suggest": "suggest gone -n 3 --output {place}.csv",
    "suggest's sheet": "suggest gone -n 3 --sheet {place}.png",
    "search": "search gone --like a --output {place}.csv",
    "search's sheet": "search gone --like a --sheet {place}.png",
    "classify": "classify gone --labels gone.csv --output {place}.csv",
    "classify's classifier": "classify gone --labels gone.csv --save {place}",
    "export": "export gone/m {place}",
    "onnx": "onnx gone/m --output {place}.onnx",
    "card": "card gone --output {place}",
    "windows": "windows gone.tif gone.gpkg --classes kind --output {place}",
    "convert-dataset": "convert-dataset aid gone.zip --output {place}",
    "convert-upstream": "convert-upstream gone.pth --method tov --output {place}",
    "pretrain": "pretrain --method.name tov --data.name gone --output_dir {place}",
    "finetune": "finetune --model gone/m --data.name gone --labels 4 --output_dir {place}",
    "finetune's results": "finetune --model gone/m --data.name gone --results_dir {place}",
    "collect": "collect --scenes gone --n 3 --output {place}",
    "resample": "resample --data gone --model gone/m --n 3 --output {place}",
    "study": "study --config study_small --output_dir {place}",
    "study's results": "study --config study_small --results_dir {place}",
    "study's report": "study --config study_small --report {place}.md",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_is_told_first(tmp_path, capsys, name):
    (tmp_path / "file").write_text("x")
    place = tmp_path / "file" / "new" / "a"
    argv = [word.replace("{place}", str(place)) for word in COMMANDS[name].split()]
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {place}") and told.count("\n") == 1
    assert told.endswith("cannot be written (Not a directory): choose another place.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folders" / "file.txt")
    (tmp_path / "file.txt").write_text("x")
    check_writable(tmp_path / "file.txt")  # which would be replaced
    check_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    for place in ("/proc/new", tmp_path / "file.txt" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"):
            check_writable(place)
    # A folder of somebody else's, which the tests' user may own: the system's answer stands in.
    monkeypatch.delattr("os.O_TMPFILE", raising=False)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        check_writable(tmp_path / "new")


def test_a_dry_run_needs_no_place(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    argv = ["pretrain", "--method.name", "tov", "--data.name", "gone/away", "--dry_run"]
    assert main([*argv, "--output_dir", str(tmp_path / "file" / "a")]) == 2
    assert "cannot be written" not in capsys.readouterr().err
