"""Plain values into a dataclass of settings and back, every name, type and range checked."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from typing import Any, TypeVar

from ..errors import UserError
from .ranges import OutOfRange, Range
from .reading import plain

T = TypeVar("T")


def build(cls: type[T], values: dict[str, Any], prefix: str = "") -> T:
    """A dataclass from plain values, every key and type checked.

    Raises:
        UserError: Naming the dotted key, what it should be and what it is.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    hints = typing.get_type_hints(cls, include_extras=True)
    done: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (did you mean {prefix}{close[0]}?)" if close else ""
            known = ", ".join(fields)
            raise UserError(f"Unknown setting {prefix}{key}{hint}; known here: {known}.")
        done[key] = _convert(hints[key], value, f"{prefix}{key}")
    missing = [
        name
        for name, f in fields.items()
        if name not in done
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"The setting {prefix}{missing[0]} has no default: set it.")
    return cls(**done)


def check_ranges(settings: Any, prefix: str = "") -> None:
    """Refuses what is outside of its declared range in an object that was made in Python.

    Args:
        settings: An instance of a settings class; `build` has checked what it makes already.
        prefix: Before the names of its settings, in the sentence.

    Raises:
        UserError: Naming the dotted key and what it should be.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        in_range(hints[field.name], getattr(settings, field.name), f"{prefix}{field.name}")


def in_range(hint: Any, value: Any, key: str) -> None:
    """Checks one value, and what it holds, against the ranges in its declaration.

    Args:
        hint: Declared type.
        value: A value of that type.
        key: Its name, for the sentence.

    Raises:
        OutOfRange: Naming the key and the bound.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        check_ranges(value, f"{key}.")
    elif origin is typing.Annotated:
        in_range(args[0], value, key)
        for limit in args[1:]:
            limit.check(key, value)
    elif origin in (typing.Union, types.UnionType):
        for option in args:
            if _may_be(option, value):
                return in_range(option, value, key)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            in_range(args[0] if args else Any, item, f"{key}[{i}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            in_range(Any, item, f"{key}.{name}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise OutOfRange(f"{key}={value} should be a finite number.")
    return None


def _may_be(hint: Any, value: Any) -> bool:
    """Whether a value is of a type that a declaration names; a whole number may be a float."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    kind = typing.get_origin(hint) or hint
    if not isinstance(kind, type):
        return kind is Any or value in typing.get_args(hint)
    if isinstance(value, bool):
        return kind is bool
    if dataclasses.is_dataclass(kind):
        return isinstance(value, dict | kind)
    return isinstance(value, list if kind is tuple else kind) or (
        kind is float and isinstance(value, int)
    )


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


def merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Writes `source` over `target`, nested groups key by key."""
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def type_name(hint: Any) -> str:
    """A declared type as a reader of the help wants it."""
    if typing.get_origin(hint) is typing.Annotated:
        return type_name(typing.get_args(hint)[0])
    if isinstance(hint, type) and not typing.get_args(hint):
        return {"NoneType": "null"}.get(hint.__name__, hint.__name__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(type_name(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is list:
        return f"list[{type_name(typing.get_args(hint)[0])}]"
    return str(hint).replace("typing.", "")


def _convert(hint: Any, value: Any, key: str) -> Any:
    """A value as its declaration wants it, its type and range checked."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        converted = _convert(args[0], value, key)
        for limit in args[1:]:
            limit.check(key, converted)
        return converted
    if origin in (typing.Union, types.UnionType):
        # 20 for `str | int` is a number: what fits as it is goes before what could be made to fit.
        fitting = [option for option in args if _may_be(option, value)]
        if len(fitting) == 1:
            return _convert(fitting[0], value, key)
        for option in (*fitting, *args):
            try:
                return _convert(option, value, key)
            except OutOfRange:
                raise
            except UserError:
                continue
        raise UserError(f"{key} should be {type_name(hint)}, not {value!r}.")
    if origin is typing.Literal:
        # YAML reads a bare `no` or `false` as a truth value; for a choice that has the word (no
        # mixed precision, the method FALSE) it means that.
        if value is False:
            value = next((word for word in ("no", "false") if word in args), value)
        if value in args:
            return value
        close = difflib.get_close_matches(str(value), map(str, args), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        choices = ", ".join(map(str, args))
        raise UserError(f"{key} should be one of {choices}, not {value!r}{hint}.")
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return build(hint, value, f"{key}.")
        raise UserError(f"{key} should be a group of settings, not {value!r}.")
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise UserError(f"{key} should be a list, not {value!r}.")
        return [_convert(args[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict or hint is dict or hint is Any:
        if hint is not Any and not isinstance(value, dict):
            raise UserError(f"{key} should be a group of settings, not {value!r}.")
        in_range(Any, value, key)
        return plain(value)
    return _scalar(hint, value, key)


def _scalar(hint: Any, value: Any, key: str) -> Any:
    """One text, number, truth value or null."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is type(None) and value is None:
        return None
    if hint is str and (isinstance(value, str) or number):
        if isinstance(value, float):
            Range().check(key, value)
        text = value if isinstance(value, str) else getattr(value, "text", str(value))
        if "\0" in text:
            raise UserError(f"{key} holds a null character: leave it out.")
        return text
    # YAML reads 1e-4 as text (it wants 1.0e-4), a whole number is a fine float, and 1e3 images are
    # 1000.
    if hint in (int, float) and (number or isinstance(value, str)):
        try:
            as_float = float(value)
        except (ValueError, OverflowError):
            pass
        else:
            if hint is float:
                Range().check(key, as_float)
                return as_float
            if isinstance(value, int):
                return int(value)
            if math.isfinite(as_float) and as_float == int(as_float):
                return int(as_float)
    if hint is bool and isinstance(value, bool):
        return value
    raise UserError(f"{key} should be {type_name(hint)}, not {value!r}.")
