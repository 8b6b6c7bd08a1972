"""SimCLR by lightly and by us: the same images, epochs, backbone and temperature.

python training/benchmarks/lightly_simclr.py --data path/to/aid96 --other path/to/rsscn7

Each side chooses its precision and its rate by k-NN accuracy on the validation split, with the
first seed: the precision at the first rate, then the rate among those of a grid that grows until
the best has a neighbour on both sides. It is then trained with every seed, and the test images are
looked at. Views are each side's own: lightly's `SimCLRTransform` as it comes, ours of
`training/configs/rsisc_mini_aid.yaml`.

Every training is a cell, a folder of `--work` with its weights and a JSON file each for what it
took and what it gave: the same command goes on where it was. Needs `pip install -e ".[bench]"`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightly_side import MOMENTUM, WARMUP_EPOCHS, WEIGHT_DECAY, train_simclr

from rs_models.data import build_cache, load
from rs_models.evaluation.features import Encoder, extract
from rs_models.evaluation.knn import knn_accuracy
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import run
from rs_models.evaluation.results import versions
from rs_models.files import claim, write_json
from rs_models.settings import build, merge, read_yaml, run_script
from rs_models.study.claims import t_interval
from rs_models.trainer import RunConfig, pretrain

CONFIG = Path(__file__).parents[1] / "configs" / "rsisc_mini_aid.yaml"
RATES = (0.03, 0.06, 0.12)  # for 256 images; lightly's small-image benchmarks have 0.06 for 128
LOWEST, HIGHEST = 0.001, 1.0  # where the grid ends at the latest
PRECISIONS = ("no", "bf16")
PROTOCOLS = ("knn20", "linear-n5", "linear-n20", "linear-n50")
# What the numbers may depend on beside what every result names.
PACKAGES = ("lightly", "torchvision", "accelerate", "opencv-python-headless", "pillow")
# What two calls may differ in and still be one comparison.
FREE = ("work", "output", "rates", "precisions", "seeds", "other", "workers")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        side: Whose.
        precision: `no` (float32) or `bf16`.
        rate: Rate for 256 images.
        seed: Seed of weights, order and views.
    """

    side: str
    precision: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.side}-{self.precision}-rate-{self.rate:g}-seed-{self.seed}"


# Trains a cell with the options and leaves the backbone's export in `<folder>/export`.
Train = Callable[[argparse.Namespace, Cell, Path], None]


def main(argv: Sequence[str]) -> int:
    """Trains both sides and writes the comparison; the exit code."""
    options = parser().parse_args(argv)
    sides: dict[str, Train] = {"lightly": train_simclr, "rs_models": our_simclr}
    job = {key: value for key, value in vars(options).items() if key not in FREE}
    with claim(options.work, {"command": "lightly_simclr", **job}):
        comparison = Comparison(options, sides)
        outcome = {name: comparison.side(name) for name in sides}
    settings = {key: value for key, value in vars(options).items() if key != "work"}
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    write_json(
        options.output,
        {
            "settings": {**settings, "warmup_epochs": WARMUP_EPOCHS, "weight_decay": WEIGHT_DECAY},
            "versions": {**versions(), **packages},
            **outcome,
            "ours minus lightly's": differences(outcome),
        },
    )
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--data", required=True, help="labelled: train, validation and test")
    options.add_argument("--other", help="another labelled set, for linear-n20 there")
    options.add_argument("--backbone", default="resnet18")
    options.add_argument("--size", type=int, default=64, help="pixels of a view")
    options.add_argument("--epochs", type=int, default=15)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--temperature", type=float, default=0.2, help="of both sides' NT-Xent")
    options.add_argument(
        "--rates", type=float, nargs="+", default=list(RATES), help="to begin with"
    )
    options.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--workers", type=int, default=2, help="lightly's loader processes")
    options.add_argument("--work", default="outputs/lightly_simclr", help="folder of the cells")
    options.add_argument("--output", default="training/benchmarks/results/lightly_simclr.json")
    return options


class Comparison:
    """The cells of a comparison: each is trained once and measured once.

    Args:
        options: The command line's.
        sides: Name -> how it trains.
    """

    def __init__(self, options: argparse.Namespace, sides: Mapping[str, Train]) -> None:
        """Opens the images."""
        self.options, self.sides = options, sides
        splits = ("train", "validation", "test")
        self.images = {split: cached(options.data, split) for split in splits}

    def side(self, name: str) -> dict[str, Any]:
        """What a side chose and what that gave: precision, rate, validation, accuracy."""
        options = self.options
        first = options.rates[len(options.rates) // 2]
        by_precision = {
            precision: self.validation(Cell(name, precision, first, 0))
            for precision in options.precisions
        }
        precision = max(by_precision, key=lambda key: by_precision[key])
        best, by_rate = best_rate(
            options.rates, lambda rate: self.validation(Cell(name, precision, rate, 0))
        )
        accuracy: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            for key, value in self.accuracy(Cell(name, precision, best, seed)).items():
                accuracy.setdefault(key, []).append(value)
        print(name, {key: round(float(np.mean(values)), 1) for key, values in accuracy.items()})
        return {
            "precision": precision,
            "rate": best,
            "validation by precision": by_precision,
            "validation by rate": {f"{rate:g}": value for rate, value in by_rate.items()},
            "accuracy": accuracy,
        }

    def validation(self, cell: Cell) -> float:
        """k-NN accuracy in percent on the validation split."""
        return self.trained(cell)["validation"]

    def trained(self, cell: Cell) -> dict[str, Any]:
        """What a training took and its k-NN accuracy on validation; trained where it is not yet."""
        file = self.folder(cell) / "trained.json"
        if not file.is_file():
            started = time.perf_counter()
            self.sides[cell.side](self.options, cell, self.folder(cell))
            seconds = time.perf_counter() - started
            encoder = self.encoder(cell)
            features, labels = [], []
            for split in ("train", "validation"):
                features.append(extract(encoder, self.images[split], progress=False))
                labels.append(self.images[split].labels)
            accuracy = float(knn_accuracy(features[0], labels[0], features[1], labels[1]))
            write_json(file, {"seconds": round(seconds, 1), "validation": accuracy})
            print(f"{cell.name}: k-NN {accuracy:.1f} % on validation, {seconds:.0f} s")
        return json.loads(file.read_text(encoding="utf-8"))

    def accuracy(self, cell: Cell) -> dict[str, float]:
        """Accuracy in percent by `<data>/<protocol>`, on the test split and on the other set's."""
        self.trained(cell)
        names = [(self.options.data, PROTOCOLS), (self.options.other, ("linear-n20",))]
        measured: dict[str, float] = {}
        for name, protocols in names:
            if name is None:
                continue
            label = Path(name).name
            file = self.folder(cell) / f"on-{label}.json"
            if not file.is_file():
                images = self.images if name == self.options.data else other_images(name)
                train, test = images["train"], images["test"]
                rows = run(self.encoder(cell), train, test, protocols=protocols, progress=False)
                write_json(file, {f"{label}/{row.protocol}": row.mean for row in rows})
            measured |= json.loads(file.read_text(encoding="utf-8"))
        return measured

    def folder(self, cell: Cell) -> Path:
        """Folder of a cell."""
        return Path(self.options.work) / cell.name

    def encoder(self, cell: Cell) -> Encoder:
        """Its backbone, trained."""
        encoder = load_encoder(str(self.folder(cell) / "export"))
        assert isinstance(encoder, Encoder)
        return encoder


def best_rate(
    rates: Sequence[float], accuracy: Callable[[float], float]
) -> tuple[float, dict[float, float]]:
    """The rate of the best accuracy, and the accuracy of all that were tried, by rising rate.

    While the best is the lowest or the highest, the grid grows by a half or a double.

    Args:
        rates: To begin with.
        accuracy: Of a rate; the larger the better.
    """
    tried = {rate: accuracy(rate) for rate in sorted(rates)}
    while True:
        best = max(tried, key=lambda rate: tried[rate])
        if best == min(tried) and best / 2 >= LOWEST:
            following = best / 2
        elif best == max(tried) and best * 2 <= HIGHEST:
            following = best * 2
        else:
            return best, dict(sorted(tried.items()))
        tried[following] = accuracy(following)


def differences(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Ours minus lightly's, seed by seed: mean and Student's 95% interval, null of one seed."""
    told: dict[str, Any] = {}
    for key, ours in outcome["rs_models"]["accuracy"].items():
        gain = np.subtract(ours, outcome["lightly"]["accuracy"][key])
        interval = None
        if len(gain) > 1:
            interval = [round(end, 2) for end in t_interval(list(gain))]
        told[key] = {"mean": round(float(gain.mean()), 2), "interval": interval}
        print(f"{key}: {gain.mean():+.1f} {interval}")
    return told


def cached(name: str, split: str) -> Any:
    """Decoded images of a split."""
    return build_cache(load(name, split), progress=False)


def other_images(name: str) -> dict[str, Any]:
    """Decoded images of the other set."""
    return {split: cached(name, split) for split in ("train", "test")}


def our_simclr(options: argparse.Namespace, cell: Cell, folder: Path) -> None:
    """Trains our 2020 paradigm's instance discrimination; goes on where it was stopped.

    Raises:
        KeyboardInterrupt: It was stopped on request, and has saved.
    """
    settings = read_yaml(CONFIG)
    changes = {
        "method": {"temperature": options.temperature},
        "backbone": options.backbone,
        "image_size": options.size,
        "data": {"name": options.data},
        "epochs": options.epochs,
        "batch_size": options.batch,
        "optimizer": {
            "lr": cell.rate,
            "momentum": MOMENTUM,
            "weight_decay": WEIGHT_DECAY,
            "warmup_epochs": WARMUP_EPOCHS,
        },
        "evaluation": {"every": 0},
        "precision": cell.precision,
        "seed": cell.seed,
        "output_dir": str(folder),
        "resume": True,
    }
    merge(settings, changes)
    if pretrain(build(RunConfig, settings)) is None:
        raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run_script(main, sys.argv[1:]))
