"""Any frozen encoder as one thing: integer images in, feature vectors out, kept on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import backbones
from ..bands import band_indices
from ..data.cache import ImageCache
from ..errors import UserError
from ..files import written
from ..preprocessing import Preprocessing
from ..settings import progress_bar

_FORMAT = 1  # part of a kept file's name: raise it when the same input would give other features
_INTEGERS = (torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64)


@dataclass(eq=False)
class Encoder:
    """A frozen model with the preprocessing that it was trained with.

    Attributes:
        model: Weights; moved and run by `extract`.
        forward: Normalised images (B, C, H, W) -> features (B, D).
        name: For results.
        revision: Commit on the Hub, or hash of the weights.
        preprocessing: What stored pixels become before the network sees them.
        pretrained_on: Name, or names by stage, of the data behind the weights; None where unknown.
        readout: What `forward` gives, where one model is read in several ways.
        scales: Sides at which each image is read, in units of the size that is asked for; their
            features stand one behind the other.

    Example:
        >>> encoder = Encoder.from_model(
        ...     nn.Flatten(),
        ...     bands=("red",),
        ...     value_range=(0, 255),
        ...     image_mean=(0.5,),
        ...     image_std=(0.25,),
        ...     train_size=2,
        ... )
        >>> encoder(torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8))
        tensor([[-2.,  2.,  2., -2.]])
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    name: str
    revision: str
    preprocessing: Preprocessing
    pretrained_on: Any = None
    readout: str = "pooled"
    scales: tuple[float, ...] = (1.0,)

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands in channel order."""
        return self.preprocessing.bands

    @property
    def value_range(self) -> tuple[float, float]:
        """Stored values that mean black and full scale."""
        return self.preprocessing.value_range

    @property
    def train_size(self) -> int:
        """Side in pixels that images are brought to."""
        return self.preprocessing.train_size

    def at_size(self, size: int) -> Encoder:
        """The same encoder that brings images to another side in pixels."""
        preprocessing = dataclasses.replace(self.preprocessing, train_size=size)
        return dataclasses.replace(self, preprocessing=preprocessing)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        bands: Sequence[str],
        value_range: Sequence[float],
        image_mean: Sequence[float],
        image_std: Sequence[float],
        train_size: int,
        name: str = "",
        revision: str = "",
        forward: Callable[[Tensor], Tensor] | None = None,
        pretrained_on: Any = None,
    ) -> Encoder:
        """An encoder around a model in memory.

        Args:
            model: A native backbone, read by `backbones.pooled`, or any module that gives (B, D).
            bands: Canonical names in channel order.
            value_range: Stored values that mean black and full scale.
            image_mean: Per band, after division by `value_range[1]`.
            image_std: Per band, after division by `value_range[1]`.
            train_size: Side in pixels that images are brought to.
            name: Name in results.
            revision: Revision in results.
            forward: How to call a model that is neither.
            pretrained_on: Name of the data behind the weights.
        """
        if forward is None:
            forward = model if backbones.family_or_none(model) is None else _pooled_by(model)
        low, high = value_range
        return cls(
            model=model,
            forward=forward,
            name=name,
            revision=revision,
            preprocessing=Preprocessing(
                bands=tuple(bands),
                value_range=(float(low), float(high)),
                image_mean=tuple(image_mean),
                image_std=tuple(image_std),
                train_size=train_size,
            ),
            pretrained_on=pretrained_on,
        )

    def __call__(self, images: Tensor, *, size: int | None = None) -> Tensor:
        """Features of stored images.

        Args:
            images: (B, C, H, W) integers as stored, bands in the encoder's order, on the model's
                device.
            size: Pixels to bring them to; None means `train_size`.

        Returns:
            (B, D) float32.

        Raises:
            UserError: Another number of bands, or values that are not stored integers.
        """
        if images.ndim != 4 or images.shape[1] != len(self.bands):
            raise UserError(
                f"{self.name or 'The encoder'} takes images (B, {len(self.bands)}, H, W) of the "
                f"bands {', '.join(self.bands)} but got {tuple(images.shape)}."
            )
        if images.dtype not in _INTEGERS:
            raise UserError(
                f"{self.name or 'The encoder'} takes stored integers up to "
                f"{self.value_range[1]:g} and scales them itself, but got {images.dtype} images."
            )
        features = []
        for scale in self.scales:
            side = round(scale * (size or self.train_size))
            x = self.preprocessing.network_input(images, side)
            x = x.contiguous(memory_format=torch.channels_last)
            features.append(self.forward(x).float())
        return torch.cat(features, dim=1)

    def fit(self, cache: ImageCache) -> Encoder:
        """Itself: only a `Baseline` looks at the training images first."""
        return self


def extract(
    encoder: Encoder,
    cache: ImageCache,
    *,
    size: int | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str = "no",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Features of all images of a data set.

    The same on every call: evaluation mode, batches in order. With `cache_dir` they are kept in a
    file named by the weights, the preprocessing, the images, the size and the precision, and read
    from there the next time.

    Args:
        encoder: What makes them.
        cache: Images with at least the encoder's bands, in any order.
        size: Pixels to bring images to; None means the encoder's `train_size`.
        batch_size: Images at a time.
        device: Where to run; None means a GPU where there is one.
        precision: "no" (float32) or "bf16" (autocast; features are float32 all the same).
        cache_dir: Folder of the kept features; None keeps none.
        progress: Show a progress bar.

    Returns:
        (N, D) float32.

    Raises:
        UserError: Bands that are missing, another value range, or features that are not finite.
    """
    order = band_indices(cache.bands, encoder.bands)
    if tuple(cache.value_range) != tuple(encoder.value_range):
        raise UserError(
            f"{encoder.name or 'The encoder'} was trained on stored values from "
            f"{encoder.value_range[0]:g} to {encoder.value_range[1]:g}, but these images hold them "
            f"from {cache.value_range[0]:g} to {cache.value_range[1]:g}: convert the data."
        )
    side = size or encoder.train_size
    path = None
    if cache_dir is not None:
        path = Path(cache_dir) / f"{_features_key(encoder, cache, side, precision)}.npy"
        if path.exists():
            return np.load(path)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    autocast = (
        torch.autocast(target.type, torch.bfloat16)
        if precision == "bf16"
        else contextlib.nullcontext()
    )
    model = encoder.model
    training = model.training
    model.eval().to(target)
    parts = []
    bar = progress_bar(len(cache), "features", "image", shown=progress, passing=True)
    with bar, torch.inference_mode(), autocast:
        for start in range(0, len(cache), batch_size):
            images = cache.images[start : start + batch_size][:, order].to(target)
            parts.append(encoder(images, size=side).cpu())
            bar.update(len(images))
    model.train(training)
    features = torch.cat(parts).numpy()
    if not np.isfinite(features).all():
        raise UserError(
            f"Features of {encoder.name or 'the encoder'} are NaN or infinite: its weights diverged"
            f"{' or overflow in bf16' if precision == 'bf16' else ''}."
        )
    if path is not None:
        with written(path) as partial:
            np.save(partial, features)
    return features


def weights_hash(model: nn.Module) -> str:
    """Hash (16 hex digits) of all weights and buffers, by name, on any device."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{key} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _features_key(encoder: Encoder, cache: ImageCache, size: int, precision: str) -> str:
    parts = [
        _FORMAT,
        type(encoder.model).__name__,
        weights_hash(encoder.model),
        getattr(getattr(encoder.model, "config", None), "output_stride", None),
        encoder.bands,
        encoder.preprocessing.image_mean,
        encoder.preprocessing.image_std,
        cache.fingerprint,
        size,
        precision,
        *([] if encoder.readout == "pooled" else [encoder.readout]),
        *([] if encoder.scales == (1.0,) else [encoder.scales]),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _pooled_by(model: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: backbones.pooled(model, x)
