"""What a whole run would take, measured on few images and few steps; nothing is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..errors import UserError
from .batches import MicroBatch
from .stage import Stage

# Steps at the full size: the first may be slow, the median of the others counts.
WARM, TIMED = 1, 3
# The smallest measured part of a micro-batch, in images, and how much more the next one has.
FIRST, GROWTH = 4, 2
# Share of the free memory that a measured step may take: what else runs here needs some too.
SHARE = 0.8

Step = Callable[[Stage, Accelerator, list[MicroBatch]], Any]


@dataclass
class Measured:
    """One step over so many images of each micro-batch.

    Attributes:
        images: Images of a micro-batch of this process.
        memory: Bytes that the process or its device held at the most, up to then.
        seconds: Time of the step.
    """

    images: int
    memory: int
    seconds: float


def report_dry_run(stage: Stage, accelerator: Accelerator, step: Step) -> None:
    """Prints parameters, memory, steps and hours of the whole run.

    Parts of a micro-batch are measured first, each twice as large as the one before, while the next
    is expected to fit into what is free. What does not fit is computed from those that did.

    Args:
        stage: A stage as the loop has it.
        accelerator: Where it trains.
        step: One optimizer step of the loop.
    """
    device, config = accelerator.device, stage.config
    whole = config.batch_size // config.gradient_accumulation // accelerator.num_processes
    measured: list[Measured] = []
    for images in sizes(whole, stage, accelerator.num_processes):
        available = free_memory(device) + current_memory(device)
        if measured and expected_memory(measured, images) > SHARE * available:
            break
        repeats = WARM + TIMED if images == whole else 1
        measured.append(_measure(stage, accelerator, step, images, repeats))
    memory = max(expected_memory(measured, whole), *(part.memory for part in measured))
    available = free_memory(device) + current_memory(device)
    accelerator.print(_report(stage, accelerator, measured[-1], memory, available))


def sizes(whole: int, stage: Stage, processes: int) -> Iterator[int]:
    """Images of the measured parts of a micro-batch that the method can train on, the whole last.

    Args:
        whole: Images of a micro-batch of one process.
        stage: Whose method it is: a queue takes only parts that divide it.
        processes: Number of processes.
    """
    images = FIRST
    while images < whole:
        with suppress(UserError):
            stage.method.check_batch(images * processes)
            yield images
        images *= GROWTH
    yield whole


def expected_memory(measured: list[Measured], images: int) -> int:
    """Memory of a step over so many images, from the line through the last two measurements."""
    if not measured:
        return 0
    if len(measured) == 1:
        return measured[-1].memory
    before, last = measured[-2:]
    each = max(0.0, (last.memory - before.memory) / (last.images - before.images))
    return round(last.memory + each * (images - last.images))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device, or on the machine within what the process may have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min(psutil.virtual_memory().available, *_container_limits())


def current_memory(device: torch.device) -> int:
    """Bytes that this process holds now, on the device or in all."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    import psutil

    return psutil.Process().memory_info().rss


class PeakMemory:
    """The most memory that the process or its device holds while the block runs, in bytes."""

    # Between two looks at the process; a step that matters takes a hundred times as long.
    SECONDS = 0.002

    def __init__(self, device: torch.device) -> None:
        """Takes the device whose memory counts; the CPU stands for the whole process."""
        self.device, self.peak = device, 0
        self._done = threading.Event()

    def __enter__(self) -> PeakMemory:
        """Begins to look."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._watch = threading.Thread(target=self._look, daemon=True)
            self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._watch.join()

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, current_memory(self.device))
            if self._done.wait(self.SECONDS):
                return


def _measure(
    stage: Stage, accelerator: Accelerator, step: Step, images: int, repeats: int
) -> Measured:
    """Median time and peak memory of steps over the first images of each micro-batch."""
    seconds = []
    stage.last_views = None  # memory of another size
    with PeakMemory(accelerator.device) as memory:
        for micro_batches in stage.feed.steps(0, repeats):
            parts = [micro_batch.first(images) for micro_batch in micro_batches]
            started = time.perf_counter()
            _, loss = step(stage, accelerator, parts)
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - started)
    counted = sorted(seconds[WARM:] or seconds)
    return Measured(images, memory.peak, counted[len(counted) // 2])


def _container_limits() -> Iterator[int]:
    """Bytes left under the limits of a container (cgroup version 2 or 1), where there are any."""
    root = Path("/sys/fs/cgroup")
    for limit, statistics, held in (
        ("memory.max", "memory.stat", "anon"),
        ("memory/memory.limit_in_bytes", "memory/memory.stat", "rss"),
    ):
        # "max" is no number: no limit. What files take of it is given back when it is needed.
        with suppress(OSError, ValueError, KeyError):
            most = int((root / limit).read_text())
            lines = (root / statistics).read_text().splitlines()
            yield max(0, most - int(dict(line.split() for line in lines)[held]))


def _report(
    stage: Stage,
    accelerator: Accelerator,
    last: Measured,
    memory: int,
    available: int,
) -> str:
    config, method = stage.config, stage.method
    whole = config.batch_size // config.gradient_accumulation // accelerator.num_processes
    seconds = last.seconds * whole / last.images
    place = "device" if accelerator.device.type == "cuda" else "process"
    how = "" if last.images == whole else f", computed from steps of up to {last.images} images"
    lines = [
        f"parameters: {_millions(method)} M (backbone {_millions(method.backbone)} M)",
        f"peak {place} memory: {memory / 2**30:.2f} GiB of {available / 2**30:.2f} GiB free{how}",
        f"steps: {stage.total_steps} of {config.batch_size} images "
        f"({stage.feed.steps_per_epoch} an epoch)",
        f"time: {seconds:.3f} s a step, {config.batch_size / seconds:.1f} images/s, "
        f"{stage.total_steps * seconds / 3600:.2f} hours in all{how}",
    ]
    if memory > available:
        lines.append(
            "This is more than there is: raise gradient_accumulation, lower batch_size or "
            "image_size, or set precision=bf16."
        )
    return "\n".join(lines)


def _millions(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f}"
