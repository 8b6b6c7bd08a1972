"""The command line of a script that is driven by settings: a file, then values over it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from ..errors import UserError
from .reading import read_yaml, yaml_value
from .values import build, merge, type_name

T = TypeVar("T")


def parse(cls: type[T], argv: Sequence[str], *, usage: str = "") -> T:
    """Settings of a script from its command line.

    Args:
        cls: Dataclass of the settings; nested dataclasses are nested keys.
        argv: `["--config", FILE, "a.b=1", "--resume", ...]`. A bare `--flag` means `flag=true`;
            `--flag=value` and `flag=value` are the same. Values are read as YAML.
        usage: What `--help` says before the settings.

    Returns:
        An instance of `cls`.

    Raises:
        UserError: Unknown key, wrong type, unreadable file, or an argument that is neither.
        SystemExit: For `--help`, with code 0, after printing every key with type and default.
    """
    if "-h" in argv or "--help" in argv:
        print(f"{usage.rstrip()}\n\nsettings:\n{describe(cls)}" if usage else describe(cls))
        raise SystemExit(0)
    return build(cls, arguments(argv))


def arguments(argv: Sequence[str]) -> dict[str, Any]:
    """What a command line says, nested as it would be in YAML and not yet checked.

    Args:
        argv: As for `parse`.

    Raises:
        UserError: An unreadable file, or an argument that is neither a file nor a setting.
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
            merge(values, read_yaml(path))
            continue
        key, equals, text = argument.removeprefix("--").partition("=")
        if not equals and not argument.startswith("--"):
            raise UserError(f"Cannot read the argument {argument!r}: write key=value.")
        overrides.append((key.replace("-", "_"), yaml_value(key, text) if equals else True))
    for key, value in overrides:
        _set(values, key, value)
    return values


def describe(cls: type, prefix: str = "") -> str:
    """Every dotted key of a settings class with its type and default, a line each."""
    lines = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            lines.append(describe(hint, f"{prefix}{field.name}."))
            continue
        if field.default is not dataclasses.MISSING:
            default = str(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = str(field.default_factory())
        else:
            default = "(no default)"
        lines.append(f"  {prefix}{field.name}: {type_name(hint)} = {default}")
    return "\n".join(lines)


def _set(target: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{dotted} goes into {parent}, which is {inner!r} and not a group.")
        target = inner
    target[last] = value
