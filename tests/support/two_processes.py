"""Loss, gradients and buffers of a method on two processes, to be compared with one.

Run as `python -m tests.support.two_processes FILE` with torch's environment of a process group:
FILE holds the views of the global batch (`split_views`) and lies beside the method's folder
`model`; rank 0 writes FILE.out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from rs_models.methods.base import SslModel
from rs_models.signals.views import ViewBatch

ROOT = Path(__file__).resolve().parents[2]


def run_two(path: Path) -> dict:
    """Run the file's method on two gloo processes and return what rank 0 wrote."""
    with_port = dict(os.environ, MASTER_ADDR="127.0.0.1", WORLD_SIZE="2", OMP_NUM_THREADS="1")
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with_port["MASTER_PORT"] = str(free.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.two_processes", str(path)],
            env={**with_port, "RANK": str(rank)},
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in started] == [0, 0]
    return torch.load(path.with_suffix(".out"), weights_only=True)


def split_views(batch: ViewBatch, images: int) -> dict:
    """A batch as tensors whose second dimension is the image: crops (V, B, C, H, W), boxes."""
    return {
        "crops": [crop.unflatten(0, (-1, images)).contiguous() for crop in batch.crops],
        "boxes": batch.boxes,
        "targets": batch.targets,
    }


def joined(views: dict, part: slice = slice(None)) -> ViewBatch:
    """The batch of some of the images."""
    return ViewBatch(
        crops=[crop[:, part].flatten(0, 1) for crop in views["crops"]],
        boxes=None if views["boxes"] is None else views["boxes"][:, part],
        targets=None if views["targets"] is None else views["targets"][part],
        labels=torch.arange(views["crops"][0].shape[1])[part] % 3,
    )


def step(model: SslModel, batch: ViewBatch, wrapper: torch.nn.Module | None = None) -> dict:
    """One training step's loss, gradients and buffers, BatchNorm with frozen statistics.

    SyncBatchNorm has no CPU path. Only the method itself is told that it trains, so that queues
    and centres move while norms, dropout and dropped paths rest.
    """
    model.training = True
    output = (wrapper or model)(batch)
    output.loss.backward()
    return {
        "loss": output.loss.detach(),
        "terms": {k: v.detach().float() for k, v in (output.terms or {}).items()},
        "grads": {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        "buffers": dict(model.named_buffers(recurse=False)),
    }


def main(path: Path) -> None:
    from transformers import AutoModelForPreTraining

    import rs_models  # noqa: F401

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    views = torch.load(path, weights_only=True)
    half = views["crops"][0].shape[1] // 2
    mine = joined(views, slice(rank * half, (rank + 1) * half))
    model = AutoModelForPreTraining.from_pretrained(path.parent / "model").eval()
    model.freeze()  # as the trainer does
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    result = step(model, mine, parallel)
    for value in (result["loss"], *result["terms"].values()):
        # Some losses are over this process's images: their mean is that of the whole batch.
        torch.distributed.all_reduce(value)
        value /= 2
    if rank == 0:
        torch.save(result, path.with_suffix(".out"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
