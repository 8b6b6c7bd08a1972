"""Data sets on the Hugging Face Hub: Parquet only, at a known commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError, http_error
from .names import missing_split


def open_hub(hub_id: str, split: str, *, revision: str | None, streaming: bool) -> Any:
    """Open one split of a Hub data set.

    Args:
        hub_id: "owner/name".
        split: standard split name.
        revision: commit, tag or branch.
        streaming: give an iterable data set.

    Raises:
        UserError: for a repository that does not exist, needs a script, has no Parquet files, or
            lacks the split.
    """
    from datasets import get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    files = _files(hub_id, revision)
    if files is not None and not any(name.endswith(".parquet") for name in files):
        script = f"{hub_id.split('/')[-1]}.py"
        kind = f"needs its script {script}" if script in files else "holds no Parquet files"
        raise UserError(
            f"The Hub data set {hub_id} {kind}, which is not supported: try "
            "revision='refs/convert/parquet' (the Hub's own conversion), or download it and give "
            "its folder."
        )
    try:
        return load_dataset(hub_id, split=split, revision=revision, streaming=streaming)
    except DatasetNotFoundError as error:
        raise UserError(_not_found(hub_id, revision)) from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"The Hub data set {hub_id} needs a script, which is not supported: try "
            "revision='refs/convert/parquet'."
        ) from error
    except ConnectionError as error:
        snapshot = _snapshot(hub_id, revision)
        if snapshot is not None:
            from . import local

            return local.open_path(snapshot, split, bands=None, streaming=streaming)
        raise UserError(
            f"The Hub data set {hub_id} cannot be reached and is not in the local cache: check "
            f"the network ({type(error).__name__}), or give a local folder."
        ) from error
    except ValueError as error:
        if "split" not in str(error):
            raise
        there = get_dataset_split_names(hub_id, revision=revision)
        if split in there:
            raise
        raise missing_split(split, there, hub_id) from error


def commit(hub_id: str, revision: str | None) -> str | None:
    """Return the commit that ``revision`` (default: the main branch) stands for.

    Without a network the local cache is asked; None when it does not know either.
    """
    if revision and len(revision) == 40:
        return revision
    info = _info(hub_id, revision)
    if info is not None:
        return info.sha
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{hub_id.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    return ref.read_text().strip() if ref.exists() else None


def _snapshot(hub_id: str, revision: str | None) -> Path | None:
    """Return the downloaded files of a data set that `datasets` itself has never opened.

    Such are caches copied to a machine without network, and `hf download --repo-type dataset`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(hub_id, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return None


def _files(hub_id: str, revision: str | None) -> list[str] | None:
    """Return the repository's file names; None without a network."""
    info = _info(hub_id, revision)
    return None if info is None else [sibling.rfilename for sibling in info.siblings or []]


def _info(hub_id: str, revision: str | None) -> Any:
    """Ask the Hub about a repository; None without a network.

    Raises:
        UserError: when the Hub answers that there is no such repository or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().dataset_info(hub_id, revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(_not_found(hub_id, revision)) from error
    except (OfflineModeIsEnabled, HfHubHTTPError, http_error(), OSError):
        return None


def _not_found(hub_id: str, revision: str | None) -> str:
    at = f" at revision {revision!r}" if revision else ""
    return (
        f"The Hub has no data set {hub_id}{at} that you may read: check the spelling, or log in "
        "with `hf auth login` if it is private."
    )
