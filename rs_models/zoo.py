"""Where our own models are found."""

from __future__ import annotations

import os
from pathlib import Path

# Repository names start with the method that trained them: `<method>-<backbone>[-<data>]`.
_METHODS = ("rsisc", "tov", "false", "sticl", "glcnet", "last")


def namespace() -> str:
    """The organisation that our models are published under: `RS_MODELS_NAMESPACE`, or "rs"."""
    return os.environ.get("RS_MODELS_NAMESPACE") or "rs"


def resolve(name: str | os.PathLike[str]) -> str:
    """Where to load a model from: a folder that exists, or a Hub id.

    Args:
        name: A folder, "<org>/<name>", or one of our own names without organisation
            ("tov-resnet50"), which gets `namespace()`.

    Returns:
        The first of: `name` itself where it is a folder, `RS_MODELS_HUB_DIR/<org>/<name>` where
        that is one, the Hub id.
    """
    text = os.fspath(name)
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser())
    if "/" not in text and text.partition("-")[0] in _METHODS and "-" in text:
        text = f"{namespace()}/{text}"
    hub_dir = os.environ.get("RS_MODELS_HUB_DIR")
    if hub_dir and text.count("/") == 1:
        local = Path(hub_dir).expanduser() / text
        if local.is_dir():
            return str(local)
    return text
