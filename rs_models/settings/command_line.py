"""The command line of a script that is driven by settings: a file, then values over it.

One grammar: `--name value`, dotted for groups (`--data.name value`), and `name=value`, which means
the same; values are read as YAML. What a setting means is told from the docstring of its class.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import UserError
from ..files import check_writable
from .reading import read_yaml, yaml_value
from .values import build, in_range, merge, type_name

T = TypeVar("T")
_TRUTH = ("true", "false")
_WIDTH = 100
# What arguments and settings that name an output are called.
_PLACES = ("output", "output_dir", "results_dir", "report", "readme", "sheet", "save")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a class, groups opened.

    Attributes:
        key: Its dotted name.
        hint: Declared type.
        default: As text.
        meaning: What its class's docstring says of it.
    """

    key: str
    hint: Any
    default: str
    meaning: str


def parse(cls: type[T], argv: Sequence[str], *, usage: str = "") -> T:
    """Settings of a script from its command line.

    Args:
        cls: Dataclass of the settings; nested dataclasses are nested keys.
        argv: `["--config", FILE, "--a.b", "1", "a.b=1", "--resume", ...]`. A flag that is a truth
            value may stand alone. Values are read as YAML.
        usage: What `--help` says before the settings.

    Returns:
        An instance of `cls`.

    Raises:
        UserError: Unknown key, wrong type, unreadable file, or an argument that is neither.
        SystemExit: For `--help`, with code 0, after telling what each setting means.
    """
    if "-h" in argv or "--help" in argv:
        print(f"{usage.rstrip()}\n\nsettings:\n{describe(cls)}" if usage else describe(cls))
        raise SystemExit(0)
    config = build(cls, arguments(cls, argv))
    if not getattr(config, "dry_run", False):
        _check_places(vars(config))
    return config


def arguments(cls: type, argv: Sequence[str]) -> dict[str, Any]:
    """What a command line says, nested as it would be in YAML; types are not checked yet.

    Args:
        cls: Dataclass of the settings.
        argv: As for `parse`.

    Raises:
        UserError: An unreadable file, an unknown setting, one without a value, or an argument that
            is neither a file nor a setting.
    """
    values: dict[str, Any] = {}
    left = list(argv)
    overrides: list[tuple[str, Any]] = []
    while left:
        argument = left.pop(0)
        if argument == "--config" or argument.startswith("--config="):
            if "=" not in argument and not left:
                raise UserError("--config wants a file or recipe: --config quickstart.")
            path = argument.partition("=")[2] or left.pop(0)
            merge(values, read_yaml(path, as_written=True))
            continue
        name, equals, text = argument.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if not equals and not argument.startswith("--"):
            raise UserError(
                f"Cannot read the argument {argument!r}: write --name {argument} or "
                f"name={argument}, with the name of a setting."
            )
        hint = declared(cls, key)
        if not equals and hint is bool:
            text = left.pop(0) if left and left[0] in _TRUTH else "true"
        elif not equals:
            if not left or left[0].startswith("--"):
                raise UserError(f"--{name} wants a value: --{name} VALUE.")
            text = left.pop(0)
        overrides.append((key, yaml_value(key, text)))
    for key, value in overrides:
        _set(values, key, value)
    return values


def declared(cls: type, key: str) -> Any:
    """The declared type of a setting; `Any` for what is inside a free group.

    Args:
        cls: Dataclass of the settings.
        key: Dotted name.

    Raises:
        UserError: There is no such setting; the sentence says which was perhaps meant.
    """
    hint: Any = cls
    for part in key.split("."):
        group = _group(hint)
        if group is None:
            if hint is Any or dict in (hint, typing.get_origin(hint)) or _holds_dict(hint):
                return Any
            raise UserError(f"Unknown setting {key}: there is nothing inside of it.")
        hints = typing.get_type_hints(group, include_extras=True)
        if part not in hints:
            meant = _meant(key, [setting.key for setting in settings(cls)])
            here = ", ".join(field.name for field in dataclasses.fields(group))
            raise UserError(f"Unknown setting {key}{meant}; known here: {here}.")
        hint = hints[part]
    return hint


def _meant(key: str, known: Sequence[str]) -> str:
    """A hint at the setting that was perhaps meant, also where its group was left out."""
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    close = difflib.get_close_matches(key, known, n=1)
    if not close:
        close = [
            last[word] for word in difflib.get_close_matches(key.rpartition(".")[2], last, n=1)
        ]
    return f" (did you mean {close[0]}?)" if close else ""


def _group(hint: Any) -> type | None:
    """The dataclass that a declaration names, alone or beside null."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _holds_dict(hint: Any) -> bool:
    return _is_union(hint) and any(
        dict in (option, typing.get_origin(option)) for option in typing.get_args(hint)
    )


def settings(cls: type, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a class, in order, groups opened."""
    hints = typing.get_type_hints(cls, include_extras=True)
    meanings = attributes(cls)
    for field in dataclasses.fields(cls):
        hint, key = hints[field.name], f"{prefix}{field.name}"
        group = _group(hint)
        if group is not None:
            yield from settings(group, f"{key}.")
            continue
        default: Any = "(no default)"
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "null" if default is None else str(default)
        yield Setting(key, hint, shown, meanings.get(field.name, ""))


def attributes(cls: type) -> dict[str, str]:
    """What the `Attributes:` of a class's docstring say of each."""
    section = (cls.__doc__ or "").partition("Attributes:\n")[2]
    meanings: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section).splitlines():
        start = re.match(r"(\w+): (.*)", line)
        if start:
            name = start[1]
            meanings[name] = start[2]
        elif name and line.startswith(" "):
            meanings[name] += f" {line.strip()}"
    return meanings


def describe(cls: type) -> str:
    """Every setting with its type, its default and what it means."""
    lines = []
    for setting in settings(cls):
        lines.append(f"  {setting.key}: {type_name(setting.hint)} = {setting.default}")
        lines += textwrap.wrap(
            setting.meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def settings_parser(prog: str, cls: type) -> argparse.ArgumentParser:
    """The settings of a class as options, for completion.

    Args:
        prog: The command.
        cls: Dataclass of its settings.
    """
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--config", help="settings file, or the name of a recipe")
    for setting in settings(cls):
        choices = next(
            (
                [str(word) for word in typing.get_args(option)]
                for option in (setting.hint, *typing.get_args(setting.hint))
                if typing.get_origin(option) is typing.Literal
            ),
            None,
        )
        meaning = setting.meaning.replace("%", "%%")
        if setting.hint is bool:
            parser.add_argument(f"--{setting.key}", action="store_true", help=meaning)
        else:
            parser.add_argument(f"--{setting.key}", choices=choices, help=meaning)
    return parser


class Options(argparse.ArgumentParser):
    """Arguments of a command that has no settings file, in the same grammar.

    `name=value` is `--name value`, `-` and `_` in a name are one, and what is wrong ends in one
    sentence with what was perhaps meant. The type of a number says its range, as a setting's does:
    `type=Count`.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Takes what `argparse.ArgumentParser` takes; a word is never completed by guessing."""
        self.ranges: dict[str, tuple[str, Any]] = {}  # destination -> the option's name, its type
        super().__init__(*args, **{"allow_abbrev": False, **keywords})

    def add_argument(self, *names: Any, **keywords: Any) -> Any:
        """Takes what argparse takes, and a type with a range."""
        kind = keywords.get("type")
        if typing.get_origin(kind) is typing.Annotated:
            keywords["type"] = typing.get_args(kind)[0]
        action = super().add_argument(*names, **keywords)
        if kind is not None:
            self.ranges[action.dest] = (names[-1], kind)
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads the words after bringing each name into the form that was declared.

        Raises:
            UserError: A number outside of its range, or a text that holds a null character.
        """
        words = [self._declared(word) for word in args or []]
        if any("\0" in word for word in words):
            raise UserError("An argument holds a null character: leave it out.")
        found, left = super().parse_known_args(words, namespace)
        for destination, (name, kind) in self.ranges.items():
            value = getattr(found, destination)
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    in_range(kind, one, name)
        if not getattr(found, "check", False):  # else it is compared, and not written
            _check_places(vars(found))
        return found, left

    def _declared(self, word: str) -> str:
        name, equals, value = word.partition("=")
        flag = f"--{name.removeprefix('--').replace('_', '-')}"
        if flag not in self._option_string_actions or not (equals or name.startswith("--")):
            return word
        if value == "true" and self._option_string_actions[flag].nargs == 0:
            return flag
        return f"{flag}{equals}{value}"

    def error(self, message: str) -> typing.NoReturn:
        """Tells what is wrong.

        Raises:
            UserError: Always.
        """
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        meant = ""
        if unknown:
            close = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            message = f"unknown argument {unknown[1]}"
        sentence = message[0].upper() + message[1:]
        raise UserError(f"{sentence}{meant}; {self.prog} --help tells what there is.")


def _check_places(values: Mapping[str, Any]) -> None:
    """Refuses outputs that cannot be written, while nothing is computed yet."""
    for name in _PLACES:
        if isinstance(place := values.get(name), str):
            check_writable(place)


def _set(target: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{dotted} goes into {parent}, which is {inner!r} and not a group.")
        target = inner
    target[last] = value
