"""The command that the package installs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rs_models import cli
from tests.conftest import ROOT


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_help_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)
    assert cli.main([]) == 2


def test_an_unknown_command_is_one_sentence(capsys):
    assert cli.main(["convert-upstram"]) == 2
    assert "did you mean convert-upstream?" in capsys.readouterr().err


def test_bad_input_of_a_command_ends_in_one_sentence_and_code_2(tmp_path):
    garbage = tmp_path / "weights.pth"
    garbage.write_bytes(b"no checkpoint")
    arguments = [str(garbage), "--method", "tov", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "rs_models.cli", "convert-upstream", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
