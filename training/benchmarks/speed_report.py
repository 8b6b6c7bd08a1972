"""What the benchmarks of speed tell: ratios, medians, a table, and what they were measured on."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch


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
