"""YAML file plus `key=value` overrides into a dataclass, names and types checked.

`script.py --config FILE key=value nested.key=value` is the interface of every script. A wrong key
or type ends in one sentence before anything is done, where argparse and plain YAML would accept it
and train with the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .assets import asset
from .errors import ServiceError, UserError

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
                raise UserError("--config wants a file: --config training/configs/quickstart.yaml")
            path = argument.partition("=")[2] or left.pop(0)
            merge(values, read_yaml(path))
            continue
        key, equals, text = argument.removeprefix("--").partition("=")
        if not equals and not argument.startswith("--"):
            raise UserError(f"cannot read the argument {argument!r}; write key=value")
        overrides.append((key.replace("-", "_"), _yaml_value(key, text) if equals else True))
    for key, value in overrides:
        _set(values, key, value)
    return values


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: Of the file, or the name of a recipe that the package brings ("quickstart").

    Raises:
        UserError: If the file is missing, is not YAML or holds no mapping.
    """
    if not Path(path).suffix and not Path(path).exists():
        packaged = asset("configs") / f"{path}.yaml"
        path = packaged if packaged.is_file() else path
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"the config {path} is not valid YAML{line}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"the config {path} must hold `key: value` lines")
    return content


def build(cls: type[T], values: dict[str, Any], prefix: str = "") -> T:
    """A dataclass from plain values, every key and type checked.

    Raises:
        UserError: Naming the dotted key, what it should be and what it is.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    hints = typing.get_type_hints(cls)
    done: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
            raise UserError(f"unknown setting {prefix}{key}{hint}; known here: {', '.join(fields)}")
        done[key] = _convert(hints[key], value, f"{prefix}{key}")
    missing = [
        name
        for name, f in fields.items()
        if name not in done
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"the setting {prefix}{missing[0]} has no default: set it")
    return cls(**done)


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
        lines.append(f"  {prefix}{field.name}: {_type_name(hint)} = {default}")
    return "\n".join(lines)


def differences(settings: Any) -> dict[str, Any]:
    """What a dataclass of settings says beyond its defaults, nested as it would be in YAML.

    Args:
        settings: An instance; its fields hold plain values, lists, dicts and such dataclasses.
    """
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            inner = differences(value)
            if inner:
                changed[field.name] = inner
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if value != default:
            changed[field.name] = list(value) if isinstance(value, tuple) else value
    return changed


def run_script(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Exit code of a script: one sentence on stderr and 2 for bad input, 1 for a server's fault."""
    try:
        return main(argv) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Write `source` over `target`, nested groups key by key."""
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def _set(target: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{dotted} goes into {parent}, which is {inner!r} and not a group")
        target = inner
    target[last] = value


def _yaml_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise UserError(f"cannot read the value of {key}: {text!r}") from error


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and not typing.get_args(hint):
        return {"NoneType": "null"}.get(hint.__name__, hint.__name__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(_type_name(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    return str(hint).replace("typing.", "")


def _convert(hint: Any, value: Any, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return _convert(option, value, key)
            except UserError:
                continue
        raise UserError(f"{key} should be {_type_name(hint)}, not {value!r}")
    if origin is typing.Literal:
        # YAML reads a bare `no` or `false` as a truth value; for a choice that has the word (no
        # mixed precision, the method FALSE) it means that.
        if value is False:
            value = next((word for word in ("no", "false") if word in args), value)
        if value in args:
            return value
        raise UserError(f"{key} should be one of {', '.join(map(str, args))}, not {value!r}")
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return build(hint, value, f"{key}.")
        raise UserError(f"{key} should be a group of settings, not {value!r}")
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise UserError(f"{key} should be a list, not {value!r}")
        return [_convert(args[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict or hint is dict:
        if isinstance(value, dict):
            return value
        raise UserError(f"{key} should be a group of settings, not {value!r}")
    if hint is type(None) and value is None:
        return None
    # YAML reads 1e-4 as text (it wants 1.0e-4), and a whole number is a fine float.
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{key} should be {_type_name(hint)}, not {value!r}")
