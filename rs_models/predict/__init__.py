"""Whole scenes: a model of any task over GeoTIFFs of any size."""

from __future__ import annotations

from .model import Predictor, from_model, load_predictor
from .run import Prediction, predict

__all__ = ["Prediction", "Predictor", "from_model", "load_predictor", "predict"]
