"""SimCLR as a user of lightly 1.6 writes it, to measure ours against.

The parts and their defaults are those of lightly's own example (examples/pytorch/simclr.py): PIL
views in loader processes, a forward for each view, float32, contiguous memory.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import PIL.Image
import torch
from torch import nn


class JpegViews(torch.utils.data.Dataset):
    """Two views of encoded images.

    Args:
        files: Encoded images, held in memory (kinder than the example, which reads a disk).
        size: Side of the views in pixels.
    """

    def __init__(self, files: Sequence[bytes], size: int) -> None:
        """See the class."""
        from lightly.transforms import SimCLRTransform

        self.files = files
        self.transform: Any = SimCLRTransform(input_size=size)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """Two (3, size, size) float32 views of an image."""
        return self.transform(PIL.Image.open(io.BytesIO(self.files[index])).convert("RGB"))


class Example:
    """The example's training loop, in rounds that keep the state of its loader.

    Args:
        files: Encoded images.
        backbone: A torchvision ResNet.
        size: Side of the views in pixels.
        batch_size: Images of a step.
        workers: Loader processes.
        device: Where the model is.
    """

    def __init__(
        self,
        files: Sequence[bytes],
        backbone: str,
        size: int,
        batch_size: int,
        workers: int,
        device: torch.device,
    ) -> None:
        """See the class."""
        import torchvision
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        resnet = getattr(torchvision.models, backbone)()
        width = resnet.fc.in_features
        resnet.fc = nn.Identity()
        # Our method's widths, so that both sides do the same work.
        head = SimCLRProjectionHead(width, 512, 128)
        self.model = nn.Sequential(resnet, head).to(device).train()
        self.loss = NTXentLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.06)
        self.device = device
        before = _children()
        loader = torch.utils.data.DataLoader(
            JpegViews(files, size),
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        self.batches = _forever(loader)
        next(self.batches)  # starts the processes
        self.workers = _children() - before
        self.pause()

    def run(self, steps: int, *, precision: str = "no", channels_last: bool = False) -> None:
        """Train for some steps; the loader processes rest before and after."""
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=memory_format)
        self.resume()
        for _ in range(steps):
            views = [
                view.to(self.device, memory_format=memory_format, non_blocking=True)
                for view in next(self.batches)
            ]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = self.loss(*(self.model(view) for view in views))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.pause()

    def pause(self) -> None:
        """Freeze the loader processes, so that the other sides have the cores to themselves."""
        for worker in self.workers:
            os.kill(worker, signal.SIGSTOP)

    def resume(self) -> None:
        """Wake the loader processes: what they have made ahead is still there, as in a long run."""
        for worker in self.workers:
            os.kill(worker, signal.SIGCONT)


def _children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def _forever(loader: Any) -> Iterator[list[torch.Tensor]]:
    while True:
        yield from loader
