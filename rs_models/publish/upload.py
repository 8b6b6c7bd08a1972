"""Publishing a folder to the Hub, so that no reader ever sees half of it.

A repository gets everything in one commit; the tag follows, then the collection. What is there
already is not done again, so a push that was interrupted anywhere is completed by the same command.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, hub_errors

RepoType = Literal["model", "dataset", "space"]
# Never part of a repository, wherever they lie.
_IGNORED = {".git", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store"}
# The server's own; a staged folder does not have it.
_KEPT = {".gitattributes"}
AGAIN = "Nothing half-published can be seen; running the same command again completes it."


@dataclass(frozen=True)
class Change:
    """One file of a push.

    Attributes:
        path: In the repository.
        size: In bytes.
        state: What the push does with it: "new", "changed", "same" or "removed".
    """

    path: str
    size: int
    state: str


@dataclass(frozen=True)
class Plan:
    """What a push would do.

    Attributes:
        repo_id: "<org>/<name>".
        repo_type: "model", "dataset" or "space".
        endpoint: Address of the Hub.
        user: Whose token it is; None where nobody is logged in and the Hub was not looked at.
        private: Whether the repository is private; None where it does not exist and the Hub's
            default holds.
        head: Newest commit of the main branch; None where there is no repository yet.
        changes: Files, by path.
        tag: The version; None without one.
        tagged: The commit that the tag stands at already.
    """

    repo_id: str
    repo_type: RepoType
    endpoint: str
    user: str | None
    private: bool | None
    head: str | None
    changes: tuple[Change, ...]
    tag: str | None = None
    tagged: str | None = None

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit; a version that is tagged already is published."""
        return self.tagged is None and any(change.state != "same" for change in self.changes)

    def text(self) -> str:
        """The plan for people: target, files with sizes and states."""
        visibility = {None: "the namespace's default visibility", True: "private", False: "public"}
        exists = "exists" if self.head else "will be created"
        login = f"as {self.user}"
        if self.user is None:
            exists, login = "not looked at", "not logged in: `hf auth login` before the push"
        lines = [
            f"{self.repo_type} {self.repo_id} ({exists}, {visibility[self.private]})",
            f"endpoint {self.endpoint}, {login}",
        ]
        lines += [
            f"  {change.state:<8} {_size(change.size):>9}  {change.path}" for change in self.changes
        ]
        counts = Counter(change.state for change in self.changes)
        total = sum(c.size for c in self.changes if c.state in ("new", "changed"))
        lines.append(
            ", ".join(f"{count} {state}" for state, count in counts.items())
            + f"; {_size(total)} to send"
        )
        if self.tag:
            lines.append(f"tag {self.tag}" + (" (there already)" if self.tagged else ""))
        return "\n".join(lines)


@dataclass(frozen=True)
class Published:
    """What a push did.

    Attributes:
        repo_id: "<org>/<name>".
        url: Page of the repository, or of the pull request.
        commit: Commit that holds the files.
        tag: Tag that names it; None without one.
        changed: Whether a commit was made.
    """

    repo_id: str
    url: str
    commit: str
    tag: str | None
    changed: bool


def plan(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    tag: str | None = None,
    private: bool | None = None,
    preview: bool = False,
) -> Plan:
    """Compares a folder with its repository; sends nothing.

    Args:
        folder: Everything that the repository should hold.
        repo_id: "<org>/<name>".
        repo_type: "model", "dataset" or "space".
        tag: Version to name the commit by.
        private: Visibility of a new repository; None is the namespace's default.
        preview: Without a login, plan for a new repository in place of refusing.

    Returns:
        The plan.

    Raises:
        UserError: Not logged in, a namespace that the token may not write to, another visibility
            than asked for, a tag that names other content, an empty folder, a file that holds a
            token.
        ServiceError: Network and server troubles.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    local = _local_files(Path(folder))
    if preview and get_token() is None:
        changes = tuple(_changes(local, {}))
        return Plan(repo_id, repo_type, constants.ENDPOINT, None, private, None, changes, tag)
    api = HfApi()
    with hub_errors(f"Looking at {repo_id}"):
        user, orgs = _who(api)
        namespace = repo_id.partition("/")[0]
        if namespace not in (user, *orgs):
            raise UserError(
                f"The token belongs to {user}, who may publish under {', '.join([user, *orgs])}, "
                f"not under {namespace!r}: choose with --namespace or RS_MODELS_NAMESPACE."
            )
        try:
            info = api.repo_info(repo_id, repo_type=repo_type)
        except RepositoryNotFoundError:
            info = None
        remote = _remote_files(api, repo_id, repo_type, str(info.sha)) if info else {}
        tagged = None
        if info and tag:
            refs = api.list_repo_refs(repo_id, repo_type=repo_type)
            tagged = next((ref.target_commit for ref in refs.tags if ref.name == tag), None)
            if tagged and not _equal(local, _remote_files(api, repo_id, repo_type, tagged)):
                free = _next_tag(tag, {ref.name for ref in refs.tags})
                raise UserError(
                    f"{repo_id} has the tag {tag} for other content, and a published version "
                    f"never changes: push this one as --tag {free}."
                )
    if info and private is not None and bool(info.private) != private:
        there = "private" if info.private else "public"
        raise UserError(
            f"{repo_id} exists and is {there}: push without asking for another visibility, or "
            "change it in the repository's settings first."
        )
    return Plan(
        repo_id=repo_id,
        repo_type=repo_type,
        endpoint=constants.ENDPOINT,
        user=user,
        private=bool(info.private) if info else private,
        head=info.sha if info else None,
        changes=tuple(_changes(local, remote)),
        tag=tag,
        tagged=tagged,
    )


def publish(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    tag: str | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    collection: str | None = None,
    message: str | None = None,
    space_sdk: str | None = None,
) -> Published:
    """Makes a repository hold exactly what a folder holds.

    Args:
        folder: Everything that the repository should hold.
        repo_id: "<org>/<name>".
        repo_type: "model", "dataset" or "space".
        tag: Version to name the commit by.
        private: Visibility of a new repository; None is the namespace's default.
        create_pr: Propose the change to an existing repository instead of making it; no tag, no
            collection.
        collection: Title of a collection of the namespace that gets the repository; made where
            there is none.
        message: Message of the commit.
        space_sdk: SDK of a new Space, "gradio".

    Returns:
        What was done.

    Raises:
        UserError: As `plan`, and a pull request for a repository that does not exist.
        ServiceError: Network and server troubles, or a push of somebody else at the same time.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    found = plan(
        folder, repo_id, repo_type=repo_type, tag=None if create_pr else tag, private=private
    )
    if create_pr and found.head is None:
        raise UserError(f"There is no {repo_id} to propose a change to: push it without a request.")
    api = HfApi()
    with hub_errors(f"Publishing {repo_id}", afterwards=AGAIN):
        head = found.head
        if head is None:
            api.create_repo(
                repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=space_sdk
            )
            head = api.repo_info(repo_id, repo_type=repo_type).sha
        commit, url = found.tagged or head, f"{found.endpoint}/{_prefix(repo_type)}{repo_id}"
        if found.changed:
            operations: list[Any] = [
                CommitOperationDelete(change.path)
                if change.state == "removed"
                else CommitOperationAdd(change.path, Path(folder) / change.path)
                for change in found.changes
                if change.state != "same"
            ]
            made = api.create_commit(
                repo_id,
                operations,
                commit_message=message or f"Publish {tag or 'by rs_models'}",
                repo_type=repo_type,
                parent_commit=head,
                create_pr=create_pr,
            )
            commit, url = made.oid, (made.pr_url or url)
        if tag and not create_pr and found.tagged is None:
            api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type)
        if collection and not create_pr:
            namespace = repo_id.partition("/")[0]
            slug = api.create_collection(collection, namespace=namespace, exists_ok=True).slug
            api.add_collection_item(slug, repo_id, repo_type, exists_ok=True)
    return Published(repo_id, url, str(commit), None if create_pr else tag, found.changed)


def _who(api: Any) -> tuple[str, list[str]]:
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError("Publishing needs a login: run `hf auth login`, or set HF_TOKEN.")
    answer = api.whoami()
    return answer["name"], [org["name"] for org in answer.get("orgs", [])]


def _local_files(folder: Path) -> dict[str, tuple[int, str, str]]:
    """Path -> (size, git hash, sha256) of everything to publish."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} to publish.")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not _IGNORED & set(name.parts):
            files[name.as_posix()] = _hashes(path)
    if not files:
        raise UserError(f"{folder} holds no files to publish.")
    _refuse_secrets(folder, files)
    return files


def _hashes(path: Path) -> tuple[int, str, str]:
    size = path.stat().st_size
    git, sha256 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), hashlib.sha256()
    for block in _blocks(path):
        git.update(block)
        sha256.update(block)
    return size, git.hexdigest(), sha256.hexdigest()


def _blocks(path: Path, size: int = 2**22) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def _refuse_secrets(folder: Path, files: dict[str, Any]) -> None:
    """Tokens must not travel with a repository, whoever put them there."""
    import re

    from huggingface_hub import get_token

    token = get_token()
    known = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
    for name, (size, *_) in files.items():
        if Path(name).name.startswith(".env"):
            raise UserError(f"{folder / name} may hold secrets: move it out of the folder.")
        if size > 2**20:
            continue
        content = (folder / name).read_bytes()
        if known.search(content) or (token and token.encode() in content):
            raise UserError(f"{folder / name} holds an access token: remove it from the file.")


def _remote_files(
    api: Any, repo_id: str, repo_type: RepoType, revision: str
) -> dict[str, tuple[int, str, str]]:
    """Path -> (size, git hash or "", sha256 or "") of what a repository holds."""
    from huggingface_hub.hf_api import RepoFile

    files = {}
    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=repo_type)
    for entry in entries:
        if isinstance(entry, RepoFile) and entry.path not in _KEPT:
            sha256 = entry.lfs.sha256 if entry.lfs else ""
            files[entry.path] = (entry.size, "" if sha256 else entry.blob_id, sha256)
    return files


def _same(one: tuple[int, str, str], two: tuple[int, str, str]) -> bool:
    """Whether two files have a hash in common; a remote one tells only one kind."""
    return (one[1] == two[1] != "") or (one[2] == two[2] != "")


def _equal(local: dict[str, Any], remote: dict[str, Any]) -> bool:
    return local.keys() == remote.keys() and all(_same(local[key], remote[key]) for key in local)


def _changes(local: dict[str, Any], remote: dict[str, Any]) -> Iterator[Change]:
    for path, file in local.items():
        if path not in remote:
            yield Change(path, file[0], "new")
        else:
            yield Change(path, file[0], "same" if _same(file, remote[path]) else "changed")
    for path in sorted(remote.keys() - local.keys()):
        yield Change(path, remote[path][0], "removed")


def _next_tag(tag: str, taken: set[str]) -> str:
    """The next free version behind v1, v2, ... or v0.1.0-2, ..."""
    stem, number = (tag, 2) if not tag.removeprefix("v").isdigit() else ("v", int(tag[1:]) + 1)
    while (free := f"{stem}{number}" if stem == "v" else f"{stem}-{number}") in taken:
        number += 1
    return free


def _prefix(repo_type: RepoType) -> str:
    return "" if repo_type == "model" else f"{repo_type}s/"


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]  # shown, not counted with
    return f"{count:.1f} GB"
