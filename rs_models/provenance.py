"""The `rs_models` dict of config.json: where weights come from and what they are fed with."""

# No `from __future__ import annotations` here: strict dataclasses check types that are not strings.

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from huggingface_hub.dataclasses import strict

from .bands import resolve_bands
from .errors import UserError

T = TypeVar("T")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def are_numbers(value: Any, count: int | None = None) -> bool:
    """Whether a value is a list of finite numbers, as many as `count` or one or more."""
    fits = isinstance(value, list) and (bool(value) if count is None else len(value) == count)
    return fits and all(map(is_number, value))


def is_text(value: Any) -> bool:
    """Whether a value is a text that says something."""
    return isinstance(value, str) and bool(value.strip())


def must(expected: str, holds: Callable[[Any], bool]) -> dict[str, Any]:
    """The metadata of a record's field: what it must be, in words and as a test.

    Args:
        expected: Ends the sentence "it must be ...".
        holds: Whether a value is that.
    """

    def validator(value: Any) -> None:
        if not holds(value):
            raise ValueError(f"it must be {expected}")

    return {"validator": validator}


def read_record(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """A strict dataclass of `must` fields from a dict, or one sentence about what is wrong.

    Args:
        cls: The dataclass.
        values: Parsed JSON.
        what: Begins the sentences, and names the file where there is one.

    Raises:
        UserError: A key missing, unknown or of the wrong kind, by name.
    """
    fields: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
    keys = [item.name for item in fields]
    needed = [
        item.name for item in fields if item.default is item.default_factory is dataclasses.MISSING
    ]
    missing = [key for key in needed if key not in values]
    unknown = [key for key in values if key not in keys]
    if missing or unknown:
        raise UserError(
            f"{what} must have the keys {', '.join(needed)}: keys missing {missing}, unknown "
            f"{unknown}."
        )
    for item in fields:
        if item.name in values:
            try:
                item.metadata["validator"](values[item.name])
            except ValueError as error:
                raise UserError(
                    f"{what} '{item.name}' is {values[item.name]!r}: {error}."
                ) from None
    return cls(**values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_revision(value: Any) -> bool:
    """A revision, None, or a list of either."""
    if isinstance(value, list):
        return bool(value) and all(item is None or is_text(item) for item in value)
    return value is None or is_text(value)


@strict
@dataclass(kw_only=True)
class Provenance:
    """Where weights come from and what they are fed with.

    Attributes:
        method: Name of the method.
        bands: Canonical names in channel order.
        value_range: Stored values that mean black and full scale.
        image_mean: One a band, after division by full scale.
        image_std: One a band, after division by full scale.
        train_size: Side of the training images in pixels.
        output_stride: Side of the images over that of the features.
        data: Name of the training data, or names by stage.
        data_revision: Its revision, or revisions by stage; None where there is none.
        epochs: Number of passes.
        version: Version of rs_models.
        commit: Commit of rs_models; None where unknown.
    """

    method: str = field(metadata=must("a method's name", is_text))
    bands: list[str] = field(
        metadata=must("a list of band names", lambda value: isinstance(value, list))
    )
    value_range: list[int | float] = field(
        metadata=must(
            "[black, full scale], two growing numbers",
            lambda value: are_numbers(value, 2) and value[0] < value[1],
        )
    )
    image_mean: list[int | float] = field(metadata=must("numbers, one a band", are_numbers))
    image_std: list[int | float] = field(
        metadata=must(
            "numbers above 0, one a band", lambda value: are_numbers(value) and min(value) > 0
        )
    )
    train_size: int = field(metadata=must("a number of pixels", _is_count))
    output_stride: int = field(metadata=must("a number of pixels", _is_count))
    data: str | list[str] = field(
        metadata=must(
            "a name or a list of names",
            lambda value: value is not None and _is_revision(value) and None not in [*value],
        )
    )
    data_revision: str | list[str | None] | None = field(
        metadata=must("a revision, a list of them, or None", _is_revision)
    )
    epochs: int | float = field(
        metadata=must("a number, 0 or more", lambda v: is_number(v) and v >= 0)
    )
    version: str = field(metadata=must("the version of rs_models", is_text))
    commit: str | None = field(metadata=must("a commit or None", lambda v: v is None or is_text(v)))

    def __post_init__(self) -> None:
        """Brings bands to their names and refuses statistics of another number of them."""
        self.bands = list(resolve_bands(self.bands))
        count = len(self.bands)
        for key in ("image_mean", "image_std"):
            if len(getattr(self, key)) != count:
                raise UserError(
                    f"Provenance '{key}' is {getattr(self, key)!r}: it must be {count} numbers, "
                    "one a band."
                )


# What a network is built and fed by; the rest of the record is told and not used.
_USED = ("bands", "value_range", "image_mean", "image_std", "train_size", "output_stride")
_LARGEST_SIDE = 16384  # of a training image, as of any image that is held in memory as a whole


def check_used(record: Any, what: str) -> None:
    """Refuses what cannot be fed to a network in a record that may lack keys or have others.

    Args:
        record: The `rs_models` of somebody's config.json.
        what: Begins the sentence.

    Raises:
        UserError: No dict, or a key of the wrong kind, by name.
    """
    if not isinstance(record, Mapping):
        raise UserError(f"{what} is not an object: see `rs_models.provenance` for its keys.")
    declared = {item.name: item.metadata["validator"] for item in dataclasses.fields(Provenance)}
    for key in _USED:
        if key in record:
            try:
                declared[key](record[key])
                if key == "train_size" and record[key] > _LARGEST_SIDE:
                    raise ValueError(f"it must be {_LARGEST_SIDE} or less")
                bands = record.get("bands")
                if key.startswith("image_") and bands and len(record[key]) != len(bands):
                    raise ValueError(f"it must be {len(bands)} numbers, one a band")
            except ValueError as error:
                raise UserError(f"{what} has '{key}' {record[key]!r}: {error}.") from None
    if "bands" in record:
        resolve_bands(record["bands"])


PROVENANCE_KEYS = tuple(item.name for item in dataclasses.fields(Provenance))


def validate_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the `rs_models` dict and returns it with canonical band names and plain JSON types.

    Args:
        provenance: The keys of `Provenance`, all of them.

    Raises:
        UserError: A key missing, unknown or of the wrong kind.
    """
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in provenance.items()
    }
    if isinstance(plain.get("bands"), str):
        plain["bands"] = list(resolve_bands(plain["bands"]))
    return dataclasses.asdict(read_record(Provenance, plain, "Provenance"))
