"""Settings of the scripts: dataclasses from YAML files and command lines, names and values checked.

A wrong key, type or range ends in one sentence before anything is done, where argparse and plain
YAML would accept it and train with the default. What a setting may be stands where it is declared
(`ranges`).
"""

from .command_line import Options, arguments, describe, parse, settings_parser
from .output import duration, no_progress_bars, progress_bar, quiet
from .ranges import (
    Chance,
    Count,
    Finite,
    Length,
    NotNegative,
    Number,
    OutOfRange,
    PartShare,
    Port,
    Positive,
    Range,
    Seed,
    Share,
    Side,
    Workers,
)
from .reading import read_yaml, recipe_path
from .script import one_line, run_script
from .values import build, check_ranges, differences, merge

__all__ = [
    "Chance",
    "Count",
    "Finite",
    "Length",
    "NotNegative",
    "Number",
    "Options",
    "OutOfRange",
    "PartShare",
    "Port",
    "Positive",
    "Range",
    "Seed",
    "Share",
    "Side",
    "Workers",
    "arguments",
    "build",
    "check_ranges",
    "describe",
    "differences",
    "duration",
    "merge",
    "no_progress_bars",
    "one_line",
    "parse",
    "progress_bar",
    "quiet",
    "read_yaml",
    "recipe_path",
    "run_script",
    "settings_parser",
]
