"""How stored pixels become what a network takes, read from the weights' own record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .bands import resolve_bands
from .errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """Statistics that weights were trained with.

    Attributes:
        bands: Canonical names in channel order.
        value_range: Stored values that mean black and full scale.
        image_mean: Per band, after division by `value_range[1]`.
        image_std: Likewise.
        train_size: Side in pixels of the training images.
    """

    bands: tuple[str, ...]
    value_range: tuple[float, float]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    train_size: int

    @classmethod
    def of(cls, record: Any) -> Preprocessing:
        """From a provenance dict, or anything with the same attributes (an `Encoder`)."""
        values = record if isinstance(record, Mapping) else vars(record)
        low, high = values["value_range"]
        return cls(
            bands=resolve_bands(values["bands"]),
            value_range=(float(low), float(high)),
            image_mean=tuple(values["image_mean"]),
            image_std=tuple(values["image_std"]),
            train_size=int(values["train_size"]),
        )

    def record(self) -> dict[str, Any]:
        """As plain JSON values, under the names of provenance."""
        return {
            "bands": list(self.bands),
            "value_range": list(self.value_range),
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "train_size": self.train_size,
        }

    def check(self, image: np.ndarray, what: str) -> None:
        """Refuses pixels of another type than the weights know.

        Raises:
            UserError: Naming the image.
        """
        wanted = "uint8" if self.value_range[1] <= 255 else "uint16"
        if image.dtype != wanted:
            raise UserError(
                f"The model takes {wanted} images up to {self.value_range[1]:g}, but {what} is "
                f"{image.dtype}: convert the data."
            )

    def scaled(self, image: Tensor) -> Tensor:
        """(H, W, C) as stored -> (C, H, W) float32, 1 being full scale."""
        return image.permute(2, 0, 1).float() / self.value_range[1]

    def resized(self, images: Tensor, size: int) -> Tensor:
        """(B, C, H, W) scaled -> (B, C, size, size), as `Encoder` does it."""
        if images.shape[-2:] == (size, size):
            return images
        top = images.amax((1, 2, 3), keepdim=True).clamp(min=1)
        images = F.interpolate(
            images, (size, size), mode="bicubic", antialias=True, align_corners=False
        )
        return images.clamp(min=0).minimum(top)

    def normalised(self, images: Tensor) -> Tensor:
        """(B, C, H, W) scaled -> normalised."""
        mean = torch.tensor(self.image_mean, device=images.device)[:, None, None]
        std = torch.tensor(self.image_std, device=images.device)[:, None, None]
        return (images - mean) / std


def recorded(config: Any) -> Preprocessing | None:
    """What a model's config, or its backbone's, says in `rs_models`; None where it says nothing."""
    for place in (config, getattr(config, "backbone_config", None)):
        record = getattr(place, "rs_models", None)
        if record is None and isinstance(place, Mapping):
            record = place.get("rs_models")
        if record is not None:
            return Preprocessing.of(record)
    return None
