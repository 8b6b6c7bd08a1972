"""A model of any task as one thing that turns tiles into cells, or into boxes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
)

from .. import backbones
from ..backbones.loading import load_weights, read_config
from ..errors import UserError, first_line
from ..evaluation.features import weights_hash
from ..evaluation.loading import load_encoder, processor_record
from ..preprocessing import Preprocessing, recorded
from ..tasks.classification import classify
from ..tasks.segmentation_logits import logits_of
from ..zoo import resolve, revision_of

_TASKS: dict[str, Any] = {
    "ForSemanticSegmentation": ("segmentation", AutoModelForSemanticSegmentation),
    "ForImageClassification": ("classification", AutoModelForImageClassification),
    "ForObjectDetection": ("detection", AutoModelForObjectDetection),
}
_CELLS = 4  # a tile's one class or one vector counts for so many cells a side
_DEFAULT_TILE = {"segmentation": 512, "detection": 512, "embedding": 512}


@dataclass
class Predictor:
    """A network with its preprocessing.

    Attributes:
        task: segmentation, classification, detection or embedding.
        model: The network.
        preprocessing: Preprocessing of its images.
        names: Names of the classes; empty for embeddings.
        name: For messages and records.
        revision: Hash of the weights.
        stride: Pixels to one cell of the result; None depends on the tile (one value a tile).
        forward: Normalised images (B, C, H, W) -> (B, K, h, w), or what a detector gives.
        precision: "no" (float32) or "bf16".
        width: Features of an embedding; None where the model does not say.
    """

    task: str
    model: Any
    preprocessing: Preprocessing
    names: list[str]
    name: str
    revision: str
    stride: int | None
    forward: Callable[[Tensor], Any]
    precision: str = "no"
    width: int | None = None

    def to(self, device: str | torch.device | None) -> Predictor:
        """Moved, and laid out for convolutions; None is a GPU where there is one."""
        try:
            place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self.model.eval().to(place, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            if device is None:
                raise
            raise UserError(
                f"The device {str(device)!r} cannot be used ({first_line(error)}): name cpu, or "
                "cuda where there is a GPU."
            ) from error
        return self

    @property
    def channels(self) -> int:
        """Values of a cell: classes, or features of an embedding.

        Raises:
            UserError: A model that does not say.
        """
        count = len(self.names) or self.width
        if count is None:
            raise UserError(
                f"{self.name} does not say how many features it gives: set the predictor's width."
            )
        return count

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def default_tile(self) -> int:
        """Side of a tile: that of training for whole-image answers, 512 pixels else."""
        size = self.preprocessing.train_size
        if self.stride is None:
            return max(_CELLS, size // _CELLS * _CELLS)
        return -(-max(size, _DEFAULT_TILE[self.task]) // self.stride) * self.stride

    def cell(self, tile: int) -> int:
        """Pixels to one cell of the result for tiles of a size."""
        if self.stride is not None:
            return self.stride
        return max(1, tile // _CELLS)

    def prepared(self, pixels: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalised tiles; what holds nothing becomes the mean.

        Args:
            pixels: (B, C, H, W) as stored.
            valid: (B, H, W) bool; None where all of it is.
        """
        x = pixels.to(self.device).to(torch.float32, memory_format=torch.channels_last, copy=True)
        self.preprocessing.normalise_stored_(x)
        if valid is not None:
            x.mul_(valid.to(self.device)[:, None])
        return x

    def __call__(self, x: Tensor) -> Any:
        """Probabilities or vectors (B, K, h, w) float32, or a detector's output."""
        autocast = (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.precision == "bf16"
            else contextlib.nullcontext()
        )
        with torch.inference_mode(), autocast:
            found = self.forward(x)
        if self.task == "detection":
            return found
        if found.ndim == 2:  # one value a tile, for all of its cells
            found = found[..., None, None].expand(-1, -1, _CELLS, _CELLS)
        found = found.float()
        return found if self.task == "embedding" else found.softmax(1)


def load_predictor(
    name_or_path: str,
    *,
    task: str | None = None,
    revision: str | None = None,
    precision: str = "no",
) -> Predictor:
    """A model by name: what it is stands in its config.

    Args:
        name_or_path: A folder that fine-tuning wrote, a Hub id of a segmentation, classification or
            detection model of transformers, or any encoder that `load_encoder` knows, for
            embeddings.
        task: "embedding" takes the backbone of a classifier; None is what the config says.
        revision: Branch, tag or commit on the Hub.
        precision: "no" or "bf16".

    Raises:
        UserError: Nothing by that name, or preprocessing that is not known.
    """
    source = resolve(name_or_path.removeprefix("hf-hub:"))
    revision = revision_of(source, revision)
    auto = None
    if "/" in source or Path(source).is_dir():  # else a name of timm, which has encoders alone
        classes = read_config(source, revision).get("architectures") or [""]
        auto = next((auto for end, auto in _TASKS.items() if str(classes[0]).endswith(end)), None)
    if auto is None or task == "embedding":
        return _embedder(name_or_path, revision, precision)
    found, auto_class = auto
    model, _ = load_weights(auto_class, source, revision, lacking="fine-tune it first")
    preprocessing = recorded(model.config)
    if preprocessing is None:
        preprocessing = Preprocessing.of(processor_record(source, revision, model.config))
    return from_model(model, found, preprocessing, name=name_or_path, precision=precision)


def from_model(
    model: Any, task: str, preprocessing: Preprocessing, *, name: str = "", precision: str = "no"
) -> Predictor:
    """A predictor around a network in memory.

    Args:
        model: A model of transformers or of this package.
        task: "segmentation", "classification" or "detection".
        preprocessing: Preprocessing of its images.
        name: For records.
        precision: "no" or "bf16".
    """
    forwards: dict[str, Callable[[Tensor], Any]] = {
        "segmentation": lambda x: logits_of(model, x),
        "classification": lambda x: classify(model, x),
        "detection": lambda x: model(pixel_values=x),
    }
    labels = model.config.id2label
    return Predictor(
        task=task,
        model=model,
        preprocessing=preprocessing,
        names=[labels[i] for i in range(len(labels))],
        name=name or type(model).__name__,
        revision=f"sha256:{weights_hash(model)}",
        stride=None if task == "classification" else 1,
        forward=forwards[task],
        precision=precision,
    )


def _embedder(name: str, revision: str | None, precision: str) -> Predictor:
    encoder: Any = load_encoder(name, revision=revision)
    if not hasattr(encoder, "model"):
        raise UserError(f"{name!r} learns from training images: name a model with weights.")
    dense = backbones.family_or_none(encoder.model) is not None
    model = encoder.model
    return Predictor(
        task="embedding",
        model=model,
        preprocessing=encoder.preprocessing,
        names=[],
        name=name,
        revision=encoder.revision,
        stride=backbones.output_stride(model.config) if dense else None,
        forward=(lambda x: backbones.dense(model, x)) if dense else encoder.forward,
        precision=precision,
        width=backbones.feature_dim(model.config) if dense else _width(model),
    )


def _width(model: Any) -> int | None:
    """Features of a model that is not one of our native backbones."""
    config = getattr(model, "config", None)
    stages = getattr(config, "hidden_sizes", None) or [None]
    width = getattr(model, "num_features", None) or getattr(config, "hidden_size", stages[-1])
    return int(width) if width is not None else None
