"""Images without labels that help: labels spread over neighbours first, then consistency of views.

Label propagation over the neighbours' graph of the untouched backbone's embeddings (Iscen et al.,
CVPR 2019, arXiv 1904.04717) gives the first targets of strongly augmented images; after a share of
the steps the network's own answers to weakly augmented ones take over where they are certain
(FixMatch, Sohn et al., NeurIPS 2020, arXiv 2001.07685), corrected to equal classes (distribution
alignment of ReMixMatch, Berthelot et al., ICLR 2020, arXiv 1911.09785). What is validated and
tested has true labels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ... import backbones
from ...labelling.propagate import propagate, whitened
from ..classification import classify
from .config import SelfTraining
from .examples import Examples, collate
from .learner import Learner

_MEMORY = 0.99  # share of the past in the running mean of the answers
_BATCH = 64


def embeddings(model: Any, examples: Examples) -> np.ndarray:
    """Pooled features of whole images by a classifier's backbone, (N, D) float32."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for batch in DataLoader(examples, _BATCH, collate_fn=collate):
            features = backbones.pooled(model.base_model, batch["pixel_values"].to(device))
            parts.append(features.float().cpu().numpy())
    return np.concatenate(parts)


def pseudo_labels(
    features: np.ndarray, labels: np.ndarray, num_classes: int, settings: SelfTraining
) -> np.ndarray:
    """Classes of the images that neighbours are most certain of, as many of each class at most.

    Args:
        features: (N, D), of labelled images and others.
        labels: (N,) classes, -1 where there is none.
        num_classes: Number of classes K.
        settings: Neighbours, `alpha` and the share that is taken.

    Returns:
        (N,) classes, -1 for labelled images and those that are not taken.
    """
    near, share = settings.neighbours, settings.alpha
    odds = propagate(whitened(features), labels, neighbours=near, alpha=share)
    others = np.flatnonzero(labels < 0)
    pseudo = np.full(len(labels), -1)
    if not len(others):
        return pseudo
    balanced = odds[others] / np.maximum(odds[others].mean(0), 1e-12)
    balanced /= balanced.sum(1, keepdims=True)
    best, certainty = balanced.argmax(1), balanced.max(1)
    most = max(1, round(settings.share * len(others) / num_classes))
    for number in range(odds.shape[1]):
        members = np.flatnonzero(best == number)
        chosen = members[np.argsort(-certainty[members], kind="stable")[:most]]
        pseudo[others[chosen]] = number
    return pseudo


class WithUnlabelled(Dataset):
    """Labelled samples, each with some images without labels under a weak and a strong view.

    Every other one of them is drawn by its pseudo-label, all classes alike, the rest from all; by
    seed, epoch and row, so that a resumed run draws the same.

    Args:
        labelled: Samples to learn from.
        weak: Images without labels, augmented as the labelled ones are.
        strong: The transform of their strong views.
        targets: (len(weak),) pseudo-labels, -1 where there is none.
        ratio: Images without labels to a labelled one.
    """

    def __init__(
        self, labelled: Examples, weak: Examples, strong: Any, targets: np.ndarray, ratio: int
    ) -> None:
        """Keeps both; they share what is decoded and the epoch."""
        weak.epoch = labelled.epoch
        self.labelled, self.weak, self.targets, self.ratio = labelled, weak, targets, ratio
        self.strong = copy.copy(weak)
        self.strong.transform = strong
        self._by_class = [np.flatnonzero(targets == k) for k in np.unique(targets[targets >= 0])]

    @property
    def epoch(self) -> Tensor:
        """The number of the epoch, shared with workers."""
        return self.labelled.epoch

    def __len__(self) -> int:
        """Number of labelled images."""
        return len(self.labelled)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One labelled sample and its companions."""
        sample = self.labelled[index]
        rng = np.random.default_rng([self.labelled.seed, int(self.epoch), index])
        drawn = []
        for number in range(self.ratio):
            among = np.arange(len(self.weak))
            if number % 2 == 0 and self._by_class:
                among = self._by_class[rng.integers(len(self._by_class))]
            drawn.append(int(among[rng.integers(len(among))]))
        sample["weak"] = torch.stack([self.weak[i]["pixel_values"] for i in drawn])
        sample["strong"] = torch.stack([self.strong[i]["pixel_values"] for i in drawn])
        sample["targets"] = torch.from_numpy(self.targets[drawn])
        return sample


def collate_both(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of `WithUnlabelled`: `weak`, `strong` (U, C, H, W) and `targets` (U,) beside."""
    batch = collate(samples)
    for key in {"weak", "strong", "targets"} & samples[0].keys():  # none where it is evaluated
        batch[key] = torch.cat([sample[key] for sample in samples])
    return batch


class SelfLearner(Learner):
    """A classifier that learns from labelled images and from its answers to others.

    Args:
        settings: Weight, confidence and so on.
        num_classes: Number of classes K.
        **keys: As for `Learner`.
    """

    mean: Tensor

    def __init__(self, *args: Any, settings: SelfTraining, num_classes: int, **keys: Any) -> None:
        """Begins with equal classes."""
        super().__init__(*args, **keys)
        self.settings = settings
        self.register_buffer("mean", torch.full((num_classes,), 1 / num_classes))

    def forward(
        self,
        pixel_values: Tensor,
        labels: Any = None,
        weak: Tensor | None = None,
        strong: Tensor | None = None,
        targets: Tensor | None = None,
        own: bool = False,
    ) -> dict[str, Tensor]:
        """The loss of labelled images and of others, else what the task counts.

        Args:
            pixel_values: (B, C, H, W).
            labels: (B,), or None.
            weak: (U, C, H, W) images without labels, weakly augmented.
            strong: The same, strongly augmented.
            targets: (U,) pseudo-labels by propagation, -1 where there is none.
            own: Whether the network's own answers are the targets now.
        """
        if labels is None or weak is None or strong is None or targets is None:
            return super().forward(pixel_values, labels)
        together = torch.cat((pixel_values, weak, strong))
        logits = classify(self.model, together).float()
        known, weakly, strongly = logits.split((len(labels), len(weak), len(strong)))
        loss = F.cross_entropy(known, labels, self.class_weights)
        odds = weakly.detach().softmax(1)
        self.mean.mul_(_MEMORY).add_(odds.mean(0), alpha=1 - _MEMORY)
        if own:
            aligned = odds / self.mean
            certainty, answers = (aligned / aligned.sum(1, keepdim=True)).max(1)
            targets = torch.where(certainty >= self.settings.confidence, answers, -1)
        # Over all of them, as in FixMatch: few certain answers weigh little.
        others = F.cross_entropy(strongly, targets, ignore_index=-1, reduction="sum")
        return {"loss": loss + self.settings.weight * others / len(strong)}
