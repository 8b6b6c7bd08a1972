"""What of the Hub lies on this machine: the folder `RS_MODELS_HUB_DIR`, and the clients' cache."""

from __future__ import annotations

import os
from pathlib import Path

# Small models travel with the source tree, laid out as on the Hub.
CLONE = Path(__file__).resolve().parent.parent / "hub"


def local_repository(repo_id: str, *, datasets: bool = False) -> Path | None:
    """Where a Hub repository lies in the local hub folder.

    Args:
        repo_id: "<org>/<name>".
        datasets: Of a data set, which may also lie under `datasets/`, as in the Hub's addresses.

    Returns:
        `RS_MODELS_HUB_DIR/<org>/<name>` where that is a folder, else `hub/<org>/<name>` of the
        clone that this package runs from; None where neither is there.
    """
    if repo_id.count("/") != 1:
        return None
    places = (f"datasets/{repo_id}", repo_id) if datasets else (repo_id,)
    root = os.environ.get("RS_MODELS_HUB_DIR")
    roots = [Path(root).expanduser()] if root else []
    folders = (here / place for here in (*roots, CLONE) for place in places)
    return next((folder for folder in folders if folder.is_dir()), None)


def cached_commit(repo_id: str, revision: str | None = None) -> str | None:
    """The commit that a model was just loaded at, by the clients' cache; asks no server.

    Args:
        repo_id: "<org>/<name>".
        revision: That was asked for.

    Returns:
        40 hex digits; None for what is not in the cache.
    """
    from huggingface_hub import try_to_load_from_cache

    if repo_id.count("/") != 1 or Path(repo_id).is_dir():
        return None
    path = try_to_load_from_cache(repo_id, "config.json", revision=revision or "main")
    return Path(path).parent.name if isinstance(path, str) else None
