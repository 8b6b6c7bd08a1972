"""Images a second: our loop against the bare encoder and against lightly, and the views alone.

python training/benchmarks/throughput.py --json FILE --data path/to/aid96 --view-data FOLDER

Everything alternates in one process and every figure is a median over rounds. The loop is the
trainer's own, with its feed, views, optimizer, rate and log; the bare side is forward and
backward of the same encoder and projector at the same precision, memory format and batch, by
PyTorch's own convolutions (`small_maps` is the loop's); lightly does the same work as its example
does. Peak memory is taken in fresh processes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from speed_report import machine, medians, ratio, settings_of, synchronize
from views_alone import VIEWS, encoded, measure_views

import rs_models.trainer.loop as loop
from rs_models import backbones
from rs_models.data import build_cache, load
from rs_models.evaluation.processes import processes
from rs_models.trainer.config import DataSettings, RunConfig
from rs_models.trainer.dry_run import (
    Measured,
    PeakMemory,
    current_memory,
    expected_memory,
    free_memory,
)
from rs_models.trainer.method import DataInfo, build_method
from rs_models.trainer.stage import build_stage
from rs_models.trainer.stopping import StopRequest

WARM_STEPS = 2
# Of a batch that is sized to the memory: images of the measured steps, the most of a batch (beyond
# which a card gets no faster), and the part of the free memory that one bare step may take.
PROBES = (8, 32)
LARGEST_BATCH = 1024
SHARE = 0.7


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the JSON file; the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    if options.peak_of:
        print(json.dumps({"peak_bytes": peak_memory(options)}))
        return 0
    if options.batch_size == "auto":
        options.batch_size = fitting_batch(options)
        argv += ["--batch-size", str(options.batch_size)]  # for the processes of the memory
    have_lightly = importlib.util.find_spec("lightly") is not None
    if not have_lightly:
        print("lightly is not installed (pip install 'lightly==1.6.*'): its sides are left out")
    result: dict[str, Any] = {}
    if "views" not in options.skip:
        result |= measure_views(options, have_lightly)
    if "loop" not in options.skip:
        result |= measure_loop(options, have_lightly)
    if "memory" not in options.skip:
        result |= measure_memory(options, argv)
    result |= {"settings": settings_of(options), "machine": machine()}
    text = json.dumps(result, indent=1)
    print(text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--data", default="synthetic:num=2000,size=96", help="images of the loop")
    parser.add_argument("--view-data", default="synthetic:num=128,size=400", help="of the views")
    parser.add_argument("--backbone", default="resnet18", help="one that torchvision has too")
    parser.add_argument("--image-size", type=int, default=96, help="side of the loop's views")
    parser.add_argument(
        "--batch-size", type=batch_size, default=128, help="auto sizes it to the device's memory"
    )
    parser.add_argument("--precision", default="bf16", choices=["bf16", "no"])
    parser.add_argument("--compile", action="store_true", help="compile our encoder, both sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps of a round of the loop")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="lightly's loader")
    parser.add_argument("--view-images", type=int, default=128)
    parser.add_argument("--view-source-size", type=int, default=400)
    parser.add_argument("--view-size", type=int, default=224)
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=["views", "loop", "memory"], help="parts"
    )
    parser.add_argument("--peak-of", choices=["loop", "bare"], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def batch_size(text: str) -> int | str:
    """A number of images, or `auto`."""
    return text if text == "auto" else int(text)


# The loop


def fitting_batch(options: argparse.Namespace) -> int:
    """The largest power of two of images whose bare step leaves the device some memory.

    Two small steps are measured and the rest is computed, as a dry run of the trainer does; memory
    that the loop and its neighbour need beside the step is what `SHARE` leaves.
    """
    device = processes().device
    free = free_memory(device) + current_memory(device)
    measured: list[Measured] = []
    for images in PROBES:
        sized = argparse.Namespace(**{**vars(options), "batch_size": images})
        with PeakMemory(device) as memory:
            bare_steps(run_config(sized, "", 1), device)(1)
            synchronize()
        measured.append(Measured(images, memory.peak, 0.0))
    largest = min(LARGEST_BATCH, len(load(options.data, "train")))
    fits = PROBES[0]
    while 2 * fits <= largest and expected_memory(measured, 2 * fits) < SHARE * free:
        fits *= 2
    return fits


def run_config(options: argparse.Namespace, folder: str, steps: int) -> RunConfig:
    """Settings of the loop: TOV with SimCLR's views, and nothing saved or evaluated."""
    return RunConfig(
        output_dir=folder,
        method={"name": "tov", "recipe": "simclr", "view_settings": VIEWS},
        backbone=options.backbone,
        image_size=options.image_size,
        data=DataSettings(name=options.data),
        batch_size=options.batch_size,
        max_steps=steps,
        precision=options.precision,
        compile=options.compile,
        checkpoint_every=1e9,
        stop_on_collapse=False,
    )


def measure_loop(options: argparse.Namespace, have_lightly: bool) -> dict[str, Any]:
    """Rounds of every side between the rounds of the trainer's loop."""
    loop.set_threads()
    total = WARM_STEPS + options.rounds * options.steps
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(options, folder, total)
        accelerator = Accelerator(mixed_precision=config.precision)
        stage = build_stage(config, accelerator, Path(folder), None)
        device = accelerator.device
        others: dict[str, Callable[[int], None]] = {"bare": bare_steps(config, device)}
        if have_lightly:
            from lightly_side import Example

            example = Example(
                encoded(load(options.data, "train")),
                options.backbone,
                options.image_size,
                options.batch_size,
                options.workers,
                device,
            )
            others["lightly_fp32"] = example.run
            if config.precision == "bf16":
                others["lightly_bf16"] = lambda n: example.run(n, precision="bf16")
            others["lightly_same_format"] = lambda n: example.run(
                n, precision=config.precision, channels_last=True
            )
        feed = Rounds(stage.feed, others, rounds=options.rounds, steps=options.steps)
        stage.feed = feed
        try:
            loop.train(stage, accelerator, StopRequest())
        finally:
            if have_lightly:
                example.resume()  # a frozen process would not hear that it should end
    images = options.steps * options.batch_size
    speed = {name: [images / s for s in seconds] for name, seconds in feed.seconds.items()}
    return {
        "loop_over_bare": ratio(speed, "loop", "bare"),
        "loop_over_lightly_bf16": ratio(speed, "loop", "lightly_bf16"),
        "loop_over_lightly_fp32": ratio(speed, "loop", "lightly_fp32"),
        "loop_over_lightly_same_format": ratio(speed, "loop", "lightly_same_format"),
        "loop_images_per_second": medians(speed),
    }


class Rounds:
    """The trainer's feed, which between two rounds of steps times the other sides.

    Args:
        feed: Where the batches come from.
        others: Side -> function that runs so many steps of it.
        rounds: Rounds of each side.
        steps: Steps of a round.
    """

    def __init__(
        self, feed: Any, others: dict[str, Callable[[int], None]], *, rounds: int, steps: int
    ) -> None:
        """See the class."""
        self.feed, self.others, self.rounds, self.count = feed, others, rounds, steps
        self.seconds: dict[str, list[float]] = {name: [] for name in ("loop", *others)}

    def steps(self, start: int, stop: int) -> Iterator[Any]:
        """The feed's steps; the loop asks for the next one when it is through with the last."""
        batches = self.feed.steps(start, stop)
        yield from itertools.islice(batches, WARM_STEPS)
        for run in self.others.values():
            run(WARM_STEPS)
        for _ in range(self.rounds):
            for name, run in self.others.items():
                with self._timed(name):
                    run(self.count)
            with self._timed("loop"):
                yield from itertools.islice(batches, self.count)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the feed's own."""
        return getattr(self.feed, name)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        synchronize()
        started = time.perf_counter()
        yield
        synchronize()
        self.seconds[name].append(time.perf_counter() - started)


def bare_steps(config: RunConfig, device: torch.device) -> Callable[[int], None]:
    """Forward and backward of encoder and projector on a batch that is already there."""
    method: Any = build_method(config, DataInfo((0, 255), [0.5] * 3, [0.5] * 3), None)
    method.to(device).train()
    method.backbone.to(memory_format=torch.channels_last)
    if config.compile:
        method.backbone.compile()
    size = config.image_size
    views = torch.randn(2 * config.batch_size, 3, size, size, device=device)
    views = views.contiguous(memory_format=torch.channels_last)

    def run(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                z = method.projector(backbones.pooled(method.backbone, views))
            z.float().square().mean().backward()
            method.zero_grad()

    return run


# Memory


def measure_memory(options: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """Peak memory of the loop and of the bare step, each in a process of its own."""
    peaks = {}
    for side in ("loop", "bare"):
        command = [sys.executable, __file__, *argv, "--peak-of", side]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[side] = json.loads(done.stdout.strip().splitlines()[-1])["peak_bytes"]
    cache = build_cache(load(options.data, "train"), progress=False).images
    cache_bytes = cache.numel() * cache.element_size()
    return {
        "loop_peak_over_bare_peak": peaks["loop"] / peaks["bare"],
        "loop_peak_less_cache_over_bare_peak": (peaks["loop"] - cache_bytes) / peaks["bare"],
        "peak_bytes": {**peaks, "cache": cache_bytes},
    }


def peak_memory(options: argparse.Namespace) -> int:
    """Bytes at the peak of a few steps of one side: of the device, or of the process."""
    loop.set_threads()
    steps = WARM_STEPS + 1
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(options, folder, steps)
        accelerator = Accelerator(mixed_precision=config.precision)
        if options.peak_of == "bare":
            bare_steps(config, accelerator.device)(steps)
        else:
            stage = build_stage(config, accelerator, Path(folder), None)
            for micro_batches in stage.feed.steps(0, steps):
                loop.optimizer_step(stage, accelerator, micro_batches)
                stage.step += 1
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024  # a child's ru_maxrss starts at its parent's


if __name__ == "__main__":
    sys.exit(main())
