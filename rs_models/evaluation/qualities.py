"""Protocols of the two things that the survey asks of features: invariant and discriminative.

Tao et al., TGRS 2023 (arXiv 2211.08129), judge signals and data by what the features make of them.
Nothing is learned here: an image has to be found again after it was turned, recoloured or enlarged,
and classes have to lie apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.cache import ImageCache
from .answers import Answers, Material
from .protocol import Protocol

# Gains of the first and of the last band: a warm light, as between two seasons or two sensors.
_GAINS = (1.25, 0.75)
# Share of the side that the enlarged middle keeps.
_KEPT = 0.75
_ROWS = 1024  # of the matrix of similarities at a time


def _turned(images: Tensor, value_range: tuple[float, float]) -> Tensor:
    return images.rot90(1, (2, 3))


def _recoloured(images: Tensor, value_range: tuple[float, float]) -> Tensor:
    gains = torch.linspace(*_GAINS, images.shape[1]).view(1, -1, 1, 1)
    return (images.float() * gains).round().clamp(*value_range).to(images.dtype)


def _enlarged(images: Tensor, value_range: tuple[float, float]) -> Tensor:
    height, width = images.shape[2:]
    kept = (round(_KEPT * height), round(_KEPT * width))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return images[:, :, top : top + kept[0], left : left + kept[1]]


# What is done to the stored pixels (N, C, H, W) of a value range.
VIEWS: Mapping[str, Callable[[Tensor, tuple[float, float]], Tensor]] = {
    "rotation": _turned,
    "colour": _recoloured,
    "scale": _enlarged,
}


def viewed(images: ImageCache, view: str) -> ImageCache:
    """Images after something was done to them.

    Args:
        images: Images to change; they stay as they are.
        view: A key of `VIEWS`.

    Returns:
        The same rows with a fingerprint of their own, held in memory.
    """
    changed = replace(images, fingerprint=f"{images.fingerprint}-{view}")
    changed.images = VIEWS[view](images.images, images.value_range)
    return changed


class Invariance(Protocol):
    """Whether an image is found again after it was turned, recoloured or enlarged.

    The share of test images whose changed version has the image itself as its nearest neighbour, by
    cosine, among all test images. It asks for both virtues: features that are all alike find
    nothing again.
    """

    pattern = rf"invariance-(?:{'|'.join(VIEWS)})"
    needs = ("test",)
    metric = "recall@1"

    @property
    def view(self) -> str:
        """What is done to the images, a key of `VIEWS`."""
        return self.name.split("@")[0].removeprefix("invariance-")

    def measure(self, material: Material) -> Answers:
        """Measures by the nearest of the unchanged images."""
        assert material.viewed is not None
        images = F.normalize(torch.from_numpy(material.test.x).double(), dim=1)
        views = F.normalize(torch.from_numpy(material.viewed).double(), dim=1)
        nearest = [(part @ images.T).argmax(1) for part in views.split(_ROWS)]
        correct = torch.cat(nearest) == torch.arange(len(images))
        return Answers([correct.numpy()], {"view": self.view})


class Silhouette(Protocol):
    """How far classes lie apart: Rousseeuw's silhouette by cosine distance, 1987.

    Of each test image the mean distance to the nearest other class less that to its own, over the
    larger of the two: 100 where classes are points apart, 0 where they overlap, below 0 where an
    image lies nearer to another class.
    """

    pattern = "silhouette"
    needs = ("test",)
    metric = "silhouette"

    def too_small(self, labels: Mapping[str, np.ndarray], classes: Sequence[str] | None) -> str:
        """Says that one class has no other to lie apart from."""
        return "all images are of one class" if len(np.unique(labels["test"])) < 2 else ""

    def measure(self, material: Material) -> Answers:
        """Measures the silhouette of each test image."""
        test = material.test
        return Answers([silhouettes(test.x, test.y)], {"distance": "cosine"})


def silhouettes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Silhouette of each image by cosine distance.

    The mean cosine distance to a class is that to the mean of its unit vectors, so that no matrix
    of all pairs is needed.

    Args:
        x: (N, D) features, any scale.
        y: (N,) class indices, two classes or more.

    Returns:
        (N,) from -1 to 1; 0 for the only image of a class.

    Example:
        >>> silhouettes(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]), np.array([0, 0, 1, 1])).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x.astype(np.float64) / np.maximum(lengths, np.finfo(np.float64).tiny)
    _, member = np.unique(y, return_inverse=True)
    counts = np.bincount(member)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, member, unit)
    rows = np.arange(len(x))
    distances = 1 - unit @ (sums / counts[:, None]).T  # (N, classes)
    # An image's own distance, 0, does not count in its class.
    others = np.maximum(counts[member] - 1, 1)
    own = distances[rows, member] * counts[member] / others
    distances[rows, member] = np.inf
    nearest = distances.min(1)
    larger = np.maximum(own, nearest)
    apart = np.divide(nearest - own, larger, out=np.zeros_like(own), where=larger > 0)
    return np.where(counts[member] > 1, apart, 0.0)
