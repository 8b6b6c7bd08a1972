"""The `rs_models` dict of config.json: where weights come from and what they are fed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .bands import resolve_bands
from .errors import UserError

PROVENANCE_KEYS = (
    "method",
    "bands",
    "value_range",
    "image_mean",
    "image_std",
    "train_size",
    "output_stride",
    "data",
    "data_revision",
    "epochs",
    "version",
    "commit",
)


def validate_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the `rs_models` dict and returns it with canonical band names and plain JSON types.

    Keys, all required: `method` (name), `bands` (names), `value_range` ([black, full scale] as
    stored), `image_mean` and `image_std` (one a band, after division by full scale), `train_size`
    (pixels), `output_stride` (image side over feature side), `data` (name, or list of names by
    stage) and `data_revision` (likewise; None where there is none), `epochs`, `version` (of
    rs_models) and `commit` (None where unknown).

    Raises:
        UserError: A key missing, unknown or of the wrong kind.
    """
    missing = [key for key in PROVENANCE_KEYS if key not in provenance]
    unknown = [key for key in provenance if key not in PROVENANCE_KEYS]
    if missing or unknown:
        raise UserError(
            f"Provenance must have the keys {', '.join(PROVENANCE_KEYS)}: missing {missing}, "
            f"unknown {unknown}."
        )
    meta = {key: _plain(provenance[key]) for key in PROVENANCE_KEYS}
    meta["bands"] = list(resolve_bands(meta["bands"]))
    num_bands = len(meta["bands"])
    rules = {
        "method": (_is_text(meta["method"]), "a method's name"),
        "value_range": (
            _are_numbers(meta["value_range"], 2)
            and meta["value_range"][0] < meta["value_range"][1],
            "[black, full scale], two growing numbers",
        ),
        "image_mean": (
            _are_numbers(meta["image_mean"], num_bands),
            f"{num_bands} numbers, one a band",
        ),
        "image_std": (
            _are_numbers(meta["image_std"], num_bands) and min(meta["image_std"]) > 0,
            f"{num_bands} numbers above 0, one a band",
        ),
        "train_size": (_is_count(meta["train_size"]), "a number of pixels"),
        "output_stride": (_is_count(meta["output_stride"]), "a number of pixels"),
        "data": (_are_texts(meta["data"]), "a name or a list of names"),
        "data_revision": (
            meta["data_revision"] is None or _are_texts(meta["data_revision"], optional=True),
            "a revision, a list of them, or None",
        ),
        "epochs": (
            _are_numbers([meta["epochs"]], 1) and meta["epochs"] >= 0,
            "a number, 0 or more",
        ),
        "version": (_is_text(meta["version"]), "the version of rs_models"),
        "commit": (meta["commit"] is None or _is_text(meta["commit"]), "a commit or None"),
    }
    for key, (holds, expected) in rules.items():
        if not holds:
            raise UserError(f"Provenance '{key}' is {meta[key]!r}: it must be {expected}.")
    return meta


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any, *, optional: bool = False) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_text(item) or (optional and item is None) for item in value)
    return _is_text(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_numbers(value: Any, count: int) -> bool:
    numbers = isinstance(value, list) and len(value) == count
    return numbers and all(
        isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < float("inf")
        for item in value
    )
