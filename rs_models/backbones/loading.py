"""The one place that opens a backbone's weights, from a folder, the Hub or timm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..bands import resolve_bands
from ..errors import UserError, first_line
from ..zoo import pinned_revision, resolve
from .adapt import restem
from .native import check_native, dilate_as_recorded, reset_pooler

# What native checkpoints carry beyond the backbone: classifiers, and the decoder and mask token of
# masked modelling.
_HEAD = re.compile(r"^(classifier|decoder)\.|(^|\.)mask_token$")


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silences transformers' bars for reading and writing, which would cut through a run's own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load(
    name_or_path: str, *, bands: str | Sequence[str] | None = None, revision: str | None = None
) -> PreTrainedModel:
    """Loads a native backbone from anywhere, in float32 and evaluation mode.

    Nothing is loaded unless every weight is there.

    Args:
        name_or_path: A native folder or Hub id (with a classifier or decoder: it is dropped), one
            of our own names, or a timm model ("timm/resnet50.a1_in1k", "hf-hub:<id>",
            "resnet50.a1_in1k"), which is converted.
        bands: Bands of the images to come; the stem is adapted by name (see `restem`) where the
            weights have others. Weights that do not name theirs are taken as RGB where they have
            three channels.
        revision: Branch, tag or commit on the Hub.

    Returns:
        The model, dilated where its `rs_models.output_stride` says so, a ViT with its pooler as
        identity (`reset_pooler`). `config.rs_models` of a converted timm model holds what timm
        knows of its preprocessing.

    Raises:
        UserError: Nothing by that name, not a ResNet, Swin or ViT, weights missing, left over or
            not safetensors, or bands that cannot be matched.
    """
    from .timm_interop import load_timm

    source = resolve(str(name_or_path).removeprefix("hf-hub:"))
    revision = revision or pinned_revision(source)
    if not Path(source).is_dir() and "/" not in source:
        model = load_timm(source, revision)
    else:
        settings = _read_config(source, revision)
        model_type = settings.get("model_type")
        if model_type in (None, "timm_wrapper") and "architecture" in settings:
            model = load_timm(source, revision)
        else:
            if str(model_type).startswith("rs_"):
                raise UserError(
                    f"'{source}' is a whole method ({model_type}): give its export instead."
                )
            check_native(str(model_type))
            model = _load_native(source, revision)
    if bands is None:
        return model
    want = resolve_bands(bands)
    have = (getattr(model.config, "rs_models", None) or {}).get("bands")
    if have is None and model.config.num_channels == 3:
        have = resolve_bands("rgb")
    if have is None and model.config.num_channels != len(want):
        raise UserError(
            f"'{name_or_path}' has {model.config.num_channels} bands and does not say which, so it "
            f"cannot be matched to {', '.join(want)}: use weights whose config.json names them in "
            "rs_models.bands."
        )
    return restem(model, have or want, want)


def _read_config(source: str, revision: str | None) -> dict[str, Any]:
    try:
        settings, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"No model at '{source}': {first_line(error)}") from error
    if not settings:
        raise UserError(f"No model at '{source}': it has no config.json.")
    return settings


def _load_native(source: str, revision: str | None) -> PreTrainedModel:
    try:
        model, info = AutoModel.from_pretrained(
            source,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"Cannot load '{source}': {first_line(error)}") from error
    # The pooler of a ViT is replaced below. Heads are not ours to keep; anything else means other
    # weights than the config's.
    missing = [
        key
        for key in info["missing_keys"]
        if not (model.config.model_type == "vit" and key.startswith("pooler."))
    ]
    unexpected = [key for key in info["unexpected_keys"] if not _HEAD.search(key)]
    if missing or unexpected:
        raise UserError(
            f"The weights of '{source}' do not fit its config.json: missing {_some(missing)}, "
            f"left over {_some(unexpected)}; missing ones would be random, so nothing was loaded."
        )
    reset_pooler(model)
    settings = getattr(model.config, "rs_models", None) or {}
    dilate_as_recorded(model, settings.get("output_stride"))
    return model.eval()


def _some(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return (
        f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else "none"
    )
