"""Loss and gradients of a method on two processes, to be compared with one.

Run as `python -m tests.support.two_processes RANK PORT FILE`: FILE holds the method's class, its
weights and the views of the global batch; rank 0 writes FILE.out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

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


def main(path: Path) -> None:
    from transformers import AutoModelForPreTraining

    import rs_models  # noqa: F401
    from rs_models.signals.views import ViewBatch

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    views = torch.load(path, weights_only=True)  # (V, B, C, H, W)
    half = views.shape[1] // 2
    mine = views[:, rank * half : (rank + 1) * half].flatten(0, 1)
    # BatchNorm with frozen statistics: SyncBatchNorm has no CPU path.
    model = AutoModelForPreTraining.from_pretrained(path.parent / "model").eval()
    model.freeze()  # as the trainer does
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    loss = parallel(ViewBatch(crops=[mine])).loss
    loss.backward()
    if rank == 0:
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        torch.save({"loss": loss.detach(), "grads": grads}, path.with_suffix(".out"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
