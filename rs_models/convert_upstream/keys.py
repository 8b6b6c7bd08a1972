"""A file's keys: which layout they show, which are the backbone's, and what lies beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from .layouts import LAYOUTS, MARKS, UPSTREAM, Layout


def find_layout(
    content: Mapping[str, Any], file: Path, method: str | None
) -> tuple[Layout, str, str]:
    """The layout, container and prefix that the keys show; the method's own where one is given."""
    matches = [
        (layout, container, prefix)
        for layout in LAYOUTS
        for container in layout.containers
        for prefix in layout.prefixes
        if _holds_backbone(tensors_at(content, container), prefix)
    ]
    fitting = [match for match in matches if method is None or method in match[0].methods]
    if fitting:
        return fitting[0]
    if matches:
        raise UserError(
            f"{file} is not laid out as {method} files are, but as those of "
            f"{' or '.join(matches[0][0].methods)}: check --method."
        )
    tops = Counter(key.split(".")[0] for key in content if isinstance(key, str))
    raise UserError(
        f"{file} has no backbone where the files of {', '.join(UPSTREAM)} have theirs (it begins "
        f"with {', '.join(list(tops)[:6]) or 'nothing'}): only ResNet, ViT and Swin under the "
        "authors' names convert."
    )


def _holds_backbone(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return any(prefix + mark in tensors for marks in MARKS.values() for mark in marks)


def method_of(layout: Layout, tensors: Mapping[str, Tensor], file: Path) -> str:
    """The method that the keys or the file's name tell."""
    if layout.sign and any(re.search(layout.sign, key) for key in tensors):
        return layout.methods[0]
    for candidate in layout.methods:
        pattern = UPSTREAM[candidate].named
        if pattern and re.search(pattern, file.name, re.IGNORECASE):
            return candidate
    raise UserError(
        f"The keys of {file} do not tell its method, other programs write the same: say "
        f"{' or '.join(f'--method {name}' for name in layout.methods)}."
    )


def tensors_at(content: Mapping[str, Any], container: str) -> dict[str, Tensor]:
    """The tensors by name at a dotted path; empty where there is no such path."""
    inner: Any = content
    for part in container.split(".") if container else []:
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping):
        return {}
    return {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}


def split(
    tensors: Mapping[str, Tensor], prefix: str, heads: str
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """Backbone tensors by their names without the prefix, names of heads, and other names.

    Only a leading prefix goes: the same letters inside a name stay (the official loaders replace
    them anywhere).
    """
    own: dict[str, Tensor] = {}
    dropped, unmatched = [], []
    for key, value in tensors.items():
        if re.search(heads, key):
            dropped.append(key)
        elif key.startswith(prefix):
            own[key.removeprefix(prefix)] = value
        else:
            unmatched.append(key)
    return own, tuple(dropped), tuple(unmatched)


def beside(content: Mapping[str, Any], container: str) -> dict[str, int]:
    """Other dictionaries of tensors in the file, as {"path.*": how many}."""

    def walk(inner: Mapping[Any, Any], path: str) -> Iterator[tuple[str, int]]:
        if path == container:
            return
        count = len(tensors_at(inner, ""))
        if path and count:
            yield f"{path}.*", count
        for key, value in inner.items():
            # Optimizers number their parameters: those are no weights.
            if isinstance(key, str) and isinstance(value, Mapping):
                yield from walk(value, f"{path}.{key}" if path else key)

    return dict(walk(content, ""))


def grouped(keys: Iterable[str], heads: str) -> dict[str, int]:
    """Dropped keys by what made them heads: {"module.encoder_k.*": 322, "module.queue": 1}."""
    groups: Counter[str] = Counter()
    for key in keys:
        found = re.search(heads, key)
        if found and found.end() < len(key):
            groups[f"{key[: found.end()]}*"] += 1
        else:
            groups[f"*{found[0]}" if found and found.start() else key] += 1
    return dict(groups)


def get(tensors: Mapping[str, Tensor], key: str, file: Path) -> Tensor:
    """A tensor that the network needs."""
    if key not in tensors:
        raise UserError(f"{file} lacks {key}: a part of a network is never loaded.")
    return tensors[key]


def check_fit(key: str, value: Tensor, expected: Tensor, file: Path, what: str) -> None:
    """Refuses a tensor of another shape than the network's, or one that is not finite."""
    if value.shape != expected.shape:
        raise UserError(
            f"{file} does not fill {what}: {key} has shape {tuple(value.shape)}, expected "
            f"{tuple(expected.shape)}."
        )
    if not value.isfinite().all():
        raise UserError(f"{file} holds NaN or infinite values in {key}: its training diverged.")


def listed(keys: Sequence[str]) -> str:
    """How many keys, and the first of them by name."""
    shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
    return f"{len(keys)} ({shown})" if keys else "none"
