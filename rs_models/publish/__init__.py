"""From a finished model to its page: cards and tables from results, and uploads to the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names

if TYPE_CHECKING:
    from .card import model_card
    from .pages import render
    from .upload import plan, publish

__all__ = ["model_card", "plan", "publish", "render"]

__getattr__ = names(
    __name__, {"model_card": "card", "render": "pages", "plan": "upload", "publish": "upload"}
)
