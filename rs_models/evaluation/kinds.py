"""The kinds of protocols: a class each, and the table that finds them by name.

A protocol says which splits it needs, what it cannot be measured on, and how features become
answers. Adding one is a class and a row of `KINDS`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from .answers import Answers, Labelled, Material, agreement, probe_scores
from .fewshot import few_shot
from .guided import Guided
from .knn import TEMPERATURE, knn_predict
from .linear import C_GRID, choose_c, fit_probe, holdout
from .protocol import Protocol, few_of_a_class
from .qualities import Invariance, Silhouette
from .retrieval import average_precision
from .transfer import leave_one_out, transfer

PROTOCOLS = ("knn20", "knn5", "linear", "linear-n5", "linear-n20", "linear-n50")
MORE = (
    "retrieval20",
    "suggested-n5",
    "random-n5",
    "transfer",
    "transfer-n20",
    "leave-one-out",
    "torchgeo-bench-knn5",
    "torchgeo-bench-linear",
    "invariance-rotation",
    "invariance-colour",
    "invariance-scale",
    "silhouette",
)
_NAME = r"(?P<base>[^@]+)(?P<stages>@stages)?(?:@(?P<pixels>[1-9]\d*))?"
_NUMBER = r"(?P<number>[1-9]\d*)"
# torchgeo-bench's split of AID, which has none (its scripts/generate_aid_splits.py).
_BENCH_SHARES, _BENCH_SEED = (0.6, 0.2), 0


class Knn(Protocol):
    """The vote of the nearest training images: 20 by similarity, or the heads of five."""

    pattern = r"knn(?P<number>20|5)"

    def measure(self, material: Material) -> Answers:
        """Measures by the votes of training images."""
        train, test = material.train, material.test
        # knn5 counts heads, as torchgeo-bench does.
        temperature = TEMPERATURE if self.number == 20 else None
        predicted = knn_predict(
            torch.from_numpy(train.x).to(material.inputs.device),
            train.y,
            test.x,
            k=self.number,
            temperature=temperature,
        )
        settings = {"k": min(self.number, len(train)), "temperature": temperature}
        return Answers([predicted == test.y], settings, agreement([predicted], [test.y]))


class Retrieval(Protocol):
    """Mean average precision of the most similar training images of each test image."""

    pattern = f"retrieval{_NUMBER}"
    metric = "mAP"

    def measure(self, material: Material) -> Answers:
        """Measures the average precision of each test image."""
        train, test = material.train, material.test
        precision = average_precision(train.x, train.y, test.x, test.y, k=self.number)
        return Answers([precision], {"k": min(self.number, len(train))})


class Linear(Protocol):
    """Logistic regression on all training images."""

    pattern = "linear"
    may_use = ("validation",)

    def measure(self, material: Material) -> Answers:
        """Measures a probe whose C validation images, or a tenth of the others, have chosen."""
        train = material.train
        if "validation" in material.splits:
            chosen_on, learned, held = "validation", train, material.splits["validation"]
        else:
            chosen_on = "a tenth of train"
            learned, held = (train[rows] for rows in holdout(train.y))
        return probed(learned, held, train, material, c_chosen_on=chosen_on)


def probed(
    learned: Labelled, held: Labelled, all_of_train: Labelled, material: Material, **said: Any
) -> Answers:
    """The answers of a probe after C is chosen.

    Args:
        learned: What the probes of each C learn from.
        held: What chooses among them.
        all_of_train: What the probe of the chosen C learns from.
        material: Test images and device.
        **said: Further settings.
    """
    test, device = material.test, material.inputs.device
    classes = int(all_of_train.y.max()) + 1
    c, accuracy = choose_c(learned.x, learned.y, held.x, held.y, num_classes=classes, device=device)
    probe = fit_probe(all_of_train.x, all_of_train.y, c=c, num_classes=classes, device=device)
    logits = probe.logits(test.x)
    settings = {
        "c": c,
        "c_grid": list(C_GRID),
        **said,
        "c_accuracy": round(accuracy[c], 4),
        "standardised_by": "train",
    }
    correct = logits.argmax(1) == test.y
    return Answers([correct], settings, probe_scores([logits], [test.y]))


class FewLabels(Protocol):
    """Logistic regression on a few labels a class, of nested seeded draws."""

    pattern = f"linear-n{_NUMBER}"

    def too_small(self, labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> str:
        """Names the first class that has too few images."""
        return few_of_a_class(labels["train"], self.number, classes)

    def measure(self, material: Material) -> Answers:
        """Measures a probe a draw."""
        train, test = material.train, material.test
        return few_shot(
            train.x,
            train.y,
            test.x,
            test.y,
            n=self.number,
            seeds=material.inputs.seeds,
            class_names=material.classes,
            device=material.inputs.device,
        ).answers()


class Transfer(Protocol):
    """Classes learned in another data set; nothing of the tested one is learned from."""

    pattern = f"transfer(?:-n{_NUMBER})?"
    needs = ("source", "test")

    def shown(self, source: str | None) -> str:
        """Names the other data set: `transfer-<source>-n20`."""
        return f"transfer-{source}{self.name.removeprefix('transfer')}"

    def too_small(self, labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> str:
        """Names the first class that has too few images in the source."""
        return few_of_a_class(labels["source"], self.number, classes)

    def measure(self, material: Material) -> Answers:
        """Measures probes that learned from the source."""
        source, test = material.splits["source"], material.test
        return transfer(
            source.x,
            source.y,
            test.x,
            test.y,
            n=self.number or None,
            seeds=material.inputs.seeds,
            class_names=material.classes,
            device=material.inputs.device,
        )


class LeaveOneOut(Protocol):
    """Each place in turn is the test, and the probe has learned from all others."""

    pattern = "leave-one-out"
    needs = ("train",)
    splits_itself = True
    wants = "places"

    def measure(self, material: Material) -> Answers:
        """Measures a probe a place."""
        assert material.inputs.places is not None
        train = material.train
        return leave_one_out(
            train.x, train.y, material.inputs.places, device=material.inputs.device
        )


class TorchgeoBench(Protocol):
    """Five neighbours, or logistic regression, on torchgeo-bench's split of one set of rows.

    Of each class, sorted by file name and shuffled, three fifths are learned from, a fifth chooses
    C and a fifth is counted; the final probe learns from both of the former.
    """

    pattern = r"torchgeo-bench-(?:knn(?P<number>5)|linear)"
    needs = ("train",)
    splits_itself = True
    wants = "files"

    def measure(self, material: Material) -> Answers:
        """Measures on the split's own test images."""
        assert material.inputs.files is not None
        rows = bench_split(material.inputs.files, material.train.y)
        train, validation, test = (material.train[part] for part in rows)
        inner = replace(material, splits={"train": train, "test": test})
        if self.number:
            answers = Knn("knn5", self.number).measure(inner)
            count = len(train)
        else:
            both = material.train[np.sort(np.concatenate(rows[:2]))]
            answers = probed(train, validation, both, inner, c_chosen_on="validation")
            count = len(both)
        settings = {
            "split": "60/20/20 of each class by sorted file name, seed 0 (torchgeo-bench)",
            "train_images": count,
            "test_images": len(test),
        }
        return replace(answers, settings={**answers.settings, **settings})


def bench_split(files: Sequence[str], labels: np.ndarray) -> list[np.ndarray]:
    """Rows of torchgeo-bench's training, validation and test images.

    Args:
        files: (N,) file names; folders do not matter.
        labels: (N,) class indices.

    Returns:
        Three arrays of sorted int64 row indices.
    """
    parts: list[list[int]] = [[], [], []]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label).tolist()
        rows.sort(key=lambda row: PurePath(files[row]).name)
        random.Random(_BENCH_SEED).shuffle(rows)
        ends = np.cumsum([round(len(rows) * share) for share in _BENCH_SHARES])
        for part, chosen in zip(parts, np.split(np.asarray(rows), ends), strict=True):
            part.extend(chosen.tolist())
    return [np.sort(np.asarray(part, np.int64)) for part in parts]


KINDS: tuple[type[Protocol], ...] = (
    Knn,
    Retrieval,
    Linear,
    FewLabels,
    Guided,
    Transfer,
    LeaveOneOut,
    TorchgeoBench,
    Invariance,
    Silhouette,
)


def protocol(name: str) -> Protocol:
    """The protocol of a name.

    Args:
        name: One of `PROTOCOLS` or `MORE`, with other numbers as one likes; behind it `@stages` for
            features of all stages, and `@224` for another image size.

    Raises:
        UserError: A name that stands for none.

    Example:
        >>> protocol("linear-n20@224").number, protocol("knn5").needs
        (20, ('train', 'test'))
    """
    parts = re.fullmatch(_NAME, name)
    if parts is not None:
        stages, pixels = parts["stages"] is not None, parts["pixels"]
        for kind in KINDS:
            match = re.fullmatch(kind.pattern, parts["base"])
            if match is not None and not (stages and kind.splits_itself):
                number = int(match.groupdict().get("number") or 0)
                return kind(name, number, int(pixels) if pixels else None, stages)
    hint = " k-NN has 20 neighbours, or 5." if name.startswith("knn") else ""
    raise UserError(
        f"Unknown protocol '{name}': use {', '.join((*PROTOCOLS, *MORE))}, with @stages for "
        f"features of all stages or @224 for another image size.{hint}"
    )


def check_protocols(
    protocols: Sequence[str], *, source: bool = False, known: Collection[str] = ()
) -> list[Protocol]:
    """Finds protocols by name and refuses those that lack what they need.

    Args:
        protocols: Names.
        source: Whether there is another data set to learn from.
        known: What is known of the training images: "places", "files".

    Returns:
        The protocols, in the same order.

    Raises:
        UserError: Naming the first that is unknown or lacks something.
    """
    if not protocols:
        raise UserError(f"No protocol is given: give one or more, such as {PROTOCOLS[0]}.")
    parsed = [protocol(name) for name in protocols]
    for asked in parsed:
        if "source" in asked.needs and not source:
            raise UserError(
                f"The protocol '{asked.name}' learns from another data set: give source.name and "
                "class_map."
            )
        if asked.wants == "places" and "places" not in known:
            raise UserError(
                f"The protocol '{asked.name}' needs to know where images are: name the column with "
                "data.place."
            )
        if asked.wants == "files" and "files" not in known:
            raise UserError(
                f"The protocol '{asked.name}' splits images by their file names, which the data "
                "does not have: use a folder of images, or a 'file' column."
            )
    return parsed
