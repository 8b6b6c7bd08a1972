"""A folder laid out like the Hub, for machines without a network: `RS_MODELS_HUB_DIR`."""

from __future__ import annotations

import os
from pathlib import Path


def local_repository(repo_id: str, *, datasets: bool = False) -> Path | None:
    """Where a Hub repository lies in the local hub folder.

    Args:
        repo_id: "<org>/<name>".
        datasets: Of a data set, which may also lie under `datasets/`, as in the Hub's addresses.

    Returns:
        `RS_MODELS_HUB_DIR/<org>/<name>` where that is a folder; None without one or without the
        setting.
    """
    root = os.environ.get("RS_MODELS_HUB_DIR")
    if not root or repo_id.count("/") != 1:
        return None
    places = (f"datasets/{repo_id}", repo_id) if datasets else (repo_id,)
    folders = (Path(root).expanduser() / place for place in places)
    return next((folder for folder in folders if folder.is_dir()), None)
