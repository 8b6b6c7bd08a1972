"""From a finished model to its page: cards and tables from results, and uploads to the Hub."""

from __future__ import annotations

from .card import model_card
from .pages import render
from .upload import plan, publish

__all__ = ["model_card", "plan", "publish", "render"]
