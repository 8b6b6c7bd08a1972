"""What the Hub for tests keeps: repositories with commits, branches and tags; collections.

Commits never change, so whoever reads at a commit sees the same files for ever. All of it is in
memory and under one lock; the server process ends with the tests.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

LFS_PATTERNS = (".safetensors", ".bin", ".parquet", ".png", ".jpg", ".tif", ".npz", ".onnx")
LFS_BYTES = 10 * 2**20
_ATTRIBUTES = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LFS_PATTERNS)


class HubError(Exception):
    """An answer that is no success: status, `X-Error-Code` (or None), text."""

    def __init__(self, status: int, code: str | None, text: str, body: Any = None) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.body = status, code, text, body


@dataclass(frozen=True)
class Blob:
    """One version of a file; `sha256` only where it is kept by LFS."""

    size: int
    oid: str
    sha256: str | None = None


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    message: str
    date: str
    author: str
    files: dict[str, Blob]


@dataclass
class Repository:
    kind: str  # "models", "datasets" or "spaces"
    id: str
    owner: str
    private: bool = False
    gated: str | bool = False
    sdk: str | None = None
    created: str = ""
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[int, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    granted: set[str] = field(default_factory=set)

    def at(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request or (shortened) hash stands for."""
        numbered = revision.removeprefix("refs/pr/")
        if revision.startswith("refs/pr/") and numbered.isdigit():
            sha = self.pull_requests.get(int(numbered))
        else:
            sha = self.branches.get(revision) or self.tags.get(revision)
        if sha is None and len(revision) >= 7:
            sha = next((s for s in self.commits if s.startswith(revision)), None)
        if sha is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[sha]

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        found, commit = [], self.at(revision)
        while True:
            found.append(commit)
            if commit.parent is None:
                return found
            commit = self.commits[commit.parent]


class Store:
    """Everything that the server knows."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}  # by git blob hash, and by sha256 where kept by LFS
        self.collections: dict[str, dict[str, Any]] = {}
        self._ticks = 0

    def now(self) -> str:
        """A time that never stands still, so that orders are the same in every run."""
        self._ticks += 1
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(milliseconds=self._ticks)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    # --- repositories

    def create(self, kind: str, repo_id: str, owner: str, *, private: bool, sdk: str | None) -> Any:
        if (kind, repo_id) in self.repositories:
            raise HubError(409, None, f"You already created this {kind[:-1]} repo")
        repository = Repository(kind, repo_id, owner, private=private, sdk=sdk, created=self.now())
        self.repositories[kind, repo_id] = repository
        attributes = self.keep(_ATTRIBUTES.encode())
        self._write(repository, "main", None, {".gitattributes": attributes}, "initial commit", "")
        return repository

    def keep(self, data: bytes) -> Blob:
        """Stores the content of a regular file."""
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.blobs[oid] = data
        return Blob(len(data), oid)

    def keep_lfs(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return sha256

    def lfs_blob(self, sha256: str) -> Blob:
        """The pointer to an LFS object that is stored already."""
        if sha256 not in self.blobs:
            raise HubError(400, None, f"LFS object {sha256} is not stored: upload it first")
        size = len(self.blobs[sha256])
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        ).encode()
        oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
        return Blob(size, oid, sha256)

    def content(self, blob: Blob) -> bytes:
        return self.blobs[blob.sha256 or blob.oid]

    def commit(
        self,
        repository: Repository,
        revision: str,
        changes: dict[str, Blob | None],
        *,
        title: str,
        message: str,
        author: str,
        parent: str | None = None,
        pull_request: bool = False,
    ) -> tuple[Commit, int | None]:
        """All changes at once, or none: `None` deletes a file, or a folder where it ends in "/"."""
        base = repository.at(revision)
        if parent is not None and parent != base.sha:
            raise HubError(412, None, f"The parent commit {parent} is not the head of {revision}")
        if revision not in repository.branches and not pull_request:
            raise HubError(400, None, f"{revision} is not a branch")
        files = dict(base.files)
        for path, blob in changes.items():
            if blob is not None:
                files[path] = blob
            elif path.endswith("/"):
                files = {k: v for k, v in files.items() if not k.startswith(path)}
            elif path in files:
                del files[path]
            else:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
        if pull_request:
            number = len(repository.pull_requests) + 1
            made = self._new(repository, base.sha, files, title, message, author)
            repository.pull_requests[number] = made.sha
            return made, number
        if files == base.files:
            return base, None
        return self._write(repository, revision, base.sha, files, title, message, author), None

    def _write(
        self,
        repository: Repository,
        branch: str,
        parent: str | None,
        files: dict[str, Blob],
        title: str,
        message: str,
        author: str = "",
    ) -> Commit:
        commit = self._new(repository, parent, files, title, message, author)
        repository.branches[branch] = commit.sha
        return commit

    def _new(
        self,
        repository: Repository,
        parent: str | None,
        files: dict[str, Blob],
        title: str,
        message: str,
        author: str,
    ) -> Commit:
        date = self.now()
        tree = sorted((path, blob.oid) for path, blob in files.items())
        text = json.dumps([repository.kind, repository.id, parent, tree, title, date])
        sha = hashlib.sha1(text.encode()).hexdigest()
        commit = Commit(sha, parent, title, message, date, author or repository.owner, files)
        repository.commits[sha] = commit
        return commit

    # --- what can be read of a repository

    def card(self, commit: Commit) -> dict[str, Any]:
        """The front matter of README.md."""
        blob = commit.files.get("README.md")
        return front_matter(self.content(blob).decode()) if blob is not None else {}

    def config(self, commit: Commit) -> dict[str, Any]:
        blob = commit.files.get("config.json")
        return json.loads(self.content(blob)) if blob is not None else {}

    def eval_results(self, commit: Commit) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in sorted(commit.files):
            if path.startswith(".eval_results/") and path.endswith((".yaml", ".yml")):
                for entry in yaml.safe_load(self.content(commit.files[path])) or []:
                    found.append({"filename": path, "data": entry})
        return found

    def tags(self, repository: Repository, commit: Commit) -> list[str]:
        """What `filter=` is compared with."""
        card = self.card(commit)
        tags = list(card.get("tags") or [])
        tags += [card[key] for key in ("library_name", "pipeline_tag") if card.get(key)]
        if repository.kind == "models" and self.config(commit).get("model_type"):
            tags.append(self.config(commit)["model_type"])
        if any(path.endswith(".safetensors") for path in commit.files):
            tags.append("safetensors")
        for key, prefix in (
            ("license", "license"),
            ("datasets", "dataset"),
            ("base_model", "base_model"),
            ("task_categories", "task_categories"),
            ("size_categories", "size_categories"),
        ):
            values = card.get(key) or []
            values = values if isinstance(values, list) else [values]
            tags += [f"{prefix}:{value}" for value in values]
        return list(dict.fromkeys(map(str, tags)))

    def info(self, repository: Repository, commit: Commit, *, blobs: bool, expand: Any) -> Any:
        """One repository as the API tells it."""
        siblings = []
        for path, blob in sorted(commit.files.items()):
            entry: dict[str, Any] = {"rfilename": path}
            if blobs:
                entry |= {"size": blob.size, "blobId": blob.oid}
                if blob.sha256:
                    entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 130}
            siblings.append(entry)
        card = self.card(commit)
        answer: dict[str, Any] = {
            "id": repository.id,
            "_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24],
            "author": repository.id.partition("/")[0],
            "sha": commit.sha,
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "tags": self.tags(repository, commit),
            "lastModified": commit.date,
            "createdAt": repository.created,
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "cardData": card,
        }
        if repository.kind == "models":
            answer |= {"modelId": repository.id, "config": self.config(commit)}
            answer |= {k: card[k] for k in ("pipeline_tag", "library_name") if k in card}
            if "model-index" in card:
                answer["model-index"] = card["model-index"]
            if "evalResults" in expand:
                answer["evalResults"] = self.eval_results(commit)
        if repository.kind == "spaces":
            answer["sdk"] = repository.sdk or card.get("sdk")
        return answer

    # --- collections

    def collection(self, slug: str) -> dict[str, Any]:
        if slug not in self.collections:
            raise HubError(404, None, "Collection not found")
        return self.collections[slug]

    def create_collection(self, namespace: str, title: str, private: bool, text: Any) -> Any:
        name = "-".join(title.lower().split())
        mark = hashlib.sha1(f"{namespace}/{title}".encode()).hexdigest()[:24]
        slug = f"{namespace}/{name}-{mark}"
        if slug in self.collections:
            raise HubError(409, None, "This collection already exists", {"slug": slug})
        self.collections[slug] = {
            "slug": slug,
            "title": title,
            "description": text,
            "owner": {"name": namespace},
            "items": [],
            "lastUpdated": self.now(),
            "private": private,
            "theme": "blue",
            "upvotes": 0,
        }
        return self.collections[slug]

    def add_item(self, slug: str, item: dict[str, str], note: str | None) -> dict[str, Any]:
        collection = self.collection(slug)
        if any((i["id"], i["type"]) == (item["id"], item["type"]) for i in collection["items"]):
            raise HubError(409, None, "The item is in this collection already")
        if (f"{item['type']}s", item["id"]) not in self.repositories:
            raise HubError(404, "RepoNotFound", f"Repository not found: {item['id']}")
        collection["items"].append(
            {
                "_id": hashlib.sha1(f"{slug} {item}".encode()).hexdigest()[:24],
                "id": item["id"],
                "type": item["type"],
                "repoType": item["type"],
                "position": len(collection["items"]),
                "note": {"html": note, "text": note} if note else None,
            }
        )
        collection["lastUpdated"] = self.now()
        return collection


def front_matter(text: str) -> dict[str, Any]:
    """The YAML between the first two lines "---" of a card; empty without one.

    Raises:
        HubError: 400 where it is not a YAML mapping.
    """
    if not text.startswith("---"):
        return {}
    try:
        found = yaml.safe_load(text[3:].partition("\n---")[0])
    except yaml.YAMLError as error:
        raise HubError(400, None, f"Invalid YAML in README.md: {error}") from error
    if not isinstance(found, dict):
        raise HubError(400, None, "The metadata of README.md must be a mapping")
    return found


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether a file is kept by LFS: large, of a known kind, or binary."""
    return size > LFS_BYTES or path.endswith(LFS_PATTERNS) or b"\0" in sample


def wait(seconds: float) -> None:
    """For the switch that makes an answer slow."""
    time.sleep(seconds)
