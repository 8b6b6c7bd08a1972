"""`rs-models evaluate`: frozen encoders with few and many labels, by the named protocols."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import time
from collections.abc import Sequence

from ..evaluation.probe import ProbeConfig, measure

USAGE = """usage: rs-models evaluate [--config FILE] [--name value | name=value ...]

Measure frozen encoders on labelled images: k-NN, logistic regression, few-shot draws. One JSON file
a result goes to output_dir; a table (or with --json the results) to the screen.

examples:
  rs-models evaluate --model outputs/quickstart/export --data.name synthetic
  rs-models evaluate model=[rs/rsisc-resnet18,baseline:random-resnet50] data.name=timm/eurosat-rgb
  rs-models evaluate --model outputs/run/export --data.name path/to/images --protocols "[linear-n5]"

Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Settings of the command as options."""
    from ..settings import settings_parser

    return settings_parser("rs-models evaluate", ProbeConfig)


def main(argv: Sequence[str]) -> int:
    """Measures from the command line; the exit code."""
    from ..evaluation.results import table
    from ..publish.pages import render
    from ..settings import duration, parse

    config = parse(ProbeConfig, argv, usage=USAGE)
    started = time.monotonic()
    measured = measure(config, command=f"python training/probe.py {shlex.join(argv)}".strip())
    if config.json:
        print(json.dumps([dataclasses.asdict(result) for result in measured], indent=2))
    else:
        print(table(measured))
        print(f"\n{duration(time.monotonic() - started)}; a file a result in {config.output_dir}")
        models = [config.model] if isinstance(config.model, str) else config.model
        own = [model for model in models if not model.startswith("baseline:")]
        if own:
            print(f"Next: rs-models finetune --model {own[0]} --data.name {config.data.name}")
    if config.readme is not None:
        render(config.readme, config.output_dir)
    return 0
