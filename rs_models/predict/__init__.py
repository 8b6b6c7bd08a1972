"""Whole scenes: a model of any task over GeoTIFFs of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names

if TYPE_CHECKING:
    from .head import fit_head
    from .model import Predictor, from_model, load_predictor
    from .run import Prediction, predict

__all__ = ["Prediction", "Predictor", "fit_head", "from_model", "load_predictor", "predict"]

__getattr__ = names(
    __name__,
    {
        "Predictor": "model",
        "fit_head": "head",
        "from_model": "model",
        "load_predictor": "model",
        "Prediction": "run",
        "predict": "run",
    },
)
