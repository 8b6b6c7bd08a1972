"""What is known of a model apart from its results: its configs, its recipe, how training went."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..data.names import sets_of
from ..errors import UserError
from ..export.places import DECODER
from ..files import write_bytes, write_text
from ..provenance import validate_provenance

LINES = 120  # of a thinned training log
POINTS = 500  # of a picture of features
LOOK = "look.webp"
_SIZE = "size.txt"
# Keys of a network's file that are state and no parameters.
_STATE = ("running_mean", "running_var", "num_batches_tracked")
_KEPT = ("step", "epoch", "loss", "lr", "effective_rank")


@dataclass
class Facts:
    """A model's facts.

    Attributes:
        config: Contents of config.json.
        processor: Contents of preprocessor_config.json; empty for a whole method.
        run: Contents of run.yaml; empty where the run left none.
        metrics: Training log, a dict a line with its `stage`.
        knn: k-NN accuracy during training, likewise.
        features: Two principal components of test images' features, or None: `data`, `classes`,
            `labels`, `points`, `explained`.
        revision: "sha256:<hash>" of the weights; None where there are none to look at.
        size: Parameters and size of the file, in short; empty where there is no file to look at.
        look: A picture of dense features (WebP); None where there is none.
        decoder: Settings of the segmentation network of its decoder; None where it has none.
    """

    config: dict[str, Any]
    processor: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    knn: list[dict[str, Any]] = field(default_factory=list)
    features: dict[str, Any] | None = None
    revision: str | None = None
    size: str = ""
    look: bytes | None = None
    decoder: dict[str, Any] | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """The checked `rs_models` dict."""
        return validate_provenance(self.config["rs_models"])


def read_facts(folder: str | os.PathLike[str], *, pretraining: bool = False) -> Facts:
    """Reads a run's folder, a model's folder or a folder of facts.

    Args:
        folder: With `export/` and `pretraining/`, or with config.json itself.
        pretraining: Whether the whole method is meant.

    Raises:
        UserError: No config, or one that does not say where the weights come from.
    """
    root = Path(folder)
    part = root / ("pretraining" if pretraining else "export")
    model = part if part.is_dir() else root
    config = _json(model / "config.json")
    if config is None:
        raise UserError(f"{folder} holds no model: there is no config.json.")
    if "rs_models" not in config:
        raise UserError(
            f"{model / 'config.json'} does not say where the weights come from (key rs_models): "
            "export the model with `rs-models export`."
        )
    # A model's folder inside its run: the log lies one up.
    if not (root / "export").is_dir() and root.name in ("export", "pretraining"):
        root = root.resolve().parent
    run = next((path for path in (model / "run.yaml", root / "run.yaml") if path.is_file()), None)
    facts = Facts(
        config=config,
        processor=_json(model / "preprocessor_config.json") or {},
        run=yaml.safe_load(run.read_text(encoding="utf-8")) if run else {},
        metrics=_log(root, "metrics.jsonl"),
        knn=_log(root, "knn.jsonl"),
        features=_json(root / "features.json"),
        revision=_revision(model, pretraining),
        size=_size(model),
        look=(root / LOOK).read_bytes() if (root / LOOK).is_file() else None,
        decoder=_json(root / DECODER / "config.json"),
    )
    facts.provenance  # noqa: B018  (raises here and not in the middle of a card)
    return facts


def write_facts(facts: Facts, folder: str | os.PathLike[str]) -> None:
    """Writes small files that `read_facts` reads: no weights, a thinned log."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", json.dumps(facts.config, indent=2) + "\n")
    if facts.processor:
        write_text(
            folder / "preprocessor_config.json", json.dumps(facts.processor, indent=2) + "\n"
        )
    if facts.run:
        write_text(
            folder / "run.yaml", yaml.safe_dump(facts.run, sort_keys=False, default_flow_style=None)
        )
    for name, lines in (("metrics.jsonl", facts.metrics), ("knn.jsonl", facts.knn)):
        write_text(folder / name, "".join(json.dumps(line) + "\n" for line in thinned(lines)))
    if facts.features:
        write_text(folder / "features.json", json.dumps(facts.features) + "\n")
    if facts.revision:
        write_text(folder / "revision.txt", facts.revision + "\n")
    if facts.size:
        write_text(folder / _SIZE, facts.size + "\n")
    if facts.look:
        write_bytes(folder / LOOK, facts.look)
    if facts.decoder:
        (folder / DECODER).mkdir(exist_ok=True)
        text = json.dumps(facts.decoder, indent=2) + "\n"
        write_text(folder / DECODER / "config.json", text)


def thinned(lines: list[dict[str, Any]], keep: int = LINES) -> list[dict[str, Any]]:
    """Evenly chosen lines, the last one among them, with the keys that are drawn."""
    step = max(1, -(-len(lines) // keep))
    chosen = lines[::-1][::step][::-1]
    return [
        {
            key: float(f"{value:.5g}") if isinstance(value, float) else value
            for key, value in line.items()
            if key in (*_KEPT, "stage", "knn20")
        }
        for line in chosen
    ]


def principal_components(source: str, data: str, split: str = "test") -> dict[str, Any]:
    """Two principal components of a data set's features under a model.

    Args:
        source: Model folder or id.
        data: Labelled data set, as for `rs_models.data.load`.
        split: Split of the data set.

    Returns:
        `data`, `classes`, `labels` (N,), `points` (N, 2), `explained` (2 shares of the variance);
        N is at most `POINTS`, drawn with a fixed seed. The signs are such that the largest loading
        is positive.
    """
    import numpy as np

    from ..data import build_cache, load
    from ..data.cache import default_cache_dir
    from ..data.names import data_name
    from ..evaluation.features import Encoder, extract
    from ..evaluation.loading import load_encoder

    encoder = load_encoder(source)
    assert isinstance(encoder, Encoder)  # a folder or id is never a baseline
    rows = load(data, split)
    if "label" not in rows.features:
        raise UserError(f"{data} has no labels to colour a picture of features by.")
    cache = build_cache(rows, cache_dir=default_cache_dir() / "images")
    features = extract(encoder, cache).astype(np.float64)  # (N, D)
    centred = features - features.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    points = centred @ axes.T
    count = len(points)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:POINTS])
    return {
        "data": data_name(data),
        "classes": list(rows.features["label"].names),
        "labels": [int(label) for label in np.asarray(rows["label"])[chosen]],
        "points": [[float(f"{x:.4g}") for x in point] for point in points[chosen]],
        "explained": [float(f"{v:.3g}") for v in values[:2] ** 2 / (values**2).sum()],
    }


def is_in_domain(data: str, provenance: Mapping[str, Any]) -> bool:
    """Whether a data set is one that the weights have seen, whatever the split."""
    seen = provenance["data"]
    names = [seen] if isinstance(seen, str) else seen
    return data in [own for name in names for own in sets_of(name)]


def _revision(model: Path, pretraining: bool) -> str | None:
    kept = model / "revision.txt"
    if kept.is_file():
        return kept.read_text(encoding="utf-8").strip()
    if pretraining or not (model / "model.safetensors").is_file():
        return None
    from .. import backbones
    from ..evaluation.features import weights_hash

    return f"sha256:{weights_hash(backbones.load(str(model)))}"


def _size(model: Path) -> str:
    """Parameters and size of a model's file, or what was kept of them."""
    if (model / "model.safetensors").is_file():
        return network(model / "model.safetensors")
    kept = model / _SIZE
    return kept.read_text(encoding="utf-8").strip() if kept.is_file() else ""


def network(weights: Path) -> str:
    """What a file of weights is, in short: "11.2 M parameters, 22 MB".

    Args:
        weights: A safetensors file.
    """
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    count = sum(
        math.prod(entry["shape"])
        for key, entry in header.items()
        if key != "__metadata__" and not key.endswith(_STATE)
    )
    return f"{count / 1e6:.1f} M parameters, {weights.stat().st_size / 1e6:.0f} MB"


def _log(root: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a log, stage by stage."""
    stages = sorted((root / "stages").glob("*/"), key=lambda path: int(path.name))
    lines = []
    for number, folder in enumerate(stages or [root], start=1):
        path = folder / name
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            lines.append({"stage": number, **json.loads(line)})
    return lines


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
