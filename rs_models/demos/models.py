"""Models of the Spaces, by name: what can be chosen, and what is loaded stays loaded."""

from __future__ import annotations

import os
import re
import shutil
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import backbones
from ..data.resize import resize_and_crop
from ..errors import ServiceError, UserError, hub_errors
from ..evaluation.features import Encoder
from ..evaluation.loading import load_encoder
from ..zoo import ZOO, method_of, namespace, pinned_revision, resolve
from .keeping import result_folder

VARIABLE = "RS_MODELS_DEMO_MODELS"
"""Names or folders of models, separated by commas: the choice of a Space in place of the zoo."""

MAX_MODEL_BYTES = 2 * 2**30
"""Bytes that a typed model may have on the Hub; a ViT-L has 1.2 GB."""

_DENSE_SIDE = 384
# Owner and name on the Hub, neither of which begins with a dot.
_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
# What transformers and timm read of a repository.
_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "model*.index.json")


def choices() -> list[str]:
    """Names that a Space offers, the default first.

    Those of `RS_MODELS_DEMO_MODELS` where it is set. Else the models of the zoo that are here or
    published; else, so that the page says what it waits for, all of them.
    """
    given = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    if given:
        return given
    ids = [model.repo_id for model in ZOO]
    local = [name for name in ids if Path(resolve(name)).is_dir()]
    published = [model.repo_id for model in ZOO if model.published]
    return list(dict.fromkeys(local + published)) or ids


def labelled(names: list[str]) -> list[tuple[str, str]]:
    """Short labels for a menu: (label, name). A run's `export` is called by its run."""
    labels = []
    for name in names:
        parts = [part for part in Path(name).parts if part not in ("export", "model", "/")]
        labels.append(name if name.startswith(f"{namespace()}/") else parts[-1] if parts else name)
    unique = [
        name if labels.count(label) > 1 else label
        for label, name in zip(labels, names, strict=True)
    ]
    return list(zip(unique, names, strict=True))


@lru_cache(maxsize=6)
def encoder(name: str) -> Encoder:
    """A frozen encoder of red, green and blue, loaded once.

    Args:
        name: One of `choices` or of our own, a Hub id, or a timm name. A folder is taken where
            `choices` names it, and never because a user types it.

    Raises:
        UserError: Nothing by that name, one that is too large or that learns from training images,
            or other bands.
        ServiceError: Network and server troubles.
    """
    name = str(name or "").strip()
    if not name:
        raise UserError("Choose a model first.")
    listed = name in choices() or name in [model.repo_id for model in ZOO]
    found = load_encoder(name) if listed else _from_hub(name)
    if not isinstance(found, Encoder):
        raise UserError(f"{name} learns from training images first: choose a model with weights.")
    if found.bands != ("red", "green", "blue"):
        raise UserError(
            f"{name} takes the bands {', '.join(found.bands)}; this page shows red, green, blue."
        )
    found.model.eval()
    return found


def _from_hub(name: str) -> Any:
    """An encoder that a user has typed, from the Hub alone; it leaves nothing on the disk."""
    if "/" not in name:
        name = f"{namespace() if method_of(name) else 'timm'}/{name}"
    if not _ID.fullmatch(name) or ".." in name:
        raise UserError(
            f"No model at '{name[:100]}': choose one of the list, or type a Hub id (owner/name)."
        )
    folder = result_folder()
    try:
        commit = _download(name, folder)
        found: Any = load_encoder(str(folder))
    except (UserError, ServiceError) as error:
        # Where the server keeps files is nobody's business.
        raise type(error)(str(error).replace(str(folder), name)) from error
    finally:
        shutil.rmtree(folder)
    found.name, found.revision = name, commit
    return found


def _download(repo_id: str, folder: Path) -> str:
    """The files of a model, into a folder, where they are not too many bytes; returns the commit.

    No token goes with it, so that a Space shows nobody what only its owner may read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi(token=False)
    with hub_errors(f"Reading {repo_id}"):
        try:
            info = api.model_info(repo_id, revision=pinned_revision(repo_id), files_metadata=True)
        except RepositoryNotFoundError as error:
            raise UserError(
                f"No model '{repo_id}' on the Hub that everybody may read: choose one of the list."
            ) from error
        sizes = {
            file.rfilename: file.size or 0
            for file in info.siblings or []
            if any(fnmatch(file.rfilename, pattern) for pattern in _FILES)
        }
        if not any(file.endswith(".safetensors") for file in sizes):
            raise UserError(f"{repo_id} has no weights as safetensors: choose another model.")
        if sum(sizes.values()) > MAX_MODEL_BYTES:
            raise UserError(
                f"{repo_id} has {sum(sizes.values()) / 2**30:.1f} GB; "
                f"{MAX_MODEL_BYTES / 2**30:.0f} GB are the most that this page loads."
            )
        api.snapshot_download(
            repo_id, revision=info.sha, local_dir=folder, allow_patterns=list(sizes)
        )
    return str(info.sha)


def batch(pictures: list[np.ndarray], side: int) -> Tensor:
    """Central squares (B, 3, side, side) uint8 of pictures (H, W, 3)."""
    squares = np.stack([resize_and_crop(picture, side) for picture in pictures])
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()


def features(model: Encoder, pictures: list[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
    """Pooled features (N, D) float32 of pictures (H, W, 3) uint8, at the model's train size."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            found.append(model(batch(part, model.train_size)).numpy())
    return np.concatenate(found)


def has_dense(model: Encoder) -> bool:
    """Whether its feature map can be read: native backbones of transformers."""
    return backbones.family_or_none(model.model) is not None


def dense(model: Encoder, picture: np.ndarray, *, side: int = _DENSE_SIDE) -> np.ndarray:
    """The last feature map of a picture's central square.

    Args:
        model: With a native backbone.
        picture: (H, W, 3) uint8.
        side: Pixels that the square is brought to.

    Returns:
        (D, h, w) float32.

    Raises:
        UserError: A model whose feature map is not known.
    """
    if not has_dense(model):
        raise UserError(
            f"{model.name} has no feature map that this page can read: choose a ResNet, Swin or "
            "ViT of transformers."
        )
    native: Any = model.model
    with torch.inference_mode():
        return backbones.dense(native, normalised(model, batch([picture], side)))[0].numpy()


def normalised(model: Encoder, images: Tensor) -> Tensor:
    """Stored images (B, C, H, W) as the model wants them, at their own size."""
    return model.preprocessing.network_input(images)
