"""`rs-models pretrain`: the same as training/pretrain.py."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..settings import parse
from ..trainer.config import RunConfig

USAGE = """usage: rs-models pretrain [--config FILE|RECIPE] [--name value | name=value ...]

Pretrain a method on unlabelled images, export the backbone, show what it learned. RECIPE is the
name of one that the package brings: quickstart, tov_resnet50, last_swin_tiny, ... On several GPUs:
accelerate launch -m rs_models.cli pretrain ...

examples:
  rs-models pretrain --config quickstart
  rs-models pretrain --config glcnet_mini_aid --data.name path/to/tiles --bands rgbn
  rs-models pretrain --config tov_resnet50 --data.name path/to/tiles --dry-run

Exit codes: 0 done or stopped on request, 1 a dead run, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Settings of the command as options."""
    from ..settings import settings_parser

    return settings_parser("rs-models pretrain", RunConfig)


def main(argv: Sequence[str]) -> int:
    """Runs a pretraining from the command line; the exit code.

    Raises:
        UserError: Settings or data that cannot be used.
    """
    config = parse(RunConfig, argv, usage=USAGE)
    from ..trainer import TrainingStopped, pretrain
    from ..trainer.results import show_results

    command = f"accelerate launch training/pretrain.py {shlex.join(argv)}".strip()
    started = time.monotonic()
    try:
        export = pretrain(config)
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    if export is not None:
        took = time.monotonic() - started
        show_results(config, Path(export), command=command, seconds=took)
    return 0
