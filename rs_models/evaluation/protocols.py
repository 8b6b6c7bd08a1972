"""The named protocols: from an encoder and two image caches to results."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.cache import ImageCache
from ..errors import UserError
from .features import Encoder, extract
from .fewshot import FEW_SHOT_C, few_shot
from .knn import knn_predict
from .linear import C_GRID, choose_c, fit_probe, holdout
from .results import BOOTSTRAP_SAMPLES, Result
from .retrieval import average_precision
from .transfer import leave_one_out, relabel, transfer

if TYPE_CHECKING:
    from .baselines import Baseline

PROTOCOLS = ("knn20", "knn5", "linear", "linear-n5", "linear-n20", "linear-n50")
MORE = ("retrieval20", "transfer", "transfer-n20", "leave-one-out")
_KNN_TEMPERATURE = 0.07  # DINO's; knn5 counts heads, as torchgeo-bench does
_NAME = (
    r"(?:(?P<counted>knn|retrieval)(?P<k>[1-9]\d*)|leave-one-out|"
    r"(?P<kind>linear|transfer)(?:-n(?P<n>[1-9]\d*))?)(?:@(?P<px>[1-9]\d*))?"
)
_SAMPLED = 256  # images that tell one data set from another


@dataclass(frozen=True)
class Elsewhere:
    """Another data set, whose labels `transfer` learns from.

    Attributes:
        name: For the results.
        images: Labelled.
        mapping: Its classes -> those of the data set that is tested, see `transfer.class_map`.
    """

    name: str
    images: ImageCache
    mapping: Mapping[str, str]


def run(
    encoder: Encoder | Baseline,
    train: ImageCache,
    test: ImageCache,
    *,
    validation: ImageCache | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    source: Elsewhere | None = None,
    places: Sequence[str] | None = None,
    seeds: int = 5,
    data: str | None = None,
    data_revision: str | None = None,
    command: str = "rs_models.evaluation.protocols.run",
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str = "no",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[Result]:
    """Measures one encoder by several protocols on one data set.

    - `knn20`: weighted vote of the min(20, N) training images with the highest cosine similarity,
      temperature 0.07. `knn5`: plain vote of five.
    - `linear`: logistic regression on all training images, features standardised by them, C chosen
      on the validation split; where there is none, on a stratified tenth of the training images,
      and then trained on all of them.
    - `linear-n5`, `linear-n20`, `linear-n50` (any number): C 0.1 on so many images a class, `seeds`
      nested draws, features standardised by the draw.
    - `<protocol>@224`: the same with images brought to 224 pixels instead of the encoder's
      `train_size`.

    - `retrieval20` (any number): mAP of the 20 most similar training images of each test image.
    - `transfer`, `transfer-n20` (any number): as `linear` and `linear-n20`, but learned from the
      images and labels of `source`; the result's protocol names it, `transfer-<source>`.
    - `leave-one-out`: logistic regression tested on the training images of each place in turn and
      trained on those of all others, C from a tenth of these; a value a place.

    The weights stay frozen. An encoder that was trained elsewhere needs no protocol of its own:
    give `train` and `test` of the new data set.

    Args:
        encoder: From `features.load_encoder`; a baseline is fitted to `train` first.
        train: Labelled images that the probes learn from.
        test: Labelled images that are counted, of the same classes.
        validation: Labelled images that choose C.
        protocols: Names as above.
        source: What `transfer` learns from.
        places: (N,) where each training image is, for `leave-one-out`.
        seeds: Draws of the few-shot protocols.
        data: Name of the data set for the results; None gives its revision.
        data_revision: Commit on the Hub; None gives a hash of the test images.
        command: That measures it again, for the results.
        batch_size: Images at a time.
        device: Where to compute; None means a GPU where there is one.
        precision: "no" (float32) or "bf16", for the encoder.
        cache_dir: Folder of kept features.
        progress: Show progress bars.

    Returns:
        One result a protocol, in the order asked for.

    Raises:
        UserError: Unknown protocol, missing labels, other classes in a split, a class with too few
            images, or what `features.extract` refuses.
    """
    parsed = [_parse(protocol) for protocol in protocols]
    check_protocols(protocols, source=source is not None, places=places is not None)
    splits = {"train": train, "test": test}
    if validation is not None:
        splits["validation"] = validation
    labels = {split: _labels(cache, split) for split, cache in splits.items()}
    for split, cache in splits.items():
        if cache.classes != train.classes:
            raise UserError(
                f"The {split} split has the classes {cache.classes}, the train split "
                f"{train.classes}: they must be the same, in the same order."
            )
    fitted = encoder.fit(train)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    revision = data_revision or content_hash(test)
    how: dict[str, Any] = {
        "batch_size": batch_size,
        "device": target,
        "precision": precision,
        "cache_dir": cache_dir,
        "progress": progress,
    }
    by_size: dict[int, dict[str, np.ndarray]] = {}
    elsewhere: dict[int, list[np.ndarray]] = {}
    results = []
    correct: Any
    for protocol, (kind, shots, pixels) in zip(protocols, parsed, strict=True):
        size = pixels or fitted.train_size
        if size not in by_size:
            by_size[size] = {
                split: extract(fitted, cache, size=size, **how) for split, cache in splits.items()
            }
        features = by_size[size]
        if kind == "transfer" and source is not None:
            # A baseline looks at the images of the source, as its probe does.
            away = encoder.fit(source.images)
            size = pixels or away.train_size
            if size not in elsewhere:
                elsewhere[size] = [
                    extract(away, cache, size=size, **how) for cache in (source.images, test)
                ]
            correct, used = _transfer(
                elsewhere[size][0],
                source,
                elsewhere[size][1],
                labels["test"],
                names=test.classes,
                n=shots or None,
                seeds=seeds,
                device=target,
            )
        elif kind == "leave-one-out" and places is not None:
            answers = leave_one_out(features["train"], labels["train"], places, device=target)
            correct, used = answers.correct, answers.settings
        elif kind == "retrieval":
            found = average_precision(
                features["train"], labels["train"], features["test"], labels["test"], k=shots
            )
            correct, used = found[None], {"k": min(shots, len(train))}
        elif kind == "knn":
            correct, used = _knn(features, labels, k=shots, device=target)
        elif shots:
            correct, used = _few_shot(
                features, labels, n=shots, seeds=seeds, names=train.classes, device=target
            )
        else:
            correct, used = _linear(features, labels, device=target)
        results.append(
            Result.measured(
                correct,
                model=fitted.name or "unnamed",
                model_revision=fitted.revision or "unknown",
                data=data or revision,
                data_revision=revision,
                protocol=_shown(protocol, source),
                metric="mAP" if kind == "retrieval" else "accuracy",
                settings={
                    "pretrained_on": fitted.pretrained_on,
                    "image_size": size,
                    "bands": list(fitted.bands),
                    "precision": precision,
                    "train_images": len(train),
                    "test_images": len(test),
                    "bootstrap_samples": BOOTSTRAP_SAMPLES,
                    **used,
                },
                command=command,
            )
        )
    return results


def check_protocols(
    protocols: Sequence[str], *, source: bool = False, places: bool = False
) -> None:
    """Refuses names that stand for no protocol, or for one that lacks what it needs.

    Args:
        protocols: Names.
        source: Whether there is another data set to learn from.
        places: Whether it is known where images are.

    Raises:
        UserError: Naming the first such.
    """
    for protocol in protocols:
        kind = _parse(protocol)[0]
        if kind == "transfer" and not source:
            raise UserError(
                f"The protocol '{protocol}' learns from another data set: give source.name and "
                "class_map."
            )
        if kind == "leave-one-out" and not places:
            raise UserError(
                f"The protocol '{protocol}' needs to know where images are: name the column with "
                "data.place."
            )


def _shown(protocol: str, source: Elsewhere | None) -> str:
    if source is None or not protocol.startswith("transfer"):
        return protocol
    return f"transfer-{source.name}{protocol.removeprefix('transfer')}"


def _transfer(
    features: np.ndarray,
    source: Elsewhere,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    names: Sequence[str] | None,
    n: int | None,
    seeds: int,
    device: torch.device,
) -> tuple[list[np.ndarray], dict[str, Any]]:
    rows, labels = relabel(
        _labels(source.images, "source"), source.images.classes or [], names or [], source.mapping
    )
    answers = transfer(
        features[rows], labels, test_x, test_y, n=n, seeds=seeds, class_names=names, device=device
    )
    used = {
        "source": source.name,
        "source_revision": content_hash(source.images),
        "source_images": len(rows),
        "class_map": dict(source.mapping),
    }
    return answers.correct, {**used, **answers.settings}


def content_hash(cache: ImageCache) -> str:
    """Hash of a data set's labels and of evenly spaced images, the same on every machine."""
    rows = np.unique(np.linspace(0, len(cache) - 1, min(len(cache), _SAMPLED)).round().astype(int))
    digest = hashlib.sha256(repr((tuple(cache.images.shape), cache.bands)).encode())
    if cache.labels is not None:
        digest.update(cache.labels.numpy().tobytes())
    for row in rows:
        digest.update(cache.images[row].permute(1, 2, 0).contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _knn(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], *, k: int, device: torch.device
) -> tuple[np.ndarray, dict[str, Any]]:
    temperature = _KNN_TEMPERATURE if k == 20 else None
    predicted = knn_predict(
        torch.from_numpy(features["train"]).to(device),
        labels["train"],
        features["test"],
        k=k,
        temperature=temperature,
    )
    used = {"k": min(k, len(labels["train"])), "temperature": temperature}
    return (predicted == labels["test"])[None], used


def _linear(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], *, device: torch.device
) -> tuple[np.ndarray, dict[str, Any]]:
    x, y = features["train"], labels["train"]
    classes = int(y.max()) + 1
    if "validation" in features:
        chosen_on = "validation"
        split = x, y, features["validation"], labels["validation"]
    else:
        chosen_on = "a tenth of train"
        rest, held = holdout(y)
        split = x[rest], y[rest], x[held], y[held]
    c, accuracy = choose_c(*split, num_classes=classes, device=device)
    probe = fit_probe(x, y, c=c, num_classes=classes, device=device)
    used = {
        "c": c,
        "c_grid": list(C_GRID),
        "c_chosen_on": chosen_on,
        "c_accuracy": round(accuracy[c], 4),
        "standardised_by": "train",
    }
    return (probe.predict(features["test"]) == labels["test"])[None], used


def _few_shot(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    *,
    n: int,
    seeds: int,
    names: Sequence[str] | None,
    device: torch.device,
) -> tuple[np.ndarray, dict[str, Any]]:
    scores = few_shot(
        features["train"],
        labels["train"],
        features["test"],
        labels["test"],
        n=n,
        seeds=seeds,
        class_names=names,
        device=device,
    )
    used = {
        "c": FEW_SHOT_C,
        "images_per_class": n,
        "seeds": list(range(seeds)),
        "draws": scores.draws,
        "standardised_by": "draw",
    }
    return scores.correct, used


def _parse(protocol: str) -> tuple[str, int, int | None]:
    """Kind, k or images a class (0 for all), pixels."""
    found = re.fullmatch(_NAME, protocol)
    if found is None:
        raise UserError(
            f"Unknown protocol '{protocol}': use {', '.join((*PROTOCOLS, *MORE))}, with @224 for "
            "another image size."
        )
    kind = found["kind"] or found["counted"] or "leave-one-out"
    number, pixels = found["n"] or found["k"], found["px"]
    if kind == "knn" and number not in ("20", "5"):
        raise UserError(f"Unknown protocol '{protocol}': k-NN has 20 neighbours, or 5.")
    return kind, int(number or 0), int(pixels) if pixels else None


def _labels(cache: ImageCache, split: str) -> np.ndarray:
    if cache.labels is None:
        raise UserError(
            f"The {split} split has no 'label' column, which every protocol needs: name it with "
            "data.columns.label, or use a labelled data set."
        )
    labels = cache.labels.numpy()
    if labels.min() < 0:
        row = int(np.argmin(labels))
        raise UserError(
            f"Image {row} of the {split} split has class {labels[row]}, which means none: remove "
            "such rows."
        )
    return labels
