"""Every setting and every number of every command, each given what it cannot be.

The values are made from the declarations: what must be refused is refused in one sentence that
names the setting, with exit code 2 and nothing written.
"""

from __future__ import annotations

import argparse
import itertools
import types
import typing
from typing import Annotated, Any

import pytest
import yaml

from rs_models import cli
from rs_models.settings import Options, parse, run_script
from tests.settings.test_ranges import CLASSES, nested, settings_of

# What no setting of a kind may be, as YAML has it. Numbers have more, see `test_ranges`.
EACH = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
WRONG = {
    "number": {
        **EACH,
        "a list": [[]],
        "a group": {"a": 1},
        "a word": "many",
        "nothing": "",
        "": [],
    },
    "truth": {**EACH, "a list": [], "a group": {}, "a word": "perhaps", "nothing": "", "two": 2},
    "choice": {**EACH, "a list": [], "a group": {}, "a word": "qqqq", "nothing": "", "less": -1},
    "text": {**EACH, "a list": [1], "a group": {"a": 1}, "NUL": "a\0b", "truth": True},
    "list": {**EACH, "a group": {"a": 1}, "a word": "many", "less": -1, "a list of it": [[[]]]},
    "group": {
        **EACH,
        "a list": [1],
        "a word": "many",
        "less": -1,
        "nan inside": {"a": EACH["nan"]},
    },
}


def kinds_of(hint: Any) -> set[str]:
    """What a declaration allows, of the keys of `WRONG`, and "null"."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return kinds_of(options[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(kinds_of, options))
    if origin is typing.Literal:
        return {"choice"}
    if hint is Any:
        return {"anything"}
    kind = origin or hint
    names = {int: "number", float: "number", bool: "truth", str: "text", type(None): "null"}
    names |= {list: "list", tuple: "list", dict: "group"}
    return {names[kind]}


def wrong_values(hint: Any) -> list[tuple[str, Any]]:
    """(what it is, value) of what a declaration cannot mean."""
    kinds = kinds_of(hint)
    if "anything" in kinds:
        return [(name, value) for name, value in EACH.items()]
    wrong = [{repr(v): (n, v) for n, v in WRONG[kind].items()} for kind in kinds - {"null"}]
    shared = set.intersection(*map(set, wrong))  # refused by each kind that it may be
    values = [wrong[0][key] for key in sorted(shared)]
    return values if "null" in kinds else [*values, ("null", None)]


SETTINGS = [
    (cls, key, what, value)
    for cls in CLASSES
    for key, hint in settings_of(cls)
    for what, value in wrong_values(hint)
]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith(".\n"), said
    return said


@pytest.mark.parametrize("cls", CLASSES, ids=[c.__name__ for c in CLASSES])
def test_what_a_setting_cannot_mean_is_refused_by_name(cls, tmp_path, monkeypatch, capsys):
    file = tmp_path / "settings.yaml"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _, key, what, value in (row for row in SETTINGS if row[0] is cls):
        file.write_text(yaml.safe_dump(nested(key, value)))
        code = run_script(lambda argv: parse(cls, argv) and 0, ["--config", str(file)])
        said = capsys.readouterr().err
        assert code == 2, (key, what)
        assert said.startswith(f"error: {key}") and said.count("\n") == 1, (key, what, said)
    assert not list((tmp_path / "here").iterdir())


WORDS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "many",
    "",
    "0x10",
    "1,2",
    "9" * 30,
    "9" * 5000,
    "5 m",
)


def numbers_of(command: str) -> list[tuple[list[str], argparse.Action]]:
    """The words that a command wants at least, and each of its numbers."""
    parser = cli._module(command).parser()
    if not isinstance(parser, Options):
        return []
    actions = parser._actions
    least: list[str] = []
    for action in actions:
        many = action.nargs if isinstance(action.nargs, int) else 1
        if action.required and action.option_strings:
            least += [action.option_strings[-1], *["x"] * many]
        elif not action.option_strings and action.nargs not in ("?", "*"):
            least += [next(iter(action.choices))] if action.choices else ["x"] * many
    return [(least, action) for action in actions if action.type in (int, float)]


FREE = {("predict", "offset"), ("convert-upstream", "value_range")}  # they may be below 0
BOUNDLESS = FREE | {("predict", "scale"), ("predict", "min_area")}  # or as large as a float is
NUMBERS = [
    (command, least, action, word)
    for command in cli.COMMANDS
    for least, action in numbers_of(command)
    for word in WORDS
    if not (word == "-1" and (command, action.dest) in FREE)
    if not (word == "9" * 30 and (command, action.dest) in BOUNDLESS)
]


def test_what_a_number_of_a_command_cannot_be_is_refused_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command, least, action, word in NUMBERS:
        words = [word] * (action.nargs or 1)
        flag = action.option_strings[-1]
        spelt = [f"{flag}={word}"] if len(words) == 1 else [flag, *words]
        code = cli.main([command, *least, *spelt])
        assert code == 2, (command, spelt)
        assert flag in told(capsys), (command, spelt)
    assert not list(tmp_path.iterdir())


def test_every_number_of_a_command_says_what_it_may_be():
    for command in cli.COMMANDS:
        parser = cli._module(command).parser()
        for _, action in numbers_of(command):
            name, kind = parser.ranges[action.dest]
            assert typing.get_origin(kind) is Annotated, f"{command} {name}"


def test_the_tables_are_large():
    keys = {(cls, key) for cls, key, _, _ in SETTINGS}
    assert keys == {(cls, key) for cls in CLASSES for key, _ in settings_of(cls)}
    assert len(SETTINGS) + len(NUMBERS) > 800, (len(SETTINGS), len(NUMBERS))
    assert all(list(group) for _, group in itertools.groupby(NUMBERS, lambda row: row[0]))
