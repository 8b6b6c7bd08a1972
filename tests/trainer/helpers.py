"""A run small enough for tests."""

from __future__ import annotations

from rs_models.settings import build
from rs_models.trainer import RunConfig, loop

DATA = "synthetic:num=24,size=32"


def tiny(output, **changes) -> RunConfig:
    """Settings of a run of 6 steps over 24 synthetic scenes."""
    values = {
        "output_dir": str(output),
        "backbone": "resnet_nano",
        "image_size": 32,
        "data": {"name": DATA},
        "epochs": 2,
        "batch_size": 8,
        "log_every": 1,
        "optimizer": {"lr": 0.02, "warmup_epochs": 0.5},
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            values[key] = {**values[key], **value}
        else:
            values[key] = value
    return build(RunConfig, values)


def stopped_at(step: int) -> type[loop.StopRequest]:
    """A stop request that comes after so many steps, in place of `loop.StopRequest`."""

    class StopAt(loop.StopRequest):
        steps = 0

        def __bool__(self) -> bool:
            StopAt.steps += 1
            return StopAt.steps == step

    return StopAt
