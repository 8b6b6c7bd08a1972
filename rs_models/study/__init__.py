"""A grid of data x signal x evaluation: what each idea adds, measured by paired runs."""

from .config import StudyConfig as StudyConfig
from .runner import study as study

__all__ = ["StudyConfig", "study"]
