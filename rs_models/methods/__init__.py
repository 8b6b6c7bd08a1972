"""The methods, one paper one file. `METHODS` is the one list of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .base import SslConfig, SslModel

# name -> (module, config class, model class); a new method adds a file and a row.
METHODS: dict[str, tuple[str, str, str]] = {
    "rsisc": ("rsisc", "RsiscConfig", "RsiscForPreTraining"),
    "tov": ("tov", "TovConfig", "TovForPreTraining"),
    "false": ("false", "FalseConfig", "FalseForPreTraining"),
    "sticl": ("sticl", "SticlConfig", "SticlForPreTraining"),
    "glcnet": ("glcnet", "GlcnetConfig", "GlcnetForPreTraining"),
    "last": ("last", "LastConfig", "LastForPreTraining"),
}


def method_classes(name: str) -> tuple[type[SslConfig], type[SslModel]]:
    """Config and model class of a method by its short name (`"tov"`).

    Raises:
        UserError: If there is no such method; the sentence lists those there are.
    """
    if name not in METHODS:
        raise UserError(
            f"The setting method.name={name!r} is not a method; known: {', '.join(METHODS)}."
        )
    module, config, model = METHODS[name]
    loaded = import_module(f".{module}", __name__)
    return getattr(loaded, config), getattr(loaded, model)
