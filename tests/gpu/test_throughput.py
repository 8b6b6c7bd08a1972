"""The table of rates: the trainer's loop beside the bare encoder, in one process."""

from __future__ import annotations

import sys

import pytest
import torch

from rs_models.trainer.dry_run import PeakMemory
from tests.conftest import ROOT
from tests.gpu.devices import on_devices, used

# What a GPU of a data centre should reach (a ResNet-50 at 224 px in bfloat16): told, not demanded,
# since a card is what it is.
GOAL = 2000
GOAL_RATIO = 0.85
SMALL = (
    "--data synthetic:num=32,size=32 --backbone resnet_nano --image-size 32 --precision no "
    "--rounds 1 --steps 1"
)
WHOLE = (
    "--data synthetic:num=1024,size=256 --backbone resnet50 --image-size 224 --precision bf16 "
    "--rounds 3 --steps 8"
)


@pytest.fixture
def throughput(monkeypatch):
    """The benchmark as a module, and its table."""
    monkeypatch.syspath_prepend(str(ROOT / "training" / "benchmarks"))
    sys.modules.pop("throughput", None)
    import speed_report
    import throughput

    return throughput, speed_report.table


@on_devices(slow_on_cpu=True)
def test_the_loop_beside_the_bare_encoder(device, tmp_path, capsys, throughput):
    throughput, drawn = throughput
    words = (SMALL if device.type == "cpu" else WHOLE).split()
    options = throughput.parse(["--json", str(tmp_path / "x"), "--batch-size", "auto", *words])
    with used(device):
        options.batch_size = throughput.fitting_batch(options)
        rows = {}
        for compiled in (False, True) if device.type == "cuda" else (False,):
            options.compile = compiled
            with PeakMemory(device) as memory:
                figures = throughput.measure_loop(options, have_lightly=False)
            name = f"{options.backbone} {options.image_size} px{' compiled' * compiled}"
            figures |= {"batch": options.batch_size, "peak_gib": memory.peak / 2**30}
            rows[name] = figures
    table = drawn(rows)
    with capsys.disabled():
        where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        about = f"{options.precision}; goal {GOAL} images/s (two views each) and {GOAL_RATIO}"
        print(f"\n\nSimCLR on {where}, precision {about}\n{table}")
    assert options.batch_size in (8, 16, 32, 64, 128, 256, 512, 1024)
    lines = table.splitlines()
    assert len(lines) == 1 + len(rows) and all(
        str(options.batch_size) in line for line in lines[1:]
    )
    assert all(figures["loop_over_bare"] > 0 for figures in rows.values())
