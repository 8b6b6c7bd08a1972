"""The devices that a check runs on, and small things that differ between them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import torch

NO_GPU = "there is no CUDA device: these checks need one GPU"


def on_devices(*, slow_on_cpu: bool = False):
    """Runs a check on the CPU with the other tests, and on a GPU with `pytest -m gpu`."""
    devices = [on("cpu", slow=slow_on_cpu), on("cuda")]
    return pytest.mark.parametrize("device", devices, indirect=True)


def on(device: str, *values, slow: bool = False):
    """One row of a parametrisation that names its device itself."""
    marks = [pytest.mark.gpu] if device == "cuda" else [pytest.mark.slow] if slow else []
    return pytest.param(device, *values, marks=marks, id="-".join(map(str, (device, *values))))


@contextmanager
def used(device: torch.device) -> Iterator[None]:
    """Checks that what runs in the block computes on the GPU, where that is the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    yield
    if device.type == "cuda":
        assert torch.cuda.max_memory_allocated() > before, "nothing was computed on the GPU"


@contextmanager
def headroom(device: torch.device, size: int) -> Iterator[None]:
    """Leaves this process only so many bytes more than it holds now, on the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        share = (torch.cuda.memory_reserved() + size) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
