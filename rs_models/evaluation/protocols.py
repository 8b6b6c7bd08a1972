"""Protocols by name: from an encoder and image caches to results; the kinds are in `kinds`.

- `knn20`: weighted vote of the min(20, N) training images with the highest cosine similarity,
  temperature 0.07. `knn5`: plain vote of five.
- `linear`: logistic regression on all training images, features standardised by them, C chosen
  on the validation split; where there is none, on a stratified tenth of the training images,
  and then trained on all of them.
- `linear-n5`, `linear-n20`, `linear-n50` (any number): C 0.1 on so many images a class, `seeds`
  nested draws, features standardised by the draw. Skipped with a note where a class has fewer.
- `retrieval20` (any number): mAP of the 20 most similar training images of each test image.
- `transfer`, `transfer-n20` (any number): as `linear` and `linear-n20`, but learned from the
  images and labels of `source`; the result's protocol names it, `transfer-<source>`.
- `leave-one-out`: logistic regression tested on the training images of each place in turn and
  trained on those of all others, C from a tenth of these; a value a place.
- `torchgeo-bench-knn5`, `torchgeo-bench-linear`: on the split that torchgeo-bench makes of AID,
  where `train` holds all rows: 60/20/20 of each class by file name; needs `files`.
- `invariance-rotation`, `invariance-colour`, `invariance-scale`: share of test images that are
  found again, by the nearest neighbour, after they were changed. `silhouette`: how far the classes
  of test images lie apart.
- `<protocol>@stages`: with features of all stages, at two sizes, whitened by the images that
  are learned from, without their labels.
- `<protocol>@224`: with images brought to 224 pixels instead of the encoder's `train_size`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.cache import ImageCache
from ..errors import UserError
from .answers import Inputs, Labelled, Material
from .features import Encoder, extract
from .kinds import MORE, PROTOCOLS, Protocol, check_protocols, protocol
from .qualities import viewed
from .readout import RIDGE, Whitening, at_all_stages, sides
from .results import BOOTSTRAP_SAMPLES, Result
from .transfer import relabel

if TYPE_CHECKING:
    from .baselines import Baseline

__all__ = ["MORE", "PROTOCOLS", "Elsewhere", "check_protocols", "content_hash", "protocol", "run"]
_VIEWED = "viewed"  # beside the splits
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


def tell(note: str) -> None:
    """Prints a note where results do not go."""
    print(note, file=sys.stderr)


def run(
    encoder: Encoder | Baseline,
    train: ImageCache | None,
    test: ImageCache | None,
    *,
    validation: ImageCache | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    source: Elsewhere | None = None,
    places: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
    seeds: int = 5,
    data: str | None = None,
    data_revision: str | None = None,
    command: str = "rs_models.evaluation.protocols.run",
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str = "no",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    note: Callable[[str], None] = tell,
) -> list[Result]:
    """Measures one encoder by several protocols (see above) on one data set.

    The weights stay frozen. An encoder that was trained elsewhere needs no protocol of its own:
    give `train` and `test` of the new data set.

    Args:
        encoder: From `loading.load_encoder`; a baseline is fitted to what is learned from first.
        train: Labelled images that the probes learn from; None where no protocol needs them.
        test: Labelled images that are counted, of the same classes; None where none needs them.
        validation: Labelled images that choose C.
        protocols: Names as above.
        source: What `transfer` learns from.
        places: (N,) where each training image is, for `leave-one-out`.
        files: (N,) file name of each training image, for torchgeo-bench's split.
        seeds: Draws of the few-shot protocols.
        data: Name of the data set for the results; None gives its revision.
        data_revision: Commit on the Hub; None gives a hash of the counted images.
        command: Command that measures it again, for the results.
        batch_size: Images at a time.
        device: Where to compute; None means a GPU where there is one.
        precision: "no" (float32) or "bf16", for the encoder.
        cache_dir: Folder of kept features.
        progress: Show progress bars.
        note: Is given a sentence for each protocol that is skipped.

    Returns:
        One result a protocol, in the order asked for.

    Raises:
        UserError: Unknown protocol, missing splits or labels, other classes in a split, all
            protocols too large for the data, or what `features.extract` refuses.
    """
    known = {name for name, given in (("places", places), ("files", files)) if given is not None}
    asked = check_protocols(protocols, source=source is not None, known=known)
    given = {"train": train, "validation": validation, "test": test}
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    bench = _Bench(
        encoder,
        {split: cache for split, cache in given.items() if cache is not None},
        source,
        Inputs(seeds, target, places, files),
        {
            "batch_size": batch_size,
            "device": target,
            "precision": precision,
            "cache_dir": cache_dir,
            "progress": progress,
        },
    )
    return [
        bench.result(one, data=data, data_revision=data_revision, command=command)
        for one in _possible(asked, bench, note)
    ]


def _possible(
    asked: Sequence[Protocol], bench: _Bench, note: Callable[[str], None]
) -> list[Protocol]:
    """The protocols that the data is large enough for; a note for each of the others."""
    possible, reasons = [], []
    for one in asked:
        labels = {split: bench.labels(split) for split in bench.used(one)}
        reason = one.too_small(labels, bench.classes(one))
        if reason:
            reasons.append(f"{one.name} is skipped: {reason}.")
        else:
            possible.append(one)
    if not possible:
        raise UserError(f"The data is too small: {reasons[0]} Ask for fewer.")
    for sentence in reasons:
        note(sentence)
    return possible


@dataclass
class _Bench:
    """Splits of a data set and an encoder's features of them, each computed once, when needed."""

    encoder: Encoder | Baseline
    caches: dict[str, ImageCache]
    source: Elsewhere | None
    inputs: Inputs
    how: dict[str, Any]
    _labels: dict[str, np.ndarray] = field(default_factory=dict)
    _rows: np.ndarray | None = None  # of the source, whose class the map brings over
    _fitted: dict[str, Encoder] = field(default_factory=dict)
    _features: dict[tuple[str, str, int, bool, str | None], np.ndarray] = field(
        default_factory=dict
    )
    _hashes: dict[str, str] = field(default_factory=dict)

    def result(
        self, one: Protocol, *, data: str | None, data_revision: str | None, command: str
    ) -> Result:
        """Measures one protocol."""
        size, material = self.material(one)
        answers = one.measure(material)
        encoder, counted = self.fitted(one.learns_from), self.images(one.counts)
        if data_revision is None and one.counts not in self._hashes:
            self._hashes[one.counts] = content_hash(counted)
        revision = data_revision or self._hashes[one.counts]
        return Result.measured(
            answers.correct,
            model=encoder.name or "unnamed",
            model_revision=encoder.revision or "unknown",
            data=data or revision,
            data_revision=revision,
            protocol=one.shown(self.source.name if self.source else None),
            metric=one.metric,
            settings={
                "pretrained_on": encoder.pretrained_on,
                "image_size": size,
                "bands": list(encoder.bands),
                "precision": self.how["precision"],
                "train_images": len(material.splits[one.learns_from]),
                "test_images": len(counted),
                "bootstrap_samples": BOOTSTRAP_SAMPLES,
                **(self.source_settings() if "source" in one.needs else {}),
                **(_stage_settings(size) if one.stages else {}),
                **answers.settings,
            },
            scores=answers.scores,
            command=command,
        )

    def images(self, split: str) -> ImageCache:
        """Images of a split that a protocol needs."""
        if split == "source":
            assert self.source is not None
            return self.source.images
        if split not in self.caches:
            raise UserError(f"A protocol needs the {split} split: name it with data.{split}_split.")
        return self.caches[split]

    def used(self, one: Protocol) -> list[str]:
        """Splits that a protocol is measured with."""
        return [*one.needs, *(split for split in one.may_use if split in self.caches)]

    def classes(self, one: Protocol) -> list[str] | None:
        """Names of the classes that a protocol tells apart."""
        return self.images(one.counts).classes

    def labels(self, split: str) -> np.ndarray:
        """Checked labels of a split; of the source those that are brought over."""
        if split not in self._labels:
            labels = _labels(self.images(split), split)
            if split == "source":
                assert self.source is not None
                images, target = self.source.images, self.images("test")
                self._rows, labels = relabel(
                    labels, images.classes or [], target.classes or [], self.source.mapping
                )
            else:
                self._check_classes(split)
            self._labels[split] = labels
        return self._labels[split]

    def _check_classes(self, split: str) -> None:
        first = next(iter(self.caches))
        theirs, ours = self.caches[split].classes, self.caches[first].classes
        if theirs != ours:
            raise UserError(
                f"The {split} split has the classes {theirs}, the {first} split {ours}: they must "
                "be the same, in the same order."
            )

    def fitted(self, split: str) -> Encoder:
        """The encoder; a baseline looks at the images that its probe learns from."""
        if split not in self._fitted:
            self._fitted[split] = self.encoder.fit(self.images(split))
        return self._fitted[split]

    def material(self, one: Protocol) -> tuple[int, Material]:
        """Side in pixels of the images, and what a protocol measures with."""
        learned = one.learns_from
        size = one.pixels or self.fitted(learned).train_size
        used = self.used(one)
        x = {split: self._read(learned, split, size, one.stages) for split in used}
        if one.view is not None:
            x[_VIEWED] = self._read(learned, one.counts, size, one.stages, one.view)
        if one.stages:
            whitening = Whitening.fit(x[learned])
            x = {split: whitening(features) for split, features in x.items()}
        splits = {split: Labelled(x[split], self.labels(split)) for split in used}
        return size, Material(splits, self.classes(one), self.inputs, x.get(_VIEWED))

    def _read(
        self, learned: str, split: str, size: int, stages: bool, view: str | None = None
    ) -> np.ndarray:
        key = (learned, split, size, stages, view)
        if key not in self._features:
            encoder, images = self.fitted(learned), self.images(split)
            if view is not None:
                images = viewed(images, view)
            if stages:
                whole = at_all_stages(encoder)
                parts = [extract(whole, images, size=side, **self.how) for side in sides(size)]
                features = np.concatenate(parts, axis=1)
            else:
                features = extract(encoder, images, size=size, **self.how)
            if split == "source":
                self.labels(split)
                features = features[self._rows]
            self._features[key] = features
        return self._features[key]

    def source_settings(self) -> dict[str, Any]:
        """What the numbers of `transfer` depend on."""
        assert self.source is not None and self._rows is not None
        return {
            "source": self.source.name,
            "source_revision": content_hash(self.source.images),
            "source_images": len(self._rows),
            "class_map": dict(self.source.mapping),
        }


def _stage_settings(size: int) -> dict[str, Any]:
    return {
        "readout": "means of all stages",
        "sides": list(sides(size)),
        "whitened_by": "the images that are learned from, without their labels",
        "whitening_ridge": RIDGE,
    }


def content_hash(cache: ImageCache) -> str:
    """Hash of a data set's labels and of evenly spaced images, the same on every machine."""
    rows = np.unique(np.linspace(0, len(cache) - 1, min(len(cache), _SAMPLED)).round().astype(int))
    digest = hashlib.sha256(repr((tuple(cache.images.shape), cache.bands)).encode())
    if cache.labels is not None:
        digest.update(cache.labels.numpy().tobytes())
    for row in rows:
        digest.update(cache.images[row].permute(1, 2, 0).contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


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
