"""Self-supervised remote sensing models for the Hugging Face Hub.

Importing the package registers the methods with transformers' Auto classes, so that
`AutoModelForPreTraining.from_pretrained` restores a method with its projector and its state, and
the segmentation and detection networks, for `AutoModelForSemanticSegmentation` and
`AutoModelForObjectDetection`.
Backbones need no import of this package: they are native transformers repositories.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .lazy import register_when_needed
from .methods import METHODS
from .version import __version__

# Public names and where they live. They are imported on first use: `import rs_models` itself needs
# nothing, and the methods are registered when transformers' Auto classes are imported.
_PUBLIC = {
    "DeepLabV3PlusConfig": "rs_models.tasks.segmenters",
    "DeepLabV3PlusForSemanticSegmentation": "rs_models.tasks.segmenters",
    "FasterRcnnConfig": "rs_models.tasks.faster_rcnn",
    "FasterRcnnForObjectDetection": "rs_models.tasks.faster_rcnn",
    "FinetuneConfig": "rs_models.tasks.finetuning",
    "FinetuneData": "rs_models.tasks.finetuning",
    "FcnConfig": "rs_models.tasks.segmenters",
    "FcnForSemanticSegmentation": "rs_models.tasks.segmenters",
    # The config and the model class of every method.
    **{
        name: f"rs_models.methods.{module}" for module, *names in METHODS.values() for name in names
    },
    "upernet": "rs_models.tasks.upernet",
    "UserError": "rs_models.errors",
    "export_onnx": "rs_models.export.onnx",
    "finetune": "rs_models.tasks.finetuning",
    "load_predictor": "rs_models.predict",
    "load_data": "rs_models.data",
    "load_backbone": "rs_models.backbones",
    "load_encoder": "rs_models.evaluation.loading",
    "export_backbone": "rs_models.export",
    "list_models": "rs_models.zoo",
    "pretrain": "rs_models.trainer",
}
_RENAMED = {"load_data": "load", "load_backbone": "load", "export_backbone": "export"}

# Packages that are there as attributes after `import rs_models`, imported on first use.
_ROOMS = ("backbones", "data", "evaluation", "export", "labelling", "predict", "publish", "tasks")

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rs_models' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_needed()
