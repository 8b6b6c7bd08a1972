"""Few labels a class: probes on nested, seeded draws, the same draws for every encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.sampling import few_shot_draw, hash_indices
from .answers import Answers, probe_scores
from .linear import fit_probe

# Fixed: a few labels leave none to choose with, and choosing on test would be cheating.
FEW_SHOT_C = 0.1


@dataclass(frozen=True)
class FewShotScores:
    """What the probes of one n got right.

    Attributes:
        correct: (draws, M) bool, per draw and test image.
        draws: Hash of each draw's row indices in the training split.
        n: Labelled images a class.
        scores: Other scores, a value a draw.
    """

    correct: np.ndarray
    draws: list[str]
    n: int
    scores: dict[str, list[float]]

    def answers(self) -> Answers:
        """As an answer of a protocol."""
        settings = {
            "c": FEW_SHOT_C,
            "images_per_class": self.n,
            "seeds": list(range(len(self.draws))),
            "draws": self.draws,
            "standardised_by": "draw",
        }
        return Answers(list(self.correct), settings, self.scores)


def few_shot(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    n: int,
    seeds: int = 5,
    class_names: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> FewShotScores:
    """Probes on `n` labelled images a class, `seeds` times.

    Features are standardised by the draw's own images: nothing else of the training split is used.
    For one seed the draws are nested, the 5 images of a class among its 20.

    Args:
        train_x: (N, D) features to draw from.
        train_y: (N,) class indices.
        test_x: (M, D) features.
        test_y: (M,) class indices.
        n: Labelled images a class.
        seeds: Number of draws, seeded 0, 1, ...
        class_names: For error messages.
        device: Where to compute.

    Raises:
        UserError: A class has fewer than `n` images.
    """
    logits, draws = [], []
    for seed in range(seeds):
        rows = few_shot_draw(train_y, n, seed, class_names=class_names)
        probe = fit_probe(train_x[rows], train_y[rows], c=FEW_SHOT_C, device=device)
        logits.append(probe.logits(test_x))
        draws.append(hash_indices(rows))
    correct = np.stack([values.argmax(1) == test_y for values in logits])
    return FewShotScores(correct, draws, n, probe_scores(logits, [test_y] * seeds))
