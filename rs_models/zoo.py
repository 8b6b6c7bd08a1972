"""Where our own models are found."""

from __future__ import annotations

import os
from pathlib import Path

from .papers import PAPERS


def namespace() -> str:
    """The organisation that our models are published under: `RS_MODELS_NAMESPACE`, or "rs"."""
    return os.environ.get("RS_MODELS_NAMESPACE") or "rs"


def method_of(name: str) -> str | None:
    """The method that trained one of our models, by its name `<method>-<backbone>[-<data>]`.

    Args:
        name: With or without organisation.

    Returns:
        A key of `PAPERS`; None for any other name.
    """
    method, dash, _ = name.rpartition("/")[2].partition("-")
    return method if dash and method in PAPERS else None


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
    if "/" not in text and method_of(text):
        text = f"{namespace()}/{text}"
    hub_dir = os.environ.get("RS_MODELS_HUB_DIR")
    if hub_dir and text.count("/") == 1:
        local = Path(hub_dir).expanduser() / text
        if local.is_dir():
            return str(local)
    return text
