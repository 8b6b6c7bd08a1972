"""Results as files: one JSON for each (model, data set, protocol), the only source of every table.

Cards, the README's table and the model index are rendered from these files and from nothing else,
so a file that does not keep to the schema is refused by name and key instead of rendered.
"""

# No `from __future__ import annotations` here: strict dataclasses check types that are not strings.

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.dataclasses import strict

from ..errors import UserError
from ..files import complete, write_text
from ..provenance import are_numbers, is_number, is_text, must, read_record
from ..version import __version__

BOOTSTRAP_SAMPLES = 1000
_PACKAGES = ("torch", "transformers", "timm", "numpy")
# Order of a table's columns; other protocols follow by name.
_ORDER = ("knn20", "knn5", "linear-n", "linear")


def _is_date(value: Any) -> bool:
    try:
        return datetime.datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_text, value.values()))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


@strict
@dataclass
class Result:
    """One model on one data set by one protocol.

    Attributes:
        model: Name or Hub id of the encoder.
        model_revision: Commit on the Hub, or hash of the weights.
        data: Name or Hub id of the data set.
        data_revision: Commit on the Hub, or hash of the images.
        protocol: Name, with "@<pixels>" where the images were brought to another size than the
            model's own.
        settings: Everything else that the numbers depend on.
        metric: What `values` measure, e.g. "accuracy", in percent.
        values: One a seed; a single one for protocols without draws.
        mean: Mean of the values.
        std: Standard deviation of the values (divided by their number, not one less).
        interval: 95% bootstrap interval of the mean over the test images.
        versions: Packages and their versions.
        date: When it was measured, ISO 8601, UTC.
        command: Command that measures it again.
        scores: Other scores of the same runs, a list a name, one a seed: from 0 to 1, kappa from
            -1.
    """

    model: str = field(metadata=must("a text", is_text))
    model_revision: str = field(metadata=must("a text", is_text))
    data: str = field(metadata=must("a text", is_text))
    data_revision: str = field(metadata=must("a text", is_text))
    protocol: str = field(metadata=must("a text", is_text))
    settings: dict[str, Any] = field(metadata=must("an object", _is_object))
    metric: str = field(metadata=must("a text", is_text))
    values: list[int | float] = field(
        metadata=must("a list of one or more finite numbers", are_numbers)
    )
    mean: int | float = field(metadata=must("a finite number", is_number))
    std: int | float = field(metadata=must("a finite number", is_number))
    interval: list[int | float] = field(
        metadata=must("[low, high]", lambda value: are_numbers(value, 2))
    )
    versions: dict[str, str] = field(metadata=must("an object of package versions", _is_text_map))
    date: str = field(metadata=must("an ISO 8601 time with its zone", _is_date))
    command: str = field(metadata=must("a text", is_text))
    scores: dict[str, Any] = field(metadata=must("an object", _is_object), default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses a mean, a deviation or an interval that the values do not give."""
        what = f"Result of {self.model!r}"
        for key, value in (("mean", np.mean(self.values)), ("std", np.std(self.values))):
            if abs(getattr(self, key) - float(value)) > 1e-3:
                raise UserError(
                    f"{what}: key '{key}' is {getattr(self, key)} but the values give {value:.4f}."
                )
        if self.interval[0] > self.interval[1]:
            raise UserError(f"{what}: key 'interval' is {self.interval}, it must be [low, high].")

    @classmethod
    def measured(
        cls,
        correct: np.ndarray | Sequence[np.ndarray],
        *,
        command: str,
        metric: str = "accuracy",
        scores: dict[str, Any] | None = None,
        **keys: Any,
    ) -> "Result":
        """A result of now, from what each test image scored.

        Args:
            correct: (draws, M) bool, or floats from 0 to 1; of draws with other test images each, a
                list of (M_i,).
            command: Command that measures it again.
            metric: What they measure.
            scores: Other scores of the same runs.
            **keys: `model`, `model_revision`, `data`, `data_revision`, `protocol`, `settings`.
        """
        rows = [100 * np.asarray(row, np.float64) for row in correct]
        if len({len(row) for row in rows}) == 1:
            ends = bootstrap_interval(np.mean(rows, axis=0))
        else:
            ends = _grouped_interval(rows)
        return cls.now(
            **keys,
            metric=metric,
            values=[round(float(row.mean()), 4) for row in rows],
            interval=ends,
            scores=scores or {},
            command=command,
        )

    @classmethod
    def now(cls, *, values: list[float], command: str, **keys: Any) -> "Result":
        """A result of now.

        Args:
            values: One a seed.
            command: Command that measures it again.
            **keys: The other fields, but mean, std, versions and date.
        """
        content = {
            **keys,
            "values": values,
            "mean": round(float(np.mean(values)), 4),
            "std": round(float(np.std(values)), 4),
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
        }
        return read_record(cls, content, f"A result of {keys.get('model')!r}")

    @property
    def key(self) -> tuple[str, str, str]:
        """What there is one file for: model, data, protocol."""
        return self.model, self.data, self.protocol


def bootstrap_interval(
    scores: np.ndarray, *, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> list[float]:
    """95% interval of the mean when the test images are drawn again with replacement.

    Where there are several draws of training images the scores are averages over them, so the
    interval tells the uncertainty of the test set alone; `std` tells that of the draws.

    Args:
        scores: (M,) score of each test image.
        samples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        [low, high], the 2.5 and 97.5 percentiles.
    """
    rng = np.random.default_rng(seed)
    count = len(scores)
    means = [scores[rng.integers(count, size=count)].mean() for _ in range(samples)]
    return [round(float(end), 4) for end in np.percentile(means, [2.5, 97.5])]


def _grouped_interval(groups: Sequence[np.ndarray], *, seed: int = 0) -> list[float]:
    """95% interval of the mean over groups when the images of each are drawn again."""
    rng = np.random.default_rng(seed)
    means = [
        np.mean([scores[rng.integers(len(scores), size=len(scores))].mean() for scores in groups])
        for _ in range(BOOTSTRAP_SAMPLES)
    ]
    return [round(float(end), 4) for end in np.percentile(means, [2.5, 97.5])]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number may depend on."""
    found = {"python": platform.python_version(), "rs_models": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(result: Result, folder: str | os.PathLike[str]) -> Path:
    """Writes a result into its file, replacing an older one at once; the file's path."""
    path = Path(folder) / ("__".join(_slug(part) for part in result.key) + ".json")
    content = dataclasses.asdict(result)
    if not content["scores"]:
        del content["scores"]
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")
    return path


def read(path: str | os.PathLike[str]) -> "Result":
    """Reads one file.

    Raises:
        UserError: Not JSON, or against the schema; names the file and the key.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a result: {error}") from error
    return check(content, str(path))


def read_all(folder: str | os.PathLike[str]) -> list[Result]:
    """All results under a folder, sorted by model, data and protocol.

    Raises:
        UserError: A file against the schema, or two for the same model, data and protocol.
    """
    seen: dict[tuple[str, str, str], Path] = {}
    results = []
    for path in complete(folder, "**/*.json"):
        result = read(path)
        if result.key in seen:
            raise UserError(
                f"{path} and {seen[result.key]} both hold {' / '.join(result.key)}: remove one."
            )
        seen[result.key] = path
        results.append(result)
    return sorted(results, key=lambda result: result.key)


def check(content: Any, where: str) -> Result:
    """The result that the content of a file holds.

    Args:
        content: Parsed JSON.
        where: File name for messages.

    Raises:
        UserError: Naming `where`, the key and what it should be.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: a result is an object with keys, not {type(content).__name__}.")
    try:
        return read_record(Result, content, f"{where}: a result")
    except UserError as error:
        told = str(error)
        raise (error if told.startswith(where) else UserError(f"{where}: {told}")) from None


def _slug(text: str) -> str:
    # "1%" and "1" are two protocols, and must not be one file.
    text = text.replace("/", "--").replace("%", "pct")
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", text).strip("-")


def table(results: Sequence[Result]) -> str:
    """Markdown tables of results, one a data set: a row a model, a column a protocol.

    A cell is mean ± standard deviation over the draws, or the value with its 95% interval where
    there is one draw. Yardsticks come first, then the models by name.

    Args:
        results: In any order.

    Returns:
        The text, empty where there are no results.
    """
    blocks = []
    for data in sorted({result.data for result in results}):
        rows = [result for result in results if result.data == data]
        protocols = sorted({result.protocol for result in rows}, key=protocol_order)
        models = sorted(
            {result.model for result in rows}, key=lambda name: (not is_yardstick(name), name)
        )
        cells = {(result.model, result.protocol): _cell(result) for result in rows}
        metrics = {result.metric for result in rows}
        of = {result.protocol: result.metric for result in rows}
        # Accuracy goes without saying, beside others.
        plain = "accuracy" if len(metrics) > 1 else next(iter(metrics))
        titles = [name if of[name] == plain else f"{name} ({of[name]})" for name in protocols]
        origin = {result.model: _origin(result) for result in rows}
        lines = [
            f"**{data}**, {' and '.join(sorted(metrics))} in %:",
            "",
            f"| model | pretrained on | {' | '.join(titles)} |",
            "|---" * (len(protocols) + 2) + "|",
        ]
        for model in models:
            values = [cells.get((model, protocol), "") for protocol in protocols]
            lines.append(f"| {model} | {origin[model]} | {' | '.join(values)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def protocol_order(protocol: str) -> tuple[int, int, str]:
    """Sorting key of protocols, as tables have them; few labels by their number."""
    base = protocol.partition("@")[0]
    shots = base.removeprefix("linear-n")
    if shots != base and shots.isdigit():
        return _ORDER.index("linear-n"), int(shots), protocol
    return _ORDER.index(base) if base in _ORDER else len(_ORDER), 0, protocol


def is_yardstick(model: str) -> bool:
    """Whether a row is no model of ours but what they are compared with."""
    return model.startswith(("baseline:", "imagenet-"))


def _origin(result: Result) -> str:
    data = result.settings.get("pretrained_on")
    names = [data] if isinstance(data, str) else list(data or [])
    return ", ".join(names) or "-"


def _cell(result: Result) -> str:
    if len(result.values) > 1:
        return f"{result.mean:.1f} ± {result.std:.1f}"
    return f"{result.mean:.1f} [{result.interval[0]:.1f}, {result.interval[1]:.1f}]"
