"""`rs-models finetune`: settings from the command line, then the run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

USAGE = """usage: rs-models finetune [--config FILE] [--name value | name=value ...]

Fine-tune a backbone on few labels: classification, multilabel, segmentation or detection. Early
stopping looks at validation images; test images are looked at once, at the end of each seed.

examples:
  rs-models finetune model=outputs/quickstart/export data.name=synthetic labels=20/class
  rs-models finetune task=segmentation model=rs/glcnet-resnet-mini-aid data.name=DIR labels=1%
  rs-models finetune task=detection model=rs/rsisc-resnet18 data.name=DIR labels=10
  accelerate launch training/finetune.py --config training/configs/finetune_segmentation.yaml

Started again after a stop, it goes on where it was. Exit codes: 0 done, 1 network or server,
2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Settings of the command as options."""
    from ..settings import settings_parser
    from ..tasks.finetuning.config import FinetuneConfig

    return settings_parser("rs-models finetune", FinetuneConfig)


def main(argv: Sequence[str]) -> int:
    """Fine-tunes from the command line; the exit code."""
    from ..settings import arguments, build, duration, merge, parse
    from ..tasks.finetuning.config import FinetuneConfig, preset

    # Once to learn which preset, then the preset below what was said.
    asked = parse(FinetuneConfig, argv, usage=USAGE)
    self_training = asked.self_training.weight > 0
    values: dict[str, Any] = preset(asked.protocol, asked.task, self_training=self_training)
    said = arguments(FinetuneConfig, argv)
    merge(values, said)
    config = build(FinetuneConfig, values)

    from ..evaluation.results import table
    from ..tasks.finetuning.run import finetune

    started = time.monotonic()
    result = finetune(config, command=f"python training/finetune.py {shlex.join(argv)}".strip())
    if result is None:
        return 0
    if config.json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        print(table([result]))
        took = duration(time.monotonic() - started)
        print(f"\n{config.output_dir}/model holds the model of seed {config.seeds[0]}; {took}.")
        print(_next(config.task, f"{config.output_dir}/model"))
    return 0


def _next(task: str, model: str) -> str:
    """The command that one goes on with."""
    if task == "multilabel":  # which no map of classes can tell
        return f"Next: rs-models push {model} --dry-run"
    output = "boxes.geojson" if task == "detection" else "map.tif"
    return f"Next: rs-models predict SCENE.tif --model {model} --output {output}"
