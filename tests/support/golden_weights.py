"""Weights that follow from the names of the tensors, as tests/golden/architectures.json has them.

The outputs stored there are those of the authors' networks with every tensor filled by a rule of
its official name. Filling our network by the official names of its tensors must give the same
outputs, which proves layers, wiring and key map at once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rs_models.backbones.timm_interop import _RESNET_NAMES

# `_inputs` of architectures.json: name of an input -> (seed, shape).
INPUTS = {
    "glcnet_x1": (1, (2, 4, 64, 64)),
    "glcnet_x2": (2, (2, 4, 64, 64)),
    "rs2020": (3, (2, 3, 64, 64)),
    "rs2020_jigsaw": (4, (2, 4, 3, 64, 64)),
    "tov": (5, (1, 3, 64, 64)),
    "sticl": (6, (2, 3, 64, 64)),
}
# The tolerance that tests/golden suggests for whole networks.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}


def golden_input(name: str) -> Tensor:
    """The images that a stored output was computed from, float32 in [-1, 1)."""
    seed, shape = INPUTS[name]
    values = np.random.RandomState(seed).uniform(-1, 1, size=shape)
    return torch.from_numpy(values.astype(np.float32))


def rule_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The values of the tensor that the authors' network calls `name` (`_rule`)."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        values = 0.5 + random.uniform(size=shape)
    elif name.endswith("running_mean"):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) >= 2:
        fan_in = np.prod(shape) / shape[0]
        values = random.standard_normal(shape) * np.sqrt(1 / fan_in)
    elif name.endswith(".weight"):
        values = 0.6 + 0.1 * random.standard_normal(shape)
    elif name.endswith(".bias"):
        values = 0.1 * random.standard_normal(shape)
    else:
        raise ValueError(f"the rule says nothing of {name} {shape}")
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def fill_by_rule(module: nn.Module, rename: Callable[[str], str] = str) -> nn.Module:
    """Fills all weights and statistics by the rule and sets evaluation mode.

    Args:
        module: Any module; counters (`num_batches_tracked`) stay.
        rename: Name in the module's state dict -> official name.
    """
    weights = {
        key: rule_tensor(rename(key), tuple(value.shape)) if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
    module.load_state_dict(weights)
    return module.eval()


def renamed(patterns: list[tuple[str, str]]) -> Callable[[str], str]:
    """A `rename` of pairs (pattern, replacement), applied in order to the whole name."""

    def rename(key: str) -> str:
        for pattern, replacement in patterns:
            key = re.sub(pattern, replacement, key)
        return key

    return rename


def torchvision_name(key: str, prefix: str = "", official_prefix: str = "") -> str:
    """torchvision's name of a tensor of a native ResNet, under another prefix.

    Args:
        key: Name in our state dict.
        prefix: What precedes the native ResNet's name there ("backbone."); a key that does not
            start with it is given back as it is.
        official_prefix: What precedes torchvision's name in the authors' network ("features.").
    """
    if not key.startswith(prefix):
        return key
    key = key.removeprefix(prefix)
    for pattern, replacement in _RESNET_NAMES:
        key = re.sub(pattern, replacement, key)
    return official_prefix + key


# GLCNet's ASPP and decoder, under `encoder.` and `decoder.` in both networks.
_GLCNET_NAMES = [
    (r"^encoder\.branches\.0\.", "encoder.ASPP._atrous_convolution1."),
    (r"^encoder\.branches\.1\.", "encoder.ASPP._atrous_convolution2."),
    (r"^encoder\.branches\.2\.", "encoder.ASPP._atrous_convolution3."),
    (r"^encoder\.branches\.3\.", "encoder.ASPP._atrous_convolution4."),
    (r"^encoder\.pool\.0\.", "encoder.ASPP._image_pool.1."),
    (r"^encoder\.pool\.1\.", "encoder.ASPP._image_pool.2."),
    (r"^encoder\.fuse\.0\.", "encoder.conv1."),
    (r"^encoder\.fuse\.1\.", "encoder.bn1."),
    (r"^decoder\.reduce\.0\.", "decoder.conv1."),
    (r"^decoder\.reduce\.1\.", "decoder.bn1."),
    (r"^decoder\.refine1\.0\.", "decoder.conv2."),
    (r"^decoder\.refine1\.1\.", "decoder.bn2."),
    (r"^decoder\.refine2\.0\.", "decoder.conv3."),
    (r"^decoder\.refine2\.1\.", "decoder.bn3."),
]


def glcnet_name(key: str, *, decoder: str = "decoder", output: str = "conv41") -> str:
    """The official name of a tensor of a network with `backbone`, `encoder` and `decoder`.

    Args:
        key: Name in our state dict.
        decoder: What the authors call the decoder: `decoder` in pretraining.
        output: What they call its output layer: `conv41` in pretraining.
    """
    key = torchvision_name(key, "backbone.", "backbone.")
    key = renamed([*_GLCNET_NAMES, (r"^decoder\.output\.", f"decoder.{output}.")])(key)
    return re.sub(r"^decoder\.", f"{decoder}.", key)
