"""Data sets of the Hub: whole or not at all, and every fault told in a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import ServiceError, UserError, http_error, hub_errors
from .hub_faults import again, not_found, sentence, status_of, told
from .names import missing_split, standard_split

_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})(.*)$")


class HubSource:
    """A data set of the Hub.

    Attributes:
        hub_id: "owner/name".
        config: Name of its configuration; None takes the only or default one.
        revision: Commit, tag or branch.
    """

    def __init__(self, hub_id: str, *, config: str | None = None, revision: str | None) -> None:
        """Nothing is asked yet."""
        self.hub_id, self.config, self.revision = hub_id, config, revision

    def open(self, split: str, *, streaming: bool) -> Any:
        """One split's rows.

        Args:
            split: Standard split name.
            streaming: Whether an iterable data set is wanted.

        Raises:
            UserError: A repository that does not exist, needs a script, has no Parquet files, lacks
                the split, or whose cached files are damaged.
            ServiceError: Network and server troubles.
        """
        info = _info(self.hub_id, self.revision)
        names = _files(self.hub_id, self.revision) if info is None else _names(info)
        if names is not None:
            _check_kind(self.hub_id, names)
        with told(self.hub_id):
            try:
                return self._open(split, streaming)  # the clients try files again themselves
            except ConnectionError as error:
                # `datasets` was never asked for this set before, or the network is gone.
                snapshot = None if info is not None else _snapshot(self.hub_id, self.revision)
                if snapshot is None:
                    raise self._unreachable(error, online=info is not None) from error
        from .local import LocalSource

        _check_whole(snapshot, self.hub_id)
        return LocalSource(snapshot).open(standard_split(split), bands=None, streaming=streaming)

    def column(self, split: str, name: str) -> tuple[Any, Any]:
        """Feature and stored values of a column of a split; (None, None) where there is none."""
        rows = self.open(split, streaming=False)
        if name not in rows.features:
            return None, None
        return rows.features[name], rows.data.column(name)

    @property
    def splits(self) -> list[str]:
        """Standard names of the splits that there are.

        Raises:
            UserError: As for `open`.
            ServiceError: As for `open`.
        """
        if _info(self.hub_id, self.revision) is None:
            snapshot = _snapshot(self.hub_id, self.revision)
            if snapshot is not None:
                from .local import LocalSource

                return LocalSource(snapshot).splits
        with told(self.hub_id):
            try:
                names = self._split_names()
            except ConnectionError as error:
                raise self._unreachable(error, online=False) from error
        return list(dict.fromkeys(standard_split(name) for name in names))

    def _open(self, split: str, streaming: bool) -> Any:
        from datasets import load_dataset

        more = {} if self.config is None else {"name": self.config}
        try:
            return load_dataset(
                self.hub_id, split=split, revision=self.revision, streaming=streaming, **more
            )
        except ValueError as error:
            if isinstance(error, UnicodeError) or "split" not in str(error).lower():
                raise
            there = self._split_names()
            same = [name for name in there if standard_split(name) == standard_split(split)]
            if split in there:
                raise
            if not same:
                raise missing_split(split, there, self.hub_id) from error
        parts = [
            load_dataset(
                self.hub_id, split=name, revision=self.revision, streaming=streaming, **more
            )
            for name in same
        ]
        if len(parts) == 1:
            return parts[0]
        from datasets import concatenate_datasets

        return concatenate_datasets(parts)

    def _split_names(self) -> list[str]:
        from datasets import get_dataset_split_names

        more = {} if self.config is None else {"config_name": self.config}
        return get_dataset_split_names(self.hub_id, revision=self.revision, **more)

    def _unreachable(self, error: Exception, *, online: bool) -> Exception:
        from huggingface_hub import is_offline_mode

        if is_offline_mode():
            return UserError(
                f"The Hub data set {self.hub_id} is not in the local cache, and HF_HUB_OFFLINE is "
                "set: unset it, or give a local folder."
            )
        where = "" if online else " and is not in the local cache"
        return ServiceError(
            f"The Hub data set {self.hub_id} cannot be fetched{where}: the connection failed "
            f"({type(error).__name__}); check the network and HF_ENDPOINT, then run this again."
        )


def commit(hub_id: str, revision: str | None) -> str | None:
    """The commit that a revision (default: the main branch) stands for.

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


def _check_kind(hub_id: str, names: list[str]) -> None:
    if any(name.endswith(".parquet") for name in names):
        return
    script = f"{hub_id.split('/')[-1]}.py"
    kind = f"needs its script {script}" if script in names else "holds no Parquet files"
    raise UserError(
        f"The Hub data set {hub_id} {kind}, which is not supported: try "
        "revision='refs/convert/parquet' (the Hub's own conversion), or download it and give "
        "its folder."
    )


def _snapshot(hub_id: str, revision: str | None) -> Path | None:
    """The downloaded files of a data set that `datasets` itself has never opened.

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


def _check_whole(snapshot: Path, hub_id: str) -> None:
    """Refuses a part of a data set, as a broken-off download leaves in the cache.

    Without the Hub, its names (`-00000-of-00003`) and its card's counts of rows say what belongs to
    it.

    Raises:
        UserError: Shards or rows that are not there.
    """
    import pyarrow.parquet as pq
    import yaml

    mend = (
        f"fetch the rest with `hf download --repo-type dataset {hub_id}` where there is a network."
    )
    files = sorted(snapshot.rglob("*.parquet"))
    shards: dict[tuple[str, int], set[int]] = {}
    for file in files:
        match = _SHARD.match(file.relative_to(snapshot).as_posix())
        if match:
            shards.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (name, total), numbers in shards.items():
        if len(numbers) < total:
            raise UserError(
                f"The local cache holds {len(numbers)} of the {total} files {name}-*.parquet of "
                f"the Hub data set {hub_id}: {mend}"
            )
    readme = snapshot / "README.md"
    if not readme.is_file():
        return
    front = readme.read_text(encoding="utf-8", errors="replace").split("---\n")
    try:
        card = yaml.safe_load(front[1]) if len(front) > 2 else None
    except yaml.YAMLError:
        return
    infos = card.get("dataset_info") if isinstance(card, dict) else None
    if not isinstance(infos, dict) or not isinstance(infos.get("splits"), list):
        return
    expected = sum(int(split.get("num_examples") or 0) for split in infos["splits"])
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    if rows < expected:
        raise UserError(
            f"The local cache holds {rows} of the {expected} rows of the Hub data set {hub_id}: "
            f"{mend}"
        )


def _names(info: Any) -> list[str]:
    return [sibling.rfilename for sibling in info.siblings or []]


def _files(hub_id: str, revision: str | None) -> list[str] | None:
    """The repository's file names; None without a network."""
    info = _info(hub_id, revision)
    return None if info is None else _names(info)


def _info(hub_id: str, revision: str | None) -> Any:
    """What the Hub says of a repository; None without a network.

    Raises:
        UserError: There is no such repository or revision, or it may not be read.
        ServiceError: A server that is there and answers with nonsense or a fault.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return again(lambda: HfApi().dataset_info(hub_id, revision=revision))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(not_found(hub_id, revision)) from error
    except (OfflineModeIsEnabled, ConnectionError, TimeoutError):
        return None
    except (HfHubHTTPError, http_error()) as error:
        if status_of(error)[0] is None:
            return None
        with hub_errors(f"Loading the Hub data set {hub_id}"):
            raise
    except ValueError as error:  # HTML in place of JSON, an id that is none
        raise sentence(hub_id, error) from error
    except OSError:
        return None
