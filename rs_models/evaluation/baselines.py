"""Encoders that learned nothing: what a trained one has to beat.

Several published remote sensing models lose to them (torchgeo-bench's reference results), and they
cost next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import backbones
from ..bands import band_statistics
from ..data.cache import ImageCache
from ..errors import UserError
from .features import Encoder

PREFIX = "baseline:"
_RANDOM = "random-"
_CONVOLUTIONS = ("random-convolutions", "kmeans-convolutions")
_QUANTILES = (0.1, 0.5, 0.9)
_NUM_FILTERS = 256  # two features each
_KERNEL = 3
_PATCHES = 20_000
_ROUNDS = 10  # of k-means
# Added to the patches' variances before whitening, in units of their mean: patches of neighbouring
# pixels are nearly collinear, and pure noise must not be blown up.
_WHITENING = 1e-2


@dataclass
class Baseline:
    """A baseline by name; it becomes an encoder for given data.

    Attributes:
        kind: "image-statistics", "random-convolutions", "kmeans-convolutions", or "random-" and the
            name of a backbone, e.g. "random-resnet18".
        size: Pixels that images are brought to; None leaves them as they are.
        seed: Seed of the random weights.
        name: Name in results.
    """

    kind: str
    size: int | None = None
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        """Refuses a name that stands for nothing."""
        random = (f"{_RANDOM}{name}" for name in backbones.BACKBONES)
        known = ("image-statistics", *_CONVOLUTIONS, *random)
        if self.kind not in known:
            raise UserError(
                f"No baseline '{self.kind}': use {PREFIX} and one of {', '.join(known)}."
            )
        self.name = self.name or f"{PREFIX}{self.kind}"

    def fit(self, cache: ImageCache) -> Encoder:
        """The encoder for the bands, value range and statistics of training images.

        Nothing sees a label. The generator is the baseline's own, so the result is the same
        whatever ran before.
        """
        kind = self.kind
        size = self.size or min(cache.image_size)
        mean, std = [0.0] * len(cache.bands), [1.0] * len(cache.bands)
        model: nn.Module
        if kind == "image-statistics":
            model = ImageStatistics()
        else:
            measured = band_statistics(cache.images, cache.value_range)
            mean, std = list(measured[0]), list(measured[1])
            if kind in _CONVOLUTIONS:
                model = PatchConvolutions.from_images(
                    cache, mean, std, seed=self.seed, learned=kind == "kmeans-convolutions"
                )
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.seed)
                    model = backbones.build(
                        kind.removeprefix(_RANDOM), bands=cache.bands, image_size=size
                    )
        return Encoder.from_model(
            model.eval(),
            bands=cache.bands,
            value_range=cache.value_range,
            image_mean=mean,
            image_std=std,
            train_size=size,
            name=self.name,
            revision=f"seed-{self.seed}",
        )


class ImageStatistics(nn.Module):
    """Mean, standard deviation and three quantiles of each band."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 5 C)."""
        pixels = x.float().flatten(2)  # (B, C, H*W)
        levels = torch.tensor(_QUANTILES, device=x.device)
        quantiles = pixels.quantile(levels, dim=2)  # (3, B, C)
        return torch.cat((pixels.mean(2), pixels.std(2, correction=0), *quantiles), dim=1)


class PatchConvolutions(nn.Module):
    """One layer of convolutions whose filters are patches of the images, whitened.

    Either patches at random places, as in MOSAIKS (Rolf et al., Nature Communications, 2021), or
    the centres of their clusters by k-means (Coates, Lee and Ng, AISTATS 2011), which is what
    unsupervised feature learning was before networks were deep. Each filter gives two features, the
    means over the image of the rectified response and of the rectified opposite.

    Args:
        weight: (F, C, k, k) filters.
    """

    def __init__(self, weight: Tensor) -> None:
        """Keeps the filters as a buffer: nothing here is trained."""
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", weight)

    @classmethod
    def from_images(
        cls,
        cache: ImageCache,
        mean: list[float],
        std: list[float],
        *,
        seed: int,
        learned: bool = False,
    ) -> PatchConvolutions:
        """Filters from patches of training images.

        Args:
            cache: Training images.
            mean: Mean of each band, after division by the highest value.
            std: Standard deviation of each band, after division by the highest value.
            seed: Seed of the places and clusters.
            learned: Whether the filters are cluster centres instead of patches as they are.
        """
        rng = torch.Generator().manual_seed(seed)
        height, width = cache.image_size
        rows = torch.randint(len(cache), (_PATCHES,), generator=rng).tolist()
        tops = torch.randint(height - _KERNEL + 1, (_PATCHES,), generator=rng).tolist()
        lefts = torch.randint(width - _KERNEL + 1, (_PATCHES,), generator=rng).tolist()
        patches = torch.stack(
            [
                cache.images[row, :, top : top + _KERNEL, left : left + _KERNEL]
                for row, top, left in sorted(zip(rows, tops, lefts, strict=True))
            ]
        ).float()  # (P, C, k, k)
        patches = patches / cache.value_range[1]
        patches = (patches - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        flat = patches.flatten(1).double()
        flat = flat - flat.mean(0)
        variance, basis = torch.linalg.eigh(flat.T @ flat / len(flat))
        shrunk = variance + _WHITENING * variance.mean()
        whiten = basis @ torch.diag(shrunk.rsqrt()) @ basis.T
        if learned:
            from scipy.cluster.vq import kmeans2

            patches_whitened = torch.nn.functional.normalize(flat @ whiten, dim=1).numpy()
            chosen, _ = kmeans2(
                patches_whitened, _NUM_FILTERS, iter=_ROUNDS, minit="++", missing="warn", seed=seed
            )
            chosen = torch.from_numpy(chosen)
        else:
            chosen = flat[torch.randperm(len(flat), generator=rng)[:_NUM_FILTERS]] @ whiten
        unit = torch.nn.functional.normalize(chosen, dim=1)
        # A response to a raw patch is the whitened filter's dot product with the whitened patch.
        return cls((unit @ whiten).float().reshape(-1, *patches.shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 F)."""
        response = torch.nn.functional.conv2d(x, self.weight)
        positive = response.relu().mean((2, 3), dtype=torch.float32)
        # relu(-r) = relu(r) - r
        negative = positive - response.mean((2, 3), dtype=torch.float32)
        return torch.cat((positive, negative), dim=1)
