"""Measure what each idea adds: a grid of runs, paired differences, a report.

python training/study.py --config training/configs/study_small.yaml [key=value ...]
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from rs_models.commands.study import main
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))
