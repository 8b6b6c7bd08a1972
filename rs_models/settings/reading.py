"""Settings as they are written: YAML files, recipes, and single values of a command line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from ..assets import asset
from ..errors import UserError

# Values in a file of settings, far above any of ours: aliases of aliases would fill the memory.
_MOST_VALUES = 100_000


def read_yaml(path: str | Path, *, as_written: bool = False) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: Path of the file, or the name of a recipe that the package brings ("quickstart").
        as_written: Whether numbers remember how they were written, for `build`.

    Raises:
        UserError: If the file is missing, is not YAML or holds no mapping.
    """
    source = recipe_path(path)
    try:
        content = _load(source.read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"The settings {path} cannot be read: {error}") from error
    except OSError as error:
        raise UserError(f"Cannot read the settings {path}: {error.strerror}.") from error
    except RecursionError as error:
        raise UserError(f"The settings {path} are nested too deeply: flatten them.") from error
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"The settings {path} are not valid YAML{line}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"The settings {path} must hold `key: value` lines.")
    return content if as_written else plain(content)


def _load(text: str) -> Any:
    content = yaml.load(text, _Loader)  # nosec B506: a SafeLoader
    if _values(content, {}) > _MOST_VALUES:
        raise UserError("Aliases repeat what was said too often; write it out.")
    return content


def _values(content: Any, known: dict[int, int]) -> int:
    """How many values a content holds where each alias is written out; none is."""
    if not isinstance(content, list | dict):
        return 1
    if id(content) not in known:
        items = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(item, known) for item in items)
    return known[id(content)]


def recipe_path(name: str | Path) -> Path:
    """The file that a name of settings stands for.

    Args:
        name: A file's path, or the name of a recipe that the package brings ("quickstart").

    Raises:
        UserError: If there is neither, with the recipe that was perhaps meant.
    """
    if "\0" in str(name):
        raise UserError("The name of the settings file holds a null character: leave it out.")
    path = Path(name)
    if path.suffix or "/" in str(name) or path.exists():
        return path
    recipes = {recipe.stem: recipe for recipe in asset("configs").glob("*.yaml")}
    if str(name) in recipes:
        return recipes[str(name)]
    close = difflib.get_close_matches(str(name), recipes, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"There is no file and no recipe {name}{hint}; recipes: {', '.join(sorted(recipes))}."
    )


def yaml_value(key: str, text: str) -> Any:
    """A value of a command line, read as YAML; nothing is null.

    Args:
        key: Whose it is, for the sentence.
        text: As it was typed.

    Raises:
        UserError: What is no YAML.
    """
    try:
        return _load(text) if text else None
    except UserError as error:
        raise UserError(f"Cannot read the value of {key}: {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"Cannot read the value of {key}: {text[:80]!r}.") from error


class Whole(int):
    """A whole number that knows how it was written."""

    text: str


class Decimal(float):
    """A number that knows how it was written."""

    text: str


class _Loader(yaml.SafeLoader):
    """YAML whose numbers know how they were written, for a setting that is text (`data=2024`)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A group, each of whose keys stands once."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1 and isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise UserError(f"The key {key.value} stands twice (line {line}); keep one.")
        return super().construct_mapping(node, deep)

    def number(self, node: Any, kind: type[Whole | Decimal], plain: Any) -> Any:
        """A number of `kind` with its `text`; 1:30, which YAML 1.1 takes for 90, is text."""
        text = self.construct_scalar(node)
        if ":" in text:
            return text
        value = kind(plain(self, node))
        value.text = text
        return value


# Any: the stubs know the loaders of the library alone.
_add: Any = _Loader.add_constructor
_add(
    "tag:yaml.org,2002:int",
    lambda loader, node: loader.number(node, Whole, yaml.SafeLoader.construct_yaml_int),
)
_add(
    "tag:yaml.org,2002:float",
    lambda loader, node: loader.number(node, Decimal, yaml.SafeLoader.construct_yaml_float),
)
# A date is text to every setting of ours.
_add("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


def plain(value: Any) -> Any:
    """A value without the memory of how its numbers were written."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Whole):
        return int(value)
    return float(value) if isinstance(value, Decimal) else value
