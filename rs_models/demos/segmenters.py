"""Segmentation models of a Space: fine-tuned ones as they are; a backbone is asked by points."""

from __future__ import annotations

from functools import lru_cache

from ..errors import UserError
from ..predict import Predictor, load_predictor
from .models import choices


@lru_cache(maxsize=3)
def segmenter(name: str) -> Predictor | None:
    """A fine-tuned segmentation model by name; None for a backbone.

    Args:
        name: One of the page's models.

    Raises:
        UserError: Nothing by that name, or a classifier or detector.
    """
    if name not in choices():
        raise UserError("Choose a model of the list.")
    predictor = load_predictor(name).to("cpu")
    if predictor.task in ("classification", "detection"):
        raise UserError(f"{name} is for {predictor.task}: choose a segmentation model or backbone.")
    return predictor if predictor.task == "segmentation" else None
