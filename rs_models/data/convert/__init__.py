"""Archives and folders as their owners distribute them -> Parquet repositories for the Hub."""

from __future__ import annotations

from .layouts import LAYOUTS, Layout
from .problems import Problem
from .run import Converted, convert

__all__ = ["LAYOUTS", "Converted", "Layout", "Problem", "convert"]
