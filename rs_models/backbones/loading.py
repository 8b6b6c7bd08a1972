"""The one place that opens weights and their settings, from a folder, the Hub or timm."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedModel
from transformers.utils import cached_file

from ..bands import resolve_bands
from ..errors import ServiceError, UserError, load_error
from ..provenance import check_used
from ..settings import no_progress_bars
from ..zoo import check_id, resolve, revision_of
from .adapt import restem
from .families import family
from .timm_interop import load_timm

# What native checkpoints carry beyond the backbone: classifiers, and the decoder and mask token of
# masked modelling.
_HEAD = re.compile(r"^(classifier|decoder)\.|(^|\.)mask_token$")

# Bounds far above any published network, so that a stranger's config.json cannot keep a machine
# busy with building what it says: layers in all, and any width or side.
_MOST_LAYERS, _MOST_WIDE = 2_000, 2**20
_LAYERS = re.compile(r"(^|_)(depths?|layers|n_layers?)$")
_WIDTHS = re.compile(r"(^|_)(sizes?|dims?|channels|heads|window|planes)$")
# What a network of numbers may be stored as. Integers are counters and indices, never weights.
_INTEGERS = {"I64", "I32", "BOOL"}
_STORED = {"F64", "F32", "F16", "BF16", *_INTEGERS}
_WEIGHT = re.compile(r"\.(weight|bias)$")
# What transformers raises where settings contradict each other or are of a wrong kind.
_UNBUILDABLE = (
    StrictDataclassError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
)


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
        UserError: Nothing by that name, of no family that we know, weights missing, left over or
            not safetensors, or bands that cannot be matched.
    """
    source = resolve(str(name_or_path).removeprefix("hf-hub:"))
    revision = revision_of(source, revision)
    if not os.path.isdir(source) and "/" not in source:
        model = load_timm(source, revision)
    else:
        settings = read_config(source, revision)
        model_type = settings.get("model_type")
        if model_type in (None, "timm_wrapper") and "architecture" in settings:
            model = load_timm(source, revision)
        else:
            if str(model_type).startswith("rs_"):
                raise UserError(
                    f"'{source}' is a whole method ({model_type}): give its export instead."
                )
            family(str(model_type))  # refuses others
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


def read_config(source: str, revision: str | None = None) -> dict[str, Any]:
    """Reads the config.json of a model, and refuses what must not or cannot be built.

    Args:
        source: A folder or Hub id, as `zoo.resolve` gives it.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: Nothing there, no JSON object, code of its own that transformers would have to
            run, or sizes that no network has.
        ServiceError: Network and server troubles.
    """
    check_id(source)
    content = _config_text(source, revision)
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError):
        if os.path.isdir(source) or is_offline_mode():
            raise UserError(
                f"No model at '{source}': its config.json is not JSON, so it is damaged; get it "
                "again."
            ) from None
        # A download that was spoilt on its way stays in the cache: fetch it once more.
        try:
            settings = json.loads(_config_text(source, revision, force_download=True))
        except (ValueError, RecursionError):
            raise ServiceError(
                f"No model at '{source}': the server gives a config.json that is not JSON; try "
                "again later, or ask its author."
            ) from None
    if not isinstance(settings, dict) or not settings:
        raise UserError(f"No model at '{source}': its config.json is not an object of settings.")
    model_type = settings.get("model_type")
    if "auto_map" in settings and model_type not in CONFIG_MAPPING:
        raise UserError(
            f"'{source}' brings code of its own (auto_map in config.json), which is never run "
            "here: use weights of a class that transformers has."
        )
    if settings.get("rs_models") is not None:
        check_used(settings["rs_models"], f"The rs_models in config.json of '{source}'")
    _check_sizes(settings, source)
    return settings


def _config_text(source: str, revision: str | None, **settings: bool) -> bytes:
    try:
        path = cached_file(source, "config.json", revision=revision, **settings)
        if path is not None:
            return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise load_error(f"No model at '{source}'", error) from error
    raise UserError(f"No model at '{source}': it has no config.json.")


def _check_sizes(settings: Mapping[str, Any], source: str) -> None:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _check_sizes(value, source)
            continue
        numbers = [
            number
            for number in (value if isinstance(value, list) else [value])
            if isinstance(number, int | float)
        ]
        layers, wide = _LAYERS.search(key), _WIDTHS.search(key) and "vocab" not in key
        if (
            (layers and (sum(numbers) > _MOST_LAYERS or min(numbers, default=0) < 0))
            or (wide and max(map(abs, numbers), default=0) > _MOST_WIDE)
            or ((layers or wide) and len(numbers) > _MOST_LAYERS)
        ):
            raise UserError(
                f"'{source}' asks for a network of an impossible size ({key} in config.json), so "
                "nothing was built: check the file."
            )


def load_weights(
    auto_class: Any,
    source: str,
    revision: str | None = None,
    *,
    lacking: str | None = None,
    **settings: Any,
) -> tuple[Any, dict[str, Any]]:
    """Opens a model of transformers: safetensors alone, no code of its own, in float32.

    Args:
        auto_class: `AutoModel` or one of its kin.
        source: A folder or Hub id, as `zoo.resolve` gives it.
        revision: Branch, tag or commit on the Hub.
        lacking: How the sentence ends that refuses weights which are not there and would be
            random ("fine-tune it first"); None leaves that to the caller.
        **settings: More arguments of `from_pretrained`.

    Returns:
        The model, and transformers' account of keys that were missing or left over.

    Raises:
        UserError: Nothing there, no safetensors, damaged ones, weights that are no floating-point
            numbers or do not fit the settings, settings that no network can have, or code of its
            own.
        ServiceError: Network and server troubles.
    """
    read_config(source, revision)
    try:
        with no_progress_bars():
            model, info = auto_class.from_pretrained(
                source,
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **{"dtype": torch.float32, **settings},
            )
    except (OSError, SafetensorError, ImportError, *_UNBUILDABLE) as error:
        raise load_error(f"Cannot load '{source}'", error) from error
    _check_stored(source, getattr(model.config, "_commit_hash", None) or revision)
    if lacking is not None and info["missing_keys"]:
        raise UserError(
            f"'{source}' lacks weights ({sorted(info['missing_keys'])[0]}, ...), which would be "
            f"random: {lacking}."
        )
    return model, info


def _check_stored(source: str, revision: str | None) -> None:
    """Refuses weights that are integers or smaller: a cast would make other numbers of them."""
    for path in _weight_files(source, revision):
        with safe_open(path, "np") as file:
            for key in file.keys():
                kind = file.get_slice(key).get_dtype()
                if kind not in _STORED or (_WEIGHT.search(key) and kind in _INTEGERS):
                    raise UserError(
                        f"'{source}' stores {key} as {kind}, which is no floating-point number of "
                        "16 bits or more: get weights that are not quantised."
                    )


def _weight_files(source: str, revision: str | None) -> list[Path]:
    """The safetensors files of a model that was just loaded; asks no server."""
    if os.path.isdir(source):
        folder = Path(source)
    else:
        config = cached_file(source, "config.json", revision=revision, local_files_only=True)
        folder = Path(config or "").parent
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    return sorted({folder / name for name in json.loads(index.read_bytes())["weight_map"].values()})


def _load_native(source: str, revision: str | None) -> PreTrainedModel:
    model, info = load_weights(AutoModel, source, revision)
    kind = family(model)
    # What features do not depend on is set below. Heads are not ours to keep; anything else means
    # other weights than the config's.
    missing = [key for key in info["missing_keys"] if kind.is_used(key)]
    unexpected = [key for key in info["unexpected_keys"] if not _HEAD.search(key)]
    if missing or unexpected:
        raise UserError(
            f"The weights of '{source}' do not fit its config.json: missing {_some(missing)}, "
            f"left over {_some(unexpected)}; missing ones would be random, so nothing was loaded."
        )
    record = getattr(model.config, "rs_models", None) or {}
    kind.prepare(model, record.get("output_stride"))
    if os.path.isdir(source):
        model.config._name_or_path = ""  # networks over it would save where it lay
    return model.eval()


def _some(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return (
        f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else "none"
    )
