"""Images without labels that help: a start that is kept, answers of neighbours, then one's own.

The network begins as the best that is known without training it. A logistic regression on whitened
features of all its stages, which tell more than the last one, answers for all images, and the
graph of their neighbours smooths these answers (`labelling.propagate`). The network's last layer
begins as another regression, of the labels and these answers on what it reads: a random one spoils
the features (Kumar et al., ICLR 2022, arXiv 2202.10054). Strongly augmented images without labels
are at first to be answered so; after a share of the steps the network answers itself where it is
certain (FixMatch, Sohn et al., NeurIPS 2020, arXiv 2001.07685), corrected to equal classes
(distribution alignment of ReMixMatch, Berthelot et al., ICLR 2020, arXiv 1911.09785). The running
mean of its weights gives these answers and is what is tested and kept (Mean Teacher, Tarvainen and
Valpola, NeurIPS 2017, arXiv 1703.01780). What is validated and tested has true labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback

from ... import backbones
from ...evaluation.features import Encoder
from ...evaluation.fewshot import FEW_SHOT_C
from ...evaluation.linear import LinearProbe, fit_probe
from ...evaluation.readout import Whitening, at_all_stages, sides
from ...labelling.propagate import neighbour_graph, smoothed, whitened
from ...preprocessing import Preprocessing
from ..classification import classify
from .config import SelfTraining
from .examples import Examples, collate
from .learner import Learner

# Chosen on UC Merced's validation images (RSISC mini, five draws of 1, 5 and 20 labels a class). A
# regression on labels alone has 29.3, 49.6 and 63.0 % there; that of answers from the last stage
# 34.8, 52.9 and 64.3, from all stages 36.7, 53.1 and 65.4, of their squares 37.5, 53.9 and 66.2. A
# C of 0.01 or 0.1 was within two points.
_SHARPNESS = 2
_C = 0.03
_LABELS_WEIGH = 3  # as so many images without a label
_MEMORY = 0.99  # share of the past in the running mean of the answers
_BATCH = 64


def embeddings(model: Any, examples: Examples) -> np.ndarray:
    """What a classifier's last layer reads of whole images, (N, D) float32."""
    return _read(
        model, lambda x: backbones.classifier_input(model.base_model, x).flatten(1), examples
    )


def stage_embeddings(model: Any, examples: Examples, preprocessing: Preprocessing) -> np.ndarray:
    """Whitened features of all stages of a classifier's backbone at two sizes, (N, E) float32."""
    body = model.base_model
    encoder = Encoder(body, lambda x: backbones.pooled(body, x), "", "", preprocessing)
    forward = at_all_stages(encoder).forward
    parts = []
    for side in sides(examples.size or preprocessing.train_size):
        scaled = copy.copy(examples)  # they share what is decoded
        scaled.size = side
        parts.append(_read(model, forward, scaled))
    features = np.concatenate(parts, axis=1)
    return Whitening.fit(features)(features)


def _read(model: Any, forward: Callable[[Tensor], Tensor], examples: Examples) -> np.ndarray:
    model.eval()
    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for batch in DataLoader(examples, _BATCH, collate_fn=collate):
            parts.append(forward(batch["pixel_values"].to(device)).float().cpu().numpy())
    return np.concatenate(parts)


def beginning(
    features: np.ndarray,
    stages: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    settings: SelfTraining,
) -> tuple[LinearProbe, np.ndarray]:
    """What is known before anything is trained: answers to all images, and a classifier of them.

    A class without labels is never answered.

    Args:
        features: (N, D) that the classifier reads, of labelled images and others.
        stages: (N, E) that the answers come from.
        labels: (N,) classes, -1 where there is none.
        num_classes: Number of classes K.
        settings: Neighbours and `alpha`.

    Returns:
        The classifier; and (N, K) probabilities, 1 for what an image is labelled.
    """
    labelled = np.flatnonzero(labels >= 0)
    there, classes = np.unique(labels[labelled], return_inverse=True)
    numbers = np.full(len(labels), -1)
    numbers[labelled] = classes
    first = fit_probe(stages[labelled], classes, c=FEW_SHOT_C)
    odds = torch.from_numpy(first.logits(stages)).softmax(1).numpy()
    graph = neighbour_graph(whitened(stages), settings.neighbours)
    sharp = smoothed(graph, odds, numbers, alpha=settings.alpha) ** _SHARPNESS
    answers = np.zeros((len(labels), num_classes), np.float32)
    answers[:, there] = sharp / sharp.sum(1, keepdims=True)
    answers[labelled] = np.eye(num_classes, dtype=np.float32)[labels[labelled]]
    rows = np.concatenate([np.arange(len(labels)), np.repeat(labelled, _LABELS_WEIGH - 1)])
    return fit_probe(features[rows], answers[rows], c=_C), answers


def begin_as(model: Any, probe: LinearProbe) -> None:
    """Makes a classifier's last layer a logistic regression on what it reads."""
    last = [part for part in model.classifier.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(probe.weight.T)
        last.bias.copy_(probe.bias)


class WithUnlabelled(Dataset):
    """Labelled samples, each with some images without labels under a weak and a strong view.

    Every other one of them is drawn by its likeliest class, all classes alike, the rest from all;
    by seed, epoch and row, so that a resumed run draws the same.

    Args:
        labelled: Samples to learn from.
        weak: Images without labels, augmented as the labelled ones are.
        strong: The transform of their strong views.
        targets: (len(weak), K) probabilities of their classes.
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
        likeliest = targets.argmax(1)
        self._by_class = [np.flatnonzero(likeliest == number) for number in np.unique(likeliest)]

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
            if number % 2 == 0:
                among = self._by_class[rng.integers(len(self._by_class))]
            drawn.append(int(among[rng.integers(len(among))]))
        sample["weak"] = torch.stack([self.weak[i]["pixel_values"] for i in drawn])
        sample["strong"] = torch.stack([self.strong[i]["pixel_values"] for i in drawn])
        sample["targets"] = torch.from_numpy(self.targets[drawn]).float()
        return sample


def collate_both(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of `WithUnlabelled`: `weak`, `strong` (U, C, H, W), `targets` (U, K) beside."""
    batch = collate(samples)
    for key in {"weak", "strong", "targets"} & samples[0].keys():  # none where it is evaluated
        batch[key] = torch.cat([sample[key] for sample in samples])
    return batch


class SelfLearner(Learner):
    """A classifier that learns from labelled images and from its mean's answers to others.

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
        self.teacher = copy.deepcopy(self.model).requires_grad_(False).eval()

    @property
    def tested(self) -> Any:
        """The running mean of the weights."""
        return self.teacher

    def begin(self, probe: LinearProbe) -> None:
        """Starts as a logistic regression on the features."""
        for model in (self.model, self.teacher):
            begin_as(model, probe)

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Takes the weights of a step into their running mean, which is shorter at first.

        Args:
            step: Number of optimizer steps so far.
        """
        kept = min(self.settings.average, step / (step + 9))
        for mean, now in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - kept)
        for theirs, ours in zip(self.teacher.buffers(), self.model.buffers(), strict=True):
            theirs.copy_(ours)

    def train(self, mode: bool = True) -> SelfLearner:
        """Training mode, but for the running mean and what is frozen."""
        super().train(mode)
        self.teacher.eval()
        return self

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
            targets: (U, K) probabilities of their classes at first.
            own: Whether the network's own answers are the targets now.
        """
        if labels is None:
            return self.task.outputs(self.teacher, pixel_values)
        if weak is None or strong is None or targets is None:
            return super().forward(pixel_values, labels)
        logits = classify(self.model, torch.cat((pixel_values, strong))).float()
        known, strongly = logits.split((len(labels), len(strong)))
        loss = F.cross_entropy(known, labels, self.class_weights)
        if own:
            targets = self._answers(weak)
        # Over all of them, as in FixMatch: few certain answers weigh little.
        others = F.cross_entropy(strongly, targets, reduction="sum") / len(strong)
        return {"loss": loss + self.settings.weight * others}

    @torch.no_grad()
    def _answers(self, weak: Tensor) -> Tensor:
        """Certain answers as probabilities of one class, (U, K); nothing where it is not."""
        odds = classify(self.teacher, weak).float().softmax(1)
        self.mean.mul_(_MEMORY).add_(odds.mean(0), alpha=1 - _MEMORY)
        aligned = odds / self.mean
        certainty, answers = (aligned / aligned.sum(1, keepdim=True)).max(1)
        certain = certainty >= self.settings.confidence
        return F.one_hot(answers, odds.shape[1]) * certain[:, None].float()


class Averaging(TrainerCallback):
    """Takes each step's weights into a learner's running mean.

    Args:
        learner: Whose.
    """

    def __init__(self, learner: SelfLearner) -> None:
        """Keeps the learner."""
        self.learner = learner

    def on_step_end(self, args: Any, state: Any, control: Any, **keys: Any) -> None:
        """After the optimizer, before a checkpoint."""
        self.learner.average(state.global_step)
