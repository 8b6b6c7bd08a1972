"""`training/study.py` from its command line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..settings import parse
from ..study.config import StudyConfig

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
    from ..study.runner import study

    # Overrides such as `workers` or `only` say how it was run, and not what.
    files = [word for i, word in enumerate(argv) if "--config" in (word, argv[i - 1] if i else "")]
    command = f"python training/study.py {shlex.join(files)}".strip()
    return 1 if study(config, command=command) else 0
