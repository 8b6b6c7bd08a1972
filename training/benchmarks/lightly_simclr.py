"""SimCLR by lightly and by us: the same images, epochs and backbone, rates tuned for both.

python training/benchmarks/lightly_simclr.py --data path/to/aid96 --other path/to/rsscn7

Each side tries the rates with the first seed, keeps the one with the best k-NN accuracy on the
validation split, and is then trained with every seed. Views are each side's own: lightly's
`SimCLRTransform` as it comes, ours of `training/configs/rsisc_mini_aid.yaml`. Needs
`pip install -e ".[bench]"`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rs_models import backbones
from rs_models.data import build_cache, load
from rs_models.evaluation.features import Encoder, extract
from rs_models.evaluation.knn import knn_accuracy
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import run
from rs_models.evaluation.results import versions
from rs_models.settings import build, merge, read_yaml
from rs_models.study.claims import t_interval
from rs_models.trainer import pretrain
from rs_models.trainer.config import RunConfig

RATES = (0.06, 0.12, 0.24)  # for 256 images
PROTOCOLS = ("knn20", "linear-n5", "linear-n20", "linear-n50")
WARMUP_EPOCHS, WEIGHT_DECAY, MOMENTUM = 0.5, 5e-4, 0.9


def main() -> None:
    """Trains both sides and writes the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="labelled set with train, validation, test")
    parser.add_argument("--other", help="another labelled set, for linear-n20 there")
    parser.add_argument("--backbone", default="resnet_mini")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", default="outputs/lightly_simclr")
    parser.add_argument("--output", default="training/benchmarks/results/lightly_simclr.json")
    options = parser.parse_args()
    sides = {"lightly": lightly_simclr, "rs_models": our_simclr}
    splits = {split: cached(options.data, split) for split in ("train", "validation", "test")}
    other = None
    if options.other:
        other = {split: cached(options.other, split) for split in ("train", "test")}
    told: dict[str, Any] = {"settings": vars(options) | {"rates": RATES}, "versions": versions()}
    told["settings"].pop("work")
    for name, train in sides.items():
        tuned = {}
        for rate in RATES:
            encoder, seconds = timed(train, options, rate, 0)
            tuned[rate] = validation(encoder, splits)
            print(f"{name}, rate {rate}: k-NN {tuned[rate]:.1f} % on validation, {seconds:.0f} s")
        best = max(tuned, key=lambda rate: tuned[rate])
        measured: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            encoder, _ = timed(train, options, best, seed)
            rows = run(
                encoder, splits["train"], splits["test"], protocols=PROTOCOLS, progress=False
            )
            found = {f"{Path(options.data).name}/{row.protocol}": row.mean for row in rows}
            if other is not None:
                away = other["train"], other["test"]
                (row,) = run(encoder, *away, protocols=("linear-n20",), progress=False)
                found[f"{Path(options.other).name}/linear-n20"] = row.mean
            for key, value in found.items():
                measured.setdefault(key, []).append(value)
        told[name] = {"rate": best, "validation": tuned, "accuracy": measured}
        print(name, {key: round(float(np.mean(values)), 1) for key, values in measured.items()})
    told["ours minus lightly's"] = {}
    for key, ours in told["rs_models"]["accuracy"].items():
        gain = np.subtract(ours, told["lightly"]["accuracy"][key])
        low, high = t_interval(list(gain))
        told["ours minus lightly's"][key] = {
            "mean": round(float(gain.mean()), 2),
            "interval": [round(low, 2), round(high, 2)],
        }
        print(f"{key}: {gain.mean():+.1f} [{low:+.1f}, {high:+.1f}]")
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def cached(name: str, split: str) -> Any:
    """Decoded images of a split."""
    return build_cache(load(name, split), progress=False)


def timed(train: Any, options: Any, rate: float, seed: int) -> tuple[Encoder, float]:
    """An encoder and the seconds of its training; trained once for the same arguments."""
    kept = timed.__dict__.setdefault("kept", {})
    key = train.__name__, rate, seed
    if key not in kept:
        started = time.perf_counter()
        kept[key] = train(options, rate, seed), time.perf_counter() - started
    return kept[key]


def validation(encoder: Encoder, splits: dict[str, Any]) -> float:
    """k-NN accuracy in percent on the validation split."""
    features = [extract(encoder, splits[key], progress=False) for key in ("train", "validation")]
    labels = [splits[key].labels for key in ("train", "validation")]
    return float(knn_accuracy(features[0], labels[0], features[1], labels[1]))


def our_simclr(options: Any, rate: float, seed: int) -> Encoder:
    """Our 2020 paradigm's instance discrimination."""
    settings = read_yaml("training/configs/rsisc_mini_aid.yaml")
    folder = f"{options.work}/rate-{rate:g}-seed-{seed}"
    merge(
        settings,
        {
            "backbone": options.backbone,
            "image_size": options.size,
            "data": {"name": options.data},
            "epochs": options.epochs,
            "batch_size": options.batch,
            "optimizer": {"lr": rate, "warmup_epochs": WARMUP_EPOCHS},
            "evaluation": {"every": 0},
            "seed": seed,
            "output_dir": folder,
            "resume": True,
        },
    )
    pretrain(build(RunConfig, settings))
    encoder = load_encoder(f"{folder}/export")
    assert isinstance(encoder, Encoder)
    return encoder


def lightly_simclr(options: Any, rate: float, seed: int) -> Encoder:
    """SimCLR as lightly's documentation builds it."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    torch.manual_seed(seed)
    backbone = backbones.build(options.backbone, image_size=options.size)
    width = backbones.feature_dim(backbone.config)
    head = SimCLRProjectionHead(width, width, 128)
    model = nn.ModuleList([backbone, head]).train()
    transform = SimCLRTransform(input_size=options.size)
    rows = load(options.data, "train")
    loader = torch.utils.data.DataLoader(
        _Views(rows, transform), batch_size=options.batch, shuffle=True, drop_last=True
    )
    steps, warmup = options.epochs * len(loader), round(WARMUP_EPOCHS * len(loader))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=rate * options.batch / 256,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
    )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loss_of = NTXentLoss(temperature=0.5)
    for _ in range(options.epochs):
        for first, second in loader:
            z = [head(backbones.pooled(backbone, view)) for view in (first, second)]
            loss = loss_of(*z)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return Encoder.from_model(
        backbone.eval(),
        bands=("red", "green", "blue"),
        value_range=(0, 255),
        image_mean=(0.485, 0.456, 0.406),  # of its transform
        image_std=(0.229, 0.224, 0.225),
        train_size=options.size,
        name="lightly SimCLR",
        revision="trained here",
    )


class _Views(torch.utils.data.Dataset):
    def __init__(self, rows: Any, transform: Any) -> None:
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.rows[index]["image"].convert("RGB"))


if __name__ == "__main__":
    main()
