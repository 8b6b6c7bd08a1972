"""YAML and overrides: what is read, and what is refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from rs_models.errors import UserError
from rs_models.settings import Options, describe, parse, run_script, settings_parser


@dataclass
class Inner:
    """What is inside.

    Attributes:
        rate: How fast,
            in steps.
        name: Of the 5 % that matter.
    """

    rate: float = 0.1
    name: str | None = None


@dataclass
class Outer:
    steps: int = 3
    mode: Literal["no", "bf16"] = "no"
    inner: Inner = field(default_factory=Inner)
    words: list[str] = field(default_factory=list)
    free: dict[str, Any] = field(default_factory=dict)
    flag: bool = False


def test_later_values_win_and_nested_groups_merge(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("steps: 5\ninner: {rate: 1e-4, name: x}\nmode: no\nfree: {a: 1}\n")
    got = parse(
        Outer,
        ["--config", str(file), "inner.rate=2", "free.b=[1, 2]", "--flag", "words=[p, q]"],
    )
    assert (got.steps, got.inner, got.mode) == (5, Inner(2.0, "x"), "no")
    assert (got.free, got.flag, got.words) == ({"a": 1, "b": [1, 2]}, True, ["p", "q"])


def test_a_rate_written_without_a_point_is_a_number():
    assert parse(Outer, ["inner.rate=1e-4"]).inner.rate == 1e-4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["step=5"], "Unknown setting step .did you mean steps"),
        (["inner.rat=5"], "Unknown setting inner.rat .did you mean inner.rate"),
        (["steps=five"], "steps should be int, not 'five'"),
        (["steps=2.5"], "steps should be int"),
        (["steps=true"], "steps should be int"),
        (["flag=1"], "flag should be bool"),
        (["inner.rate=fast"], "inner.rate should be float"),
        (["mode=fp8"], "mode should be one of no, bf16"),
        (["inner=3"], "inner should be a group"),
        (["words=p"], "words should be a list"),
        (["words=[[1]]"], r"words\[0\] should be str"),
        (["steps"], "write --name steps or name=steps"),
        (["--steps"], "--steps wants a value"),
        (["--steps", "--flag"], "--steps wants a value"),
        (["--rat", "3"], "Unknown setting rat .did you mean"),
        (["--rate", "3"], "did you mean inner.rate"),
        (["--flag.x", "3"], "nothing inside"),
        (["--mode", "bf61"], "mode should be one of no, bf16, not .bf61. .did you mean bf16"),
        (["steps.more=1", "steps=1", "steps.more=2"], "nothing inside"),
        (["--config", "absent.yaml"], "Cannot read the settings absent.yaml"),
        (["--config", "absnt"], "There is no file and no recipe absnt"),
        (["--config", "quickstrat"], "did you mean quickstart"),
        (["--config", "a\0b"], "null character"),
        (['inner.name="a\\0b"'], "inner.name holds a null character"),
        (["inner.rate=.nan"], "inner.rate=nan should be a finite number"),
        (["free={a: [.inf]}"], r"free.a\[0\]=inf should be a finite number"),
        (["--config"], "wants a file"),
        (["free={a"], "Cannot read the value of free"),
    ],
)
def test_wrong_input_names_the_key(argv, words):
    with pytest.raises(UserError, match=words):
        parse(Outer, argv)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [1", "not valid YAML .line"), ("- 1\n", "must hold `key: value`")]
)
def test_wrong_files_are_named(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        parse(Outer, ["--config", str(file)])


def test_help_lists_every_dotted_key(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Outer, ["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "inner.rate: float = 0.1" in shown
    assert "mode: no | bf16 = no" in shown
    assert "      How fast, in steps." in shown
    assert shown.strip() == describe(Outer).strip()


def test_options_and_pairs_are_one_grammar():
    pairs = ["steps=5", "inner.rate=-1", "free.b=[1, 2]", "flag=true", "words=[p]"]
    words = ["--steps", "5", "--inner.rate", "-1", "--free.b", "[1, 2]", "--flag", "--words=[p]"]
    assert parse(Outer, pairs) == parse(Outer, words)
    assert parse(Outer, ["--flag", "false", "--steps", "4"]) == Outer(steps=4)
    assert parse(Outer, ["--flag", "--steps", "4"]) == Outer(steps=4, flag=True)


def test_a_command_of_options_reads_the_same_grammar():
    options = Options(prog="rs-models show")
    options.add_argument("folder")
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--all", action="store_true")
    one = options.parse_args(["x=y", "batch_size=3", "all=true"])
    two = options.parse_args(["--batch_size", "3", "x=y", "--all"])
    assert vars(one) == vars(two) == {"folder": "x=y", "batch_size": 3, "all": True}
    for argv, words in (
        (["x", "--bach-size", "3"], "Unknown argument --bach-size .did you mean --batch-size"),
        (["x", "--batch", "3"], "Unknown argument --batch"),
        (["x", "batch_size=three"], "invalid int value: 'three'; rs-models show --help tells"),
        ([], "arguments are required: folder"),
    ):
        with pytest.raises(UserError, match=words):
            options.parse_args(argv)


def test_completion_knows_every_setting_with_its_words_and_meaning():
    shown = settings_parser("rs-models x", Outer).format_help()
    assert "--inner.rate" in shown and "{no,bf16}" in shown and "Of the 5 % that matter." in shown


def test_text_is_kept_as_it_was_written_and_round_numbers_are_whole():
    got = parse(Outer, ["inner.name=007", "words=[2024, 1.10, 2024-01-01]", "steps=1e3"])
    assert (got.inner.name, got.words, got.steps) == ("007", ["2024", "1.10", "2024-01-01"], 1000)
    free = parse(Outer, ["free={a: 3, b: [1.5]}"]).free
    assert [type(free["a"]), type(free["b"][0])] == [int, float]


def test_scripts_end_with_two_on_bad_input(capsys):
    def main(argv):
        raise UserError("the file x is missing")

    assert run_script(main, []) == 2
    assert capsys.readouterr().err == "error: the file x is missing.\n"
    assert run_script(lambda argv: None, []) == 0


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_files_of_windows_are_read_and_times_are_no_numbers(tmp_path, ends):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + ends.join([b"steps: 5", b"inner:", b"  name: 1:30", b""]))
    outer = parse(Outer, ["--config", str(file)], usage="")
    assert outer.steps == 5 and outer.inner.name == "1:30"
    with pytest.raises(UserError, match="1:30"):  # YAML 1.1 takes it for 90
        parse(Outer, ["steps=1:30"], usage="")
