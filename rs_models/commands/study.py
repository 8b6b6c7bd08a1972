"""`rs-models study`: the same as training/study.py."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from ..settings import parse
from ..study.config import StudyConfig

USAGE = """usage: rs-models study --config FILE [--name value | name=value ...]

Pretrain every cell of a grid with every seed, measure what came of it, compare the cells that a
claim names by paired differences, and write results, pictures and a report. Stopped or failed, the
same command goes on; nothing that is there is done again.

examples:
  rs-models study --config study_small
  rs-models study --config study_small --only "[simclr]" --workers 2
  rs-models study --config study_small --collect-only

Exit codes: 0 the study is whole, 1 runs failed or are left, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Settings of the command as options."""
    from ..settings import settings_parser

    return settings_parser("rs-models study", StudyConfig)


def main(argv: Sequence[str]) -> int:
    """Runs a study; the exit code."""
    config = parse(StudyConfig, argv, usage=USAGE)
    from ..study.runner import study

    # Overrides such as `workers` or `only` say how it was run, and not what.
    files = [word for i, word in enumerate(argv) if "--config" in (word, argv[i - 1] if i else "")]
    command = f"python training/study.py {shlex.join(files)}".strip()
    return 1 if study(config, command=command) else 0
