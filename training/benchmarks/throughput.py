"""Images a second: our loop against the bare encoder and against lightly, and the views alone.

python training/benchmarks/throughput.py --json FILE --data path/to/aid96 --view-data FOLDER

Everything alternates in one process and every figure is a median over rounds. The loop is the
trainer's own, with its feed, views, optimizer, rate and log; the bare side is forward and
backward of the same encoder and projector at the same precision, memory format and batch; lightly
does the same work as its example does. Peak memory is taken in fresh processes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator

import rs_models.trainer.loop as loop
from rs_models import backbones
from rs_models.data import build_cache, load
from rs_models.evaluation.processes import processes
from rs_models.signals.views import ViewMaker, recipe_from_settings
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

# lightly's SimCLRTransform crops from 0.08 of the area; both sides do the same work.
VIEWS = {"scale": [0.08, 1.0]}
WARM_STEPS = 2
# Of a batch that is sized to the memory: images of the measured steps, the most of a batch (beyond
# which a card gets no faster), and the part of the free memory that one bare step may take.
PROBES = (8, 32)
LARGEST_BATCH = 1024
SHARE = 0.7
VIEW_BATCH = 64  # images of a call of our views


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


# The views


def measure_views(options: argparse.Namespace, have_lightly: bool) -> dict[str, Any]:
    """Two finished views of each image on one core, ours and lightly's in turn."""
    import datasets

    source = options.view_source_size
    rows = load(options.view_data, "train")
    rows = rows.select(range(min(options.view_images, len(rows))))
    jpegs = [encode(row["image"].convert("RGB").resize((source, source))) for row in rows]
    count = len(jpegs)
    recipe = recipe_from_settings("simclr", options.view_size, VIEWS)
    seconds: dict[str, list[float]] = {"ours": [], "ours_first_epoch": []}
    with one_core(), tempfile.TemporaryDirectory() as folder:
        made = datasets.Dataset.from_dict(
            {"image": [{"bytes": jpeg, "path": None} for jpeg in jpegs]},
            features=datasets.Features({"image": datasets.Image()}),
        )
        maker = ViewMaker(
            recipe,
            bands=("red", "green", "blue"),
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
            value_range=(0, 255),
            num_threads=1,
        )

        def ours(cache: Any, seed: int) -> None:
            images, batch = cache.images, None
            order = torch.randperm(count)
            for rows in order.split(VIEW_BATCH):
                batch = maker(images[rows], seed, out=batch)

        sides: dict[str, Callable[[int], None]] = {}
        if have_lightly:
            from lightly_side import JpegViews

            theirs = JpegViews(jpegs, options.view_size)
            seconds["lightly"] = []

            def lightly(seed: int) -> None:
                for i in range(count):
                    theirs[i]

            sides["lightly"] = lightly
        steady = build_cache(made, cache_dir=Path(folder) / "steady", progress=False)
        sides["ours"] = lambda seed: ours(steady, seed)

        def first_epoch(seed: int) -> None:
            place = Path(folder) / f"first-{seed}"
            ours(build_cache(made, cache_dir=place, progress=False), seed)

        sides["ours_first_epoch"] = first_epoch
        for number in range(options.rounds + 1):
            for name, run in sides.items():
                started = time.perf_counter()
                run(number)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
    speed = {name: [count / s for s in values] for name, values in seconds.items()}
    return {
        "views_over_lightly": ratio(speed, "ours", "lightly"),
        "views_over_lightly_first_epoch": ratio(speed, "ours_first_epoch", "lightly"),
        "views_images_per_second": medians(speed),
    }


@contextmanager
def one_core() -> Iterator[None]:
    """Bind this thread to one core and torch to one thread."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def encoded(rows: Any) -> list[bytes]:
    """The images of a data set as files: as they are stored, or as JPEG."""
    import datasets

    stored = rows.cast_column("image", datasets.Image(decode=False))
    return [
        row["bytes"] or encode(rows[i]["image"].convert("RGB"))
        for i, row in enumerate(stored["image"])
    ]


def encode(image: PIL.Image.Image) -> bytes:
    """An image as a JPEG file of quality 90."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


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


# Figures


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rates of several measurements as text.

    Args:
        rows: Name of a measurement -> what `measure_loop` gave, and `batch` and `peak_gib`.
    """
    lines = [
        f"{'':<28}{'batch':>7}{'images/s':>11}{'bare encoder':>14}{'ratio':>8}{'peak':>11}",
    ]
    for name, figures in rows.items():
        speed = figures["loop_images_per_second"]
        loop_rate, bare_rate = (speed[side]["median"] for side in ("loop", "bare"))
        lines.append(
            f"{name:<28}{figures['batch']:>7}{loop_rate:>11.1f}{bare_rate:>14.1f}"
            f"{figures['loop_over_bare']:>8.2f}{figures['peak_gib']:>7.1f} GiB"
        )
    return "\n".join(lines)


def ratio(speed: dict[str, list[float]], side: str, other: str) -> float | None:
    """Median over rounds of one side's speed over another's in the same round."""
    if side not in speed or other not in speed:
        return None
    return statistics.median(a / b for a, b in zip(speed[side], speed[other], strict=True))


def medians(speed: dict[str, list[float]]) -> dict[str, Any]:
    """Median of each side, and its rounds."""
    return {
        name: {"median": statistics.median(values), "rounds": [round(v, 2) for v in values]}
        for name, values in speed.items()
    }


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The command line's values, with data sets by name and not by place."""
    values = {k: v for k, v in vars(options).items() if k not in ("json", "peak_of")}
    for key in ("data", "view_data"):
        if Path(values[key]).exists():
            values[key] = Path(values[key]).resolve().name
    return values


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    packages = ("torch", "torchvision", "transformers", "accelerate", "opencv-python-headless")
    versions: dict[str, str | None] = {}
    for name in (*packages, "pillow", "lightly"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    cpu, flags = platform.processor(), ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        cpu, flags = facts.get("model name", cpu), facts.get("flags", "")
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "cpu_features": [name for name in wanted if name in flags.split()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "versions": versions,
    }


if __name__ == "__main__":
    sys.exit(main())
