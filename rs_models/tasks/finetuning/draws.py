"""Which images have labels, and which of them are for validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...data.sampling import few_shot_draw, image_draw, share_draw
from .config import parse_labels
from .data import Split


@dataclass(frozen=True)
class Draw:
    """The labelled images of a seed.

    Attributes:
        labelled: Rows of the train split whose labels are used, sorted.
        learned: Those to learn from.
        validation: Split of the images that early stopping looks at.
        held: Rows of it; none trains to the end.
    """

    labelled: np.ndarray
    learned: np.ndarray
    validation: Split
    held: np.ndarray


def draw(split: Split, labels: str | int, seed: int) -> np.ndarray:
    """Rows of the labelled images, sorted; see `FinetuneConfig.labels`.

    Raises:
        UserError: More than there are.
    """
    kind, amount = parse_labels(labels)
    if kind == "all":
        return np.arange(len(split))
    if kind == "class":
        assert split.labels is not None  # `check` has seen to it
        return few_shot_draw(split.labels, int(amount), seed, class_names=split.classes)
    if kind == "share" and split.labels is not None:
        return share_draw(split.labels, amount, seed)
    count = max(1, round(amount * len(split))) if kind == "share" else int(amount)
    return image_draw(len(split), count, seed)


def hold_out(
    split: Split, rows: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Parts drawn rows into those to learn from and those for validation.

    Of classes the same share each is held out, and none of a class with too few; of fewer than five
    other images none.
    """
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    if split.labels is None:
        count = round(share * len(rows)) if len(rows) >= 5 else 0
        held = order[:count]
    else:
        classes = split.labels[rows]
        held = np.concatenate(
            [
                order[classes[order] == label][: round(share * (classes == label).sum())]
                for label in np.unique(classes)
            ]
        )
    kept = np.setdiff1d(np.arange(len(rows)), held)
    return rows[kept], np.sort(rows[held])
