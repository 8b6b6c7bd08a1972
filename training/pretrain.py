"""Pretrain a method on unlabelled images, export the backbone, show what it learned.

accelerate launch training/pretrain.py --config training/configs/quickstart.yaml [key=value ...]
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Run a pretraining from the command line; the exit code."""
    from rs_models.settings import parse
    from rs_models.trainer import RunConfig, TrainingStopped, pretrain
    from rs_models.trainer.report import show_results

    config = parse(RunConfig, argv)
    command = f"accelerate launch training/pretrain.py {shlex.join(argv)}".strip()
    try:
        export = pretrain(config)
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    if export is not None:
        show_results(config, Path(export), command=command)
    return 0


if __name__ == "__main__":
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))
