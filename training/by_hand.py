"""One method by hand, from images to its loss and a step: the trainer's work without the trainer.

    python training/by_hand.py [DATA] [STEPS]

Copy it where you want a loop of your own. What it leaves out, `rs-models pretrain` has: schedules,
several processes, checkpoints, meters, export.
"""

from __future__ import annotations

import sys

import torch

from rs_models.backbones import backbone_config
from rs_models.data import build_cache, load
from rs_models.methods.tov import TovConfig, TovForPreTraining
from rs_models.signals.views import ViewMaker

DATA = "synthetic:num=64,size=64"  # drawn scenes


def main(data: str = DATA, steps: int = 20, batch_size: int = 16) -> list[float]:
    """Trains a small network; the loss of every step."""
    torch.manual_seed(0)
    images = build_cache(load(data, "train"), progress=False).images  # (N, C, H, W) uint8
    config = TovConfig(image_size=32, backbone_config=backbone_config("resnet_nano", image_size=32))
    method = TovForPreTraining(config).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    views = ViewMaker(
        method.recipe,
        bands=config.bands,
        image_mean=config.image_mean,
        image_std=config.image_std,
        value_range=(config.value_range[0], config.value_range[1]),
    )
    losses = []
    for step in range(steps):
        rows = torch.randint(len(images), (batch_size,))
        batch = views(images[rows], seed=step)  # crops, a list of (V * B, C, h, w)
        loss = method(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        print(f"step {step + 1}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    data, *steps = sys.argv[1:] or [DATA]
    main(data, *map(int, steps))
