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
        image_std: Per band, after division by `value_range[1]`.
        train_size: Side in pixels of the training images.
    """

    bands: tuple[str, ...]
    value_range: tuple[float, float]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    train_size: int

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Reads a provenance dict, or one with the same keys."""
        low, high = record["value_range"]
        return cls(
            bands=resolve_bands(record["bands"]),
            value_range=(float(low), float(high)),
            image_mean=tuple(record["image_mean"]),
            image_std=tuple(record["image_std"]),
            train_size=int(record["train_size"]),
        )

    def record(self) -> dict[str, Any]:
        """Gives plain JSON values under the names of provenance."""
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

    def network_input(self, images: Tensor, size: int | None = None) -> Tensor:
        """Makes of stored pixels what a network takes.

        Args:
            images: (B, C, H, W) as stored, bands in this order.
            size: Side in pixels that they are brought to; None leaves theirs.

        Returns:
            (B, C, size, size) float32, normalised.
        """
        scaled = self.scaled(images)
        return self.normalised(scaled if size is None else self.resized(scaled, size))

    def scaled(self, images: Tensor) -> Tensor:
        """Brings stored values, of any shape, to float32 with 1 as full scale."""
        return images.float() / self.value_range[1]

    def resized(self, images: Tensor, size: int) -> Tensor:
        """Brings scaled images (B, C, H, W) to (B, C, size, size).

        Each image stays within what it could hold before, for the filter overshoots at edges;
        reflectance may lie above full scale.
        """
        if images.shape[-2:] == (size, size):
            return images
        top = images.amax((1, 2, 3), keepdim=True).clamp(min=1)
        images = F.interpolate(
            images, (size, size), mode="bicubic", antialias=True, align_corners=False
        )
        return images.clamp_(min=0).minimum(top)

    def normalised(self, images: Tensor) -> Tensor:
        """Normalises scaled images (B, C, H, W)."""
        mean, std = self._statistics(images.device)
        return (images - mean) / std

    def normalise_stored_(self, images: Tensor) -> Tensor:
        """Normalises stored values (B, C, H, W) float32 in their own memory.

        Both divisions are one multiplication: for scenes, where this is the work beside the
        network's. Equal to `network_input` within rounding.
        """
        mean, std = self._statistics(images.device)
        return images.mul_(1 / (self.value_range[1] * std)).sub_(mean / std)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.image_mean, device=device)[:, None, None]
        return mean, torch.tensor(self.image_std, device=device)[:, None, None]


def recorded(config: Any) -> Preprocessing | None:
    """Reads what a model's config, or its backbone's, says in `rs_models`; None for nothing."""
    for place in (config, getattr(config, "backbone_config", None)):
        record = getattr(place, "rs_models", None)
        if record is None and isinstance(place, Mapping):
            record = place.get("rs_models")
        if record is not None:
            return Preprocessing.of(record)
    return None
