"""Few labels of tiles that were suggested, or that came at random: what a guide to label is worth.

A budget of n labels a class on average, without knowing the classes: that is what a person has who
starts with a pile. `linear-n5` draws five of each class and so knows the answer before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..data.sampling import hash_indices
from ..data.typical import typical_draw
from .answers import Answers, Material, probe_scores
from .fewshot import FEW_SHOT_C
from .linear import fit_probe
from .protocol import Protocol

# Budgets in labels a class at which a person asks again; the labels so far steer the next ones.
_ROUNDS = (1, 2, 5, 10, 20, 50, 100)


class Guided(Protocol):
    """Logistic regression on as many labels as n a class would be, suggested or at random."""

    pattern = r"(?P<guide>suggested|random)-n(?P<number>[1-9]\d*)"

    def too_small(self, labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> str:
        """Tells how many images there are where they are fewer than the budget."""
        count, budget = len(labels["train"]), self.number * len(np.unique(labels["train"]))
        return f"{budget} labels are asked for of {count} images" if budget > count else ""

    def measure(self, material: Material) -> Answers:
        """Measures a probe a seed, with features standardised by the whole pile."""
        train, test = material.train, material.test
        mean, deviation = train.x.mean(0), train.x.std(0)
        deviation = np.where(deviation > 0, deviation, 1)
        classes = int(train.y.max()) + 1
        logits, drawn, met = [], [], []
        for seed in range(material.inputs.seeds):
            rows = self._draw(train.x, classes, seed)
            known = np.unique(train.y[rows])
            scores = np.full((len(test), classes), -np.inf, np.float32)
            if len(known) > 1:
                probe = fit_probe(
                    (train.x[rows] - mean) / deviation,
                    np.searchsorted(known, train.y[rows]),
                    c=FEW_SHOT_C,
                    device=material.inputs.device,
                )
                scores[:, known] = probe.logits((test.x - mean) / deviation)
            else:
                scores[:, known] = 0
            logits.append(scores)
            drawn.append(hash_indices(np.sort(rows)))
            met.append(len(known))
        correct = [values.argmax(1) == test.y for values in logits]
        settings = {
            "c": FEW_SHOT_C,
            "labels": self.number * classes,
            "classes_met": met,
            "seeds": list(range(material.inputs.seeds)),
            "draws": drawn,
            "standardised_by": "train",
        }
        return Answers(correct, settings, probe_scores(logits, [test.y] * material.inputs.seeds))

    def _draw(self, features: np.ndarray, classes: int, seed: int) -> np.ndarray:
        if self.name.startswith("random"):
            order = np.random.default_rng(seed).permutation(len(features))
            return order[: self.number * classes]
        rows = np.zeros(0, np.int64)
        for budget in (*(n for n in _ROUNDS if n < self.number), self.number):
            new = typical_draw(features, budget * classes - len(rows), known=rows, seed=seed)
            rows = np.concatenate([rows, new])
        return rows
