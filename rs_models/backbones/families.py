"""The table of families: a new one is a file beside and a row here."""

from __future__ import annotations

from typing import Any

from ..errors import UserError
from .convnext import CONVNEXT, CONVNEXT_V2
from .dinov2 import DINOV2
from .family import Family
from .resnet import RESNET
from .swin import SWIN
from .vit import VIT

FAMILIES: tuple[Family, ...] = (RESNET, SWIN, VIT, CONVNEXT, CONVNEXT_V2, DINOV2)
_BY_TYPE = {family.model_type: family for family in FAMILIES}
_BY_NAME = {name: family for family in FAMILIES for name in family.sizes}
BACKBONES = tuple(_BY_NAME)
NATIVE_TYPES = tuple(_BY_TYPE)
TITLES = ", ".join(family.title for family in FAMILIES)


def family(model: Any) -> Family:
    """The family of a native backbone.

    Args:
        model: The backbone, its configuration, or the `model_type` in it.

    Raises:
        UserError: It is of no family that we know.
    """
    found = family_or_none(model)
    if found is None:
        raise UserError(
            f"Backbones of type '{_model_type(model)}' are not supported: use one of "
            f"{NATIVE_TYPES}."
        )
    return found


def family_or_none(model: Any) -> Family | None:
    """The family of a native backbone; None for anything else."""
    return _BY_TYPE.get(_model_type(model))


def family_of_name(name: str) -> Family:
    """The family of a backbone's name.

    Raises:
        UserError: Unknown name.
    """
    if name not in _BY_NAME:
        raise UserError(f"Unknown backbone '{name}': use one of {', '.join(BACKBONES)}.")
    return _BY_NAME[name]


def _model_type(model: Any) -> str:
    config = getattr(model, "config", model)
    return str(getattr(config, "model_type", config))
