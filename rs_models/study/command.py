"""`training/study.py` from its command line."""

from __future__ import annotations

from collections.abc import Sequence

from ..settings import parse
from .config import StudyConfig

USAGE = """usage: python training/study.py --config FILE [key=value ...]

Pretrain every cell of a grid with every seed, measure what came of it, compare the cells that a
claim names by paired differences, and write results, pictures and a report. Stopped or failed, the
same command goes on; nothing that is there is done again.

examples:
  python training/study.py --config training/configs/study_small.yaml
  python training/study.py --config training/configs/study_small.yaml "only=[simclr]" workers=2
  python training/study.py --config training/configs/study_small.yaml --collect-only

Exit codes: 0 the study is whole, 1 runs failed or are left, 2 bad input."""


def main(argv: Sequence[str]) -> int:
    """Run a study; the exit code."""
    config = parse(StudyConfig, argv, usage=USAGE)
    from .runner import study

    return 1 if study(config) else 0
