"""A training step of an encoder with and without `rs_models.trainer.small_maps`, on CPU.

python training/benchmarks/small_maps.py --json FILE

Forward and backward of the same weights on the same noise, by turns in one process. What is told is
the median over rounds of how much faster ours is.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from speed_report import machine, medians, ratio
from transformers import PreTrainedModel

from rs_models import backbones
from rs_models.errors import UserError
from rs_models.files import write_json
from rs_models.settings import run_script
from rs_models.trainer.small_maps import use_small_maps

WARM_ROUNDS = 2


def main(argv: Sequence[str]) -> int:
    """Measure and write the JSON file; the exit code."""
    options = parser().parse_args(argv)
    told: dict[str, Any] = {}
    for precision in options.precisions:
        for size in options.sizes:
            speed = measured(options, size, precision)
            gain = ratio(speed, "ours", "bare")
            name = f"{precision}, {size} pixels"
            told[name] = {"ours_over_bare": gain, "images_per_second": medians(speed)}
            print(f"{name}: {gain:.2f}")
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    write_json(Path(options.json), {**told, "settings": settings, "machine": machine()})
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--json", required=True, help="file to write")
    options.add_argument("--backbone", default="resnet18")
    options.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96], help="in pixels")
    options.add_argument("--precisions", nargs="+", choices=("bf16", "no"), default=["bf16", "no"])
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--rounds", type=int, default=10)
    return options


def measured(options: argparse.Namespace, size: int, precision: str) -> dict[str, list[float]]:
    """Images a second of each side, round by round."""
    torch.manual_seed(0)
    bare = backbones.build(options.backbone, image_size=size).train()
    bare.to(memory_format=torch.channels_last)
    ours = copy.deepcopy(bare)
    if use_small_maps(ours) == 0:
        raise UserError(f"{options.backbone} has no convolution that small_maps computes.")
    x = torch.randn(options.batch_size, 3, size, size).to(memory_format=torch.channels_last)
    speed: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(WARM_ROUNDS + options.rounds):
        for name, network in (("bare", bare), ("ours", ours)):
            speed[name].append(len(x) / seconds_of_step(network, x, precision))
    return {name: rates[WARM_ROUNDS:] for name, rates in speed.items()}


def seconds_of_step(network: PreTrainedModel, x: torch.Tensor, precision: str) -> float:
    """Time of a forward and a backward."""
    network.zero_grad()
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        features = backbones.pooled(network, x)
    features.float().square().mean().backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(run_script(main, sys.argv[1:]))
