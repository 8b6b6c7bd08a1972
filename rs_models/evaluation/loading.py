"""Published encoders and their preprocessing: ours, other transformers models, timm's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig

from .. import backbones
from ..backbones.loading import load_weights, read_config
from ..backbones.timm_interop import timm_features
from ..bands import SENSORS
from ..errors import UserError, first_line, load_error
from ..zoo import cached_commit, resolve, revision_of, run_name
from .features import Encoder, weights_hash

if TYPE_CHECKING:
    from .baselines import Baseline


Forward = Callable[[Tensor], Tensor]


def load_pretrained(name_or_path: str, revision: str | None = None) -> Encoder:
    """An encoder with weights; arguments and errors as `load_encoder`."""
    source = resolve(name_or_path.removeprefix("hf-hub:"))
    revision = revision_of(source, revision)
    if "/" not in source and not Path(source).is_dir():
        return _timm_encoder(source, revision)
    settings = read_config(source, revision)
    model_type = str(settings.get("model_type"))
    if "architecture" in settings and model_type not in backbones.NATIVE_TYPES:
        return _timm_encoder(source, revision)
    forward = None
    if model_type in backbones.NATIVE_TYPES or model_type.startswith("rs_"):
        model = backbones.load(source, revision=revision)  # refuses a whole method by name
    else:
        model, forward = _auto_model(source, revision)
    meta = settings.get("rs_models") or processor_record(source, revision, model.config)
    return Encoder.from_model(
        model,
        forward=forward,
        bands=meta["bands"],
        value_range=meta["value_range"],
        image_mean=meta["image_mean"],
        image_std=meta["image_std"],
        train_size=meta["train_size"],
        name=run_name(source),
        revision=cached_commit(source, revision) or f"sha256:{weights_hash(model)}",
        pretrained_on=meta.get("data"),
    )


def processor_record(
    source: str, revision: str | None, config: PreTrainedConfig
) -> Mapping[str, Any]:
    """What `preprocessor_config.json` says, under the names of our provenance."""
    from transformers.image_processing_base import ImageProcessingMixin

    if getattr(config, "num_channels", 3) != 3:
        raise UserError(
            f"'{source}' takes {config.num_channels} bands and does not say which: use weights "
            "whose config.json names them in rs_models.bands."
        )
    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(source, revision=revision)
        size = found.get("crop_size") or found["size"]
        if isinstance(size, dict):
            size = size.get("height") or size["shortest_edge"]
        return {
            "bands": SENSORS["rgb"],
            "value_range": (0, 1 / found.get("rescale_factor", 1 / 255)),
            "image_mean": found["image_mean"],
            "image_std": found["image_std"],
            "train_size": int(size),
        }
    except OSError as error:  # the network's faults too, which are told as such
        raise load_error(_unknown_processor(source), error) from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{_unknown_processor(source)}: {first_line(error)} is missing.") from error


def _unknown_processor(source: str) -> str:
    return (
        f"'{source}' does not say how its images are normalised (preprocessor_config.json with "
        "image_mean, image_std and size)"
    )


def _auto_model(source: str, revision: str | None) -> tuple[Any, Forward]:
    """Any other image model of transformers, and how to read one vector an image from it."""
    model, _ = load_weights(AutoModel, source, revision, lacking="it is not a whole encoder")

    def forward(x: Tensor) -> Tensor:
        output = model(pixel_values=x)
        found = getattr(output, "pooler_output", None)
        if found is not None:
            return found.flatten(1)
        hidden = output.last_hidden_state  # (B, tokens, D) with a class token, or (B, D, h, w)
        return hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))

    return model, forward


def _timm_encoder(source: str, revision: str | None) -> Encoder:
    import timm
    from timm.data import resolve_model_data_config

    if Path(source).is_dir():
        name = f"local-dir:{source}"
    elif "/" in source:
        name = f"hf-hub:{source}@{revision}" if revision else f"hf-hub:{source}"
    else:
        name = source
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0).eval()
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise load_error(f"Cannot load '{source}' with timm", error) from error
    data = resolve_model_data_config(model)
    if data["input_size"][0] != 3:
        raise UserError(f"'{source}' takes {data['input_size'][0]} bands and does not say which.")
    return Encoder.from_model(
        model,
        forward=_at_any_size(model),
        bands=SENSORS["rgb"],
        value_range=(0, 255),
        image_mean=data["mean"],
        image_std=data["std"],
        train_size=data["input_size"][-1],
        name=run_name(source),
        revision=f"sha256:{weights_hash(model)}",
    )


def _at_any_size(model: nn.Module) -> Forward:
    """Features of a timm model; one that is built for a size is copied for every other.

    A copy, because its position embeddings are resized from the stored ones each time.
    """
    if not hasattr(model, "set_input_size"):
        return lambda x: timm_features(model, x)
    copies: dict[Any, Any] = {}

    def forward(x: Tensor) -> Tensor:
        key = (x.device, *x.shape[-2:])
        if key not in copies:
            copies[key] = copy.deepcopy(model)
            copies[key].set_input_size(img_size=tuple(x.shape[-2:]))
        return timm_features(copies[key], x)

    return forward


def load_encoder(
    name_or_path: str, *, revision: str | None = None, size: int | None = None, seed: int = 0
) -> Encoder | Baseline:
    """An encoder by name.

    Args:
        name_or_path: A native folder or Hub id (ours, or any that transformers' AutoModel loads), a
            timm name ("timm/resnet50.a1_in1k", "hf-hub:<id>", "resnet50.a1_in1k"), or a baseline
            ("baseline:random-resnet18", "baseline:image-statistics",
            "baseline:random-convolutions"), which `protocols.run` fits to the training images.
        revision: Branch, tag or commit on the Hub.
        size: Pixels that images are brought to; None means the size of training.
        seed: Seed of a baseline's random weights.

    Raises:
        UserError: Nothing by that name, weights that do not fit, or preprocessing that is not
            known.
        ServiceError: Network and server troubles.

    Example:
        >>> load_encoder("baseline:image-statistics").name
        'baseline:image-statistics'
    """
    from .baselines import PREFIX, Baseline

    if name_or_path.startswith(PREFIX):
        return Baseline(name_or_path.removeprefix(PREFIX), size, seed)

    encoder = load_pretrained(name_or_path, revision)
    return encoder if size is None else encoder.at_size(size)
