"""SimCLR as a user of lightly 1.6 writes it, to measure ours against.

The parts and their defaults are those of lightly's own example (examples/pytorch/simclr.py): PIL
views in loader processes and a forward for each view. `Example` is timed, in float32 and contiguous
memory as the example comes (throughput.py); `train_simclr` is compared by what it learns
(lightly_simclr.py).
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import nn

if TYPE_CHECKING:
    from lightly_simclr import Cell

# Of both sides of the comparison: SGD with a warm-up and a cosine.
WARMUP_EPOCHS, WEIGHT_DECAY, MOMENTUM = 1.0, 5e-4, 0.9


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


def train_simclr(options: argparse.Namespace, cell: Cell, folder: Path) -> None:
    """Trains SimCLR as lightly's documentation builds it, and exports the backbone.

    What the documentation leaves open is as on our side: the backbone, the optimizer with warm-up
    and cosine, temperature and precision. So are two things that change rounding alone and save
    hours on a CPU: the order of the maps in memory and `trainer.small_maps`.

    Args:
        options: The comparison's: data, backbone, size, epochs, batch, temperature, workers.
        cell: Precision, rate and seed.
        folder: Where `export/` goes.
    """
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from tqdm import tqdm

    from rs_models import backbones
    from rs_models.data import load
    from rs_models.export import export
    from rs_models.trainer.small_maps import use_small_maps

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(cell.seed)
    backbone = backbones.build(options.backbone, image_size=options.size)
    if device.type == "cpu":
        use_small_maps(backbone)
    width = backbones.feature_dim(backbone.config)
    head = SimCLRProjectionHead(width, width, 128)  # its example: as wide as the features, then 128
    model = nn.ModuleList([backbone, head]).to(device).train()
    model.to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(
        _RowViews(load(options.data, "train"), options.size),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    steps, warmup = options.epochs * len(loader), round(WARMUP_EPOCHS * len(loader))
    rate = cell.rate * options.batch / 256
    settings = {"lr": rate, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    optimizer = torch.optim.SGD(model.parameters(), **settings)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loss_of = NTXentLoss(temperature=options.temperature)
    for _ in tqdm(range(options.epochs), desc=cell.name, unit="epoch"):
        for views in loader:
            with torch.autocast(device.type, torch.bfloat16, enabled=cell.precision == "bf16"):
                maps = [view.to(device, memory_format=torch.channels_last) for view in views]
                z = [head(backbones.pooled(backbone, x)) for x in maps]
            loss = loss_of(*(part.float() for part in z))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    export(backbone.cpu().eval(), folder / "export", provenance=_provenance(options), timm=False)


def _provenance(options: argparse.Namespace) -> dict[str, Any]:
    """What the exported backbone says of itself."""
    from rs_models.version import __version__

    return {
        "method": "lightly SimCLR",
        "bands": ["red", "green", "blue"],
        "value_range": [0, 255],
        "image_mean": [0.485, 0.456, 0.406],  # of its transform
        "image_std": [0.229, 0.224, 0.225],
        "train_size": options.size,
        "output_stride": 32,
        "data": options.data,
        "data_revision": None,
        "epochs": options.epochs,
        "version": __version__,
        "commit": None,
    }


class _RowViews(torch.utils.data.Dataset):
    """Two views of the images of a data set.

    Args:
        rows: With an `image`.
        size: Side of the views in pixels.
    """

    def __init__(self, rows: Any, size: int) -> None:
        from lightly.transforms import SimCLRTransform

        self.rows, self.transform = rows, SimCLRTransform(input_size=size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.rows[index]["image"].convert("RGB"))


def _children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def _forever(loader: Any) -> Iterator[list[torch.Tensor]]:
    while True:
        yield from loader
