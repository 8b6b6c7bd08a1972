"""Nearest neighbours by cosine similarity: the probe that trains nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor | Sequence
# DINO's, arXiv 2104.14294 (its eval_knn.py).
TEMPERATURE = 0.07


def knn_predict(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    *,
    k: int = 20,
    temperature: float | None = TEMPERATURE,
    num_classes: int | None = None,
    chunk: int = 4096,
) -> np.ndarray:
    """Classes that the nearest training images vote for.

    The same answer as scikit-learn's `KNeighborsClassifier(metric="cosine")`: with uniform weights
    for `temperature=None`, with `weights=lambda d: exp((1 - d) / temperature)` otherwise (DINO's
    vote). Equal votes go to the class with the lower index. Which of several neighbours at exactly
    the same distance is the k-th is not defined, here as there.

    Args:
        train_x: (N, D) features; lengths do not matter.
        train_y: (N,) class indices.
        test_x: (M, D).
        k: Neighbours that vote; all N where there are fewer.
        temperature: A neighbour's vote weighs exp(cosine / temperature); None counts heads.
        num_classes: Number of classes; None takes the highest training label.
        chunk: Test images compared at a time, which bounds memory to `chunk * N` similarities.

    Returns:
        (M,) int64.

    Example:
        >>> knn_predict([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.9, 0.1], [0.2, 0.8]], k=1).tolist()
        [0, 1]
    """
    labels = torch.as_tensor(train_y)
    train = _unit(train_x)
    test = _unit(test_x).to(train)
    labels = labels.to(train.device)
    classes = num_classes or int(labels.max()) + 1
    k = min(k, len(train))
    predicted = []
    for part in test.split(chunk):
        similarity, index = (part @ train.T).topk(k, dim=1)  # (m, k)
        if temperature is None:
            weight = torch.ones_like(similarity)
        else:
            weight = ((similarity - 1) / temperature).exp()  # -1: the same vote, no overflow
        votes = part.new_zeros(len(part), classes).scatter_add_(1, labels[index], weight)
        # numpy's argmax takes the first of equal votes; torch promises nothing.
        predicted.append(votes.cpu().numpy().argmax(1))
    return np.concatenate(predicted).astype(np.int64)


def knn_accuracy(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    k: int = 20,
    temperature: float | None = TEMPERATURE,
) -> float:
    """Accuracy of `knn_predict` in percent; arguments as there, test_y (M,)."""
    predicted = knn_predict(train_x, train_y, test_x, k=k, temperature=temperature)
    return 100 * float((predicted == torch.as_tensor(test_y).cpu().numpy()).mean())


def _unit(x: Array) -> Tensor:
    return torch.nn.functional.normalize(torch.as_tensor(x), dim=1)
