"""Land cover from a frozen backbone: a linear classifier of its feature maps, made in seconds.

What a Space segments with where no fine-tuned network is at hand. It learns from the synthetic
scenes and their masks, so it shows what the features hold and no more: fine-tune on labels of your
own imagery for a map.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import backbones
from ..bands import SENSORS
from ..data.synthetic import CLASSES, LAND_COVER, draw_scene
from ..errors import UserError
from ..evaluation.linear import fit_probe
from ..predict import Predictor, load_predictor
from ..predict.linear_head import LinearSegmenter, maps

SCENES = 192
"""Synthetic scenes that the classifier learns from."""
_SIDE = 128
_CELL = 4  # pixels of a place
_PLACES = 24_000  # places that the classifier learns from
_C = 0.1


@lru_cache(maxsize=3)
def segmenter(name: str) -> Predictor:
    """A segmentation model by name: a fine-tuned one as it is, a backbone under a linear head.

    Raises:
        UserError: Nothing by that name, a classifier or detector, or another kind of backbone.
    """
    if not name:
        raise UserError("Choose a model first.")
    predictor = load_predictor(name).to("cpu")
    if predictor.task == "segmentation":
        return predictor
    if predictor.task != "embedding":
        raise UserError(f"{name} is for {predictor.task}: choose a segmentation model or backbone.")
    return fit(predictor)


def fit(embedder: Predictor, *, scenes: int = SCENES, seed: int = 0) -> Predictor:
    """A linear land cover classifier on a frozen backbone's maps.

    Args:
        embedder: A backbone of red, green and blue.
        scenes: Synthetic scenes to learn from.
        seed: Seed of the scenes and of the places drawn from them.

    Returns:
        A segmentation model of `LAND_COVER`.

    Raises:
        UserError: A model whose feature maps are not known, or of other bands.
    """
    if backbones.family_or_none(embedder.model) is None:
        raise UserError(
            f"{embedder.name} has no feature map that can be read: choose a ResNet, Swin or ViT of "
            "transformers, or a segmentation model."
        )
    if embedder.preprocessing.bands != SENSORS["rgb"]:
        raise UserError(f"{embedder.name} takes other bands than red, green and blue.")
    rng = np.random.default_rng(seed)
    kept_x: list[Tensor] = []
    kept_y: list[Tensor] = []
    for start in range(0, scenes, 16):
        drawn = [
            draw_scene(number % len(CLASSES), (seed, number), _SIDE)
            for number in range(start, min(start + 16, scenes))
        ]
        images = torch.from_numpy(np.stack([image[..., :3] for image, _, _ in drawn]))
        covers = torch.from_numpy(np.stack([cover for _, cover, _ in drawn]))
        side = _SIDE // _CELL
        with torch.inference_mode():
            x = embedder.prepared(images.permute(0, 3, 1, 2))
            parts = [
                F.interpolate(part, (side, side), mode="bilinear", align_corners=False)
                for part in maps(embedder.model, x)
            ]
        features = torch.cat(parts, 1).permute(0, 2, 3, 1).flatten(0, 2)  # (places, D)
        labels = covers[:, _CELL // 2 :: _CELL, _CELL // 2 :: _CELL].flatten()
        share = min(len(labels), _PLACES * len(drawn) // scenes)
        rows = torch.from_numpy(rng.choice(len(labels), share, replace=False))
        kept_x.append(features[rows].clone())
        kept_y.append(labels[rows].long())
    probe = fit_probe(torch.cat(kept_x), torch.cat(kept_y), c=_C, num_classes=len(LAND_COVER))
    model = LinearSegmenter(embedder.model, probe.weight, probe.bias).eval()
    return dataclasses.replace(
        embedder,
        task="segmentation",
        model=model,
        names=list(LAND_COVER),
        name=f"{embedder.name}, linear head on synthetic land cover",
        stride=1,
        forward=model,
    )
