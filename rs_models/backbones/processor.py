"""How images are brought to a backbone: the contents of preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    PreTrainedConfig,
)

from .. import backbones

IMAGE_PROCESSOR = "ViTImageProcessor"  # resize, rescale, normalise and nothing else


_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC


# Band counts whose channel axis transformers finds by itself.
_INFERRED_BANDS = (1, 3, 4)


def processor_size(config: PreTrainedConfig, train_size: int) -> int:
    """Side in pixels that the image processor resizes to.

    It is the training size, except where a plain `SwinModel` cannot take that: its last stage must
    hold one whole window (224 pixels for Swin-T), which rs_models' own calls do not need (see
    `backbones.pooled`).
    """
    if config.model_type != "swin":
        return train_size
    return max(train_size, backbones.output_stride(config) * config.window_size)


def processor_settings(meta: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Contents of preprocessor_config.json for validated provenance.

    More than four bands are given as arrays (H, W, C), and resized only by the torchvision backend,
    which AutoImageProcessor takes wherever torchvision is installed; without it pass
    `do_resize=False`. The same holds for stored values above 255.
    """
    settings: dict[str, Any] = {
        "image_processor_type": IMAGE_PROCESSOR,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / meta["value_range"][1],
        "do_normalize": True,
        "image_mean": meta["image_mean"],
        "image_std": meta["image_std"],
    }
    if len(meta["bands"]) == 3:
        settings["do_convert_rgb"] = True  # palettes, grey and transparent images among RGB ones
    if len(meta["bands"]) not in _INFERRED_BANDS:
        settings["input_data_format"] = "channels_last"
    return settings
