"""Where weights come from: what they had seen before a stage, and what they say of themselves."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .. import backbones
from ..assets import clone
from ..data import resolve_revision
from ..data.names import data_name
from ..methods import METHODS, method_classes
from ..methods.base import SslModel
from ..version import __version__
from ..zoo import resolve
from .config import RunConfig

Provenance = dict[str, Any]


@dataclass
class Origin:
    """What the weights had seen before this stage.

    Attributes:
        data: Names of data sets, first to last.
        revisions: Their revisions; None where there is none.
        epochs: In all.
        revision: Revision of the data of this stage, as it was when the stage started.
        commit: Commit of the code, as it was when the stage started.
    """

    data: list[str]
    revisions: list[str | None]
    epochs: float
    revision: str | None
    commit: str | None


def origin_of(config: RunConfig, previous: Path | None) -> Origin:
    """The history of the weights that a stage starts from: empty for random ones."""
    revision = resolve_revision(config.data.name, config.data.revision)
    now = {"revision": revision, "commit": source_commit()}
    start = config.init_from or (str(previous) if previous is not None else None)
    if start is None:
        return Origin([], [], 0.0, **now)
    try:
        settings, _ = PreTrainedConfig.get_config_dict(resolve(start))
    except (OSError, ValueError):
        settings = {}  # a timm name: its training data is its own
    said = settings.get("rs_models") or {}
    if "data" not in said:
        return Origin([start], [None], 0.0, **now)
    many = isinstance(said["data"], list)
    return Origin(
        data=list(said["data"]) if many else [said["data"]],
        revisions=list(said["data_revision"]) if many else [said["data_revision"]],
        epochs=float(said["epochs"]),
        **now,
    )


def provenance(config: RunConfig, method: SslModel, *, epochs: float, origin: Origin) -> Provenance:
    """The `rs_models` dict of `config.json` (the keys of the published schema).

    Args:
        config: The stage's settings.
        method: What was trained.
        epochs: Number of epochs of this stage.
        origin: What the weights had seen before it; data sets are listed first to last.
    """
    name = next(k for k in METHODS if isinstance(method, method_classes(k)[1]))
    model = method.config
    here = f"{data_name(config.data.name)}:{config.data.split}"
    data, revisions = list(origin.data), list(origin.revisions)
    if data[-1:] != [here]:  # stages on the same images are one entry
        data.append(here)
        revisions.append(origin.revision)
    return {
        "method": name,
        "bands": list(model.bands),
        "value_range": list(model.value_range),
        "image_mean": list(model.image_mean),
        "image_std": list(model.image_std),
        "train_size": method.seen_size,
        "output_stride": backbones.output_stride(model.native),
        "data": data if len(data) > 1 else here,
        "data_revision": revisions if len(data) > 1 else revisions[0],
        "epochs": round(origin.epochs + epochs, 3),
        "version": __version__,
        "commit": origin.commit,
    }


def source_commit() -> str | None:
    """Commit of the source tree that this package runs from; None when installed from a wheel."""
    here = clone()
    if not (here / ".git").exists():
        return None
    asked = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None
