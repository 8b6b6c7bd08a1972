"""A Hub for tests: what the real, unpatched clients ask of the Hugging Face Hub, on loopback.

It proves that our code drives the clients rightly, not how the live Hub behaves. LFS files go by
basic transfer (clients run with `HF_HUB_DISABLE_XET=1`) and are served from another origin, as from
a CDN. It is a process of its own; `HubServer` is its handle in the tests' process.

python -m tests.support.hub.server [--page-size 1000]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.hub.store import Blob, HubError, Repository, Store, front_matter, is_lfs, wait

ROOT = Path(__file__).resolve().parents[3]
# Token -> (user, organisations that the user may write to).
USERS = {
    "hf_owner_0123456789": ("owner", ["rs"]),
    "hf_reader_0123456789": ("reader", []),
    "hf_stranger_01234567": ("stranger", []),
}
TOKENS = {user: token for token, (user, _) in USERS.items()}
KINDS = {"": "models", "datasets/": "datasets", "spaces/": "spaces"}
MAX_PREUPLOAD = 256
FAULTS = ("status", "cut", "cut_after", "slow", "truncate", "checksum", "disk_full")
FAULTS += ("html", "redirect", "size")


@dataclass(frozen=True)
class Request:
    """One line of the request log."""

    method: str
    path: str  # raw, with its query
    user: str | None
    status: int  # 0 where the connection was cut
    fault: str | None = None


@dataclass
class Fault:
    """A switch: what happens to requests of a method whose raw path matches a pattern."""

    kind: str
    method: str = "GET"
    path: str = "."
    times: int = 1
    after: int = 0
    status: int = 503
    seconds: float = 1.0
    retry_after: int | None = None


class _Cut(Exception):
    """Ends a connection without an answer."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, page_size: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page_size = page_size
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        self.store = Store()
        self.log: list[Request] = []
        self.faults: list[Fault] = []

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The first switch that applies; each counts down on its own."""
        for fault in self.faults:
            if fault.method not in ("*", method) or not re.search(fault.path, path):
                continue
            if fault.after > 0:
                fault.after -= 1
            elif fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """The request log is kept by `_finish`."""

    # --- one request

    def _run(self) -> None:
        self.body = self._read_body()
        parts = urlsplit(self.path)
        self.raw, self.query = parts.path, parse_qs(parts.query, keep_blank_values=True)
        self.user: str | None = None
        self.fault: Fault | None = None
        if self.raw.startswith("/-/control/"):
            return self._control(self.raw.rpartition("/")[2])
        with self.server.lock:
            self.fault = self.server.fault_for(self.command, self.path)
        kind = self.fault.kind if self.fault else None
        try:
            if kind == "cut":
                raise _Cut
            if kind == "slow":
                wait(self.fault.seconds)
            if kind == "status":
                raise HubError(self.fault.status, None, "the server has a bad moment")
            if kind == "disk_full":
                raise HubError(507, None, "Insufficient storage: the server's disk is full")
            if kind == "html":
                page = b"<!doctype html><title>Log in</title>"
                return self._send(200, page, {"Content-Type": "text/html"})
            if kind == "redirect":
                return self._send(302, b"", {"Location": f"{self._origin()}{self.path}"})
            self.user = self._who()
            with self.server.lock:
                answer = self._route()
            if kind == "cut_after":
                raise _Cut
            answer()
        except HubError as error:
            self._send_error(error)
        except _Cut:
            self._note(0)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _run

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _note(self, status: int) -> None:
        kind = self.fault.kind if self.fault else None
        with self.server.lock:
            self.server.log.append(Request(self.command, self.path, self.user, status, kind))

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, log: bool = True) -> None:
        if log:
            self._note(status)
        kind = self.fault.kind if self.fault else None
        sent = body
        if kind == "checksum" and body:
            sent = bytes(byte ^ 0x55 for byte in body)
        if kind == "truncate":
            sent = body[: len(body) // 2]
            self.close_connection = True
        self.send_response(status)
        headers.setdefault("Content-Type", "application/json; charset=utf-8")
        headers.setdefault("Content-Length", str(len(body)))
        if kind == "size" and self.command == "HEAD":
            headers["Content-Length"] = str(len(body) + 7)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    def _send_error(self, error: HubError) -> None:
        headers = {"X-Error-Message": " ".join(error.text.split())}
        if error.code:
            headers["X-Error-Code"] = error.code
        if self.fault and self.fault.retry_after is not None:
            headers["Retry-After"] = str(self.fault.retry_after)
        body = {"error": error.text, **(error.body or {})}
        self._send(error.status, json.dumps(body).encode(), headers)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> Callable[[], None]:
        return lambda: self._send(200, json.dumps(value).encode(), dict(headers or {}))

    def _control(self, action: str) -> None:
        given = json.loads(self.body or b"null")
        with self.server.lock:
            answer: Any = None
            if action == "requests":
                answer = [asdict(request) for request in self.server.log]
            elif action == "forget":
                self.server.log.clear()
            elif action == "fail":
                self.server.faults.append(Fault(**given))
            elif action == "heal":
                self.server.faults.clear()
            elif action == "reset":
                self.server.reset()
        self._send(200, json.dumps(answer).encode(), {}, log=False)

    # --- who may do what

    def _who(self) -> str | None:
        header = self.headers.get("Authorization", "")
        if not header:
            return None
        token = header.removeprefix("Bearer ")
        if token not in USERS:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return USERS[token][0]

    def _orgs(self) -> list[str]:
        return next((orgs for user, orgs in USERS.values() if user == self.user), [])

    def _may_write(self, namespace: str) -> bool:
        return self.user is not None and namespace in (self.user, *self._orgs())

    def _repository(self, kind: str, repo_id: str, *, write: bool = False) -> Repository:
        repository = self.server.store.repositories.get((kind, repo_id))
        owns = self._may_write(repo_id.partition("/")[0])
        if repository is None or (repository.private and not owns):
            status = 404 if self.user else 401
            raise HubError(status, "RepoNotFound", "Repository not found")
        if write and not owns:
            if self.user is None:
                raise HubError(401, None, "Log in to write to this repository")
            raise HubError(403, None, f"Forbidden: {self.user} may not write to {repo_id}")
        return repository

    def _may_read_files(self, repository: Repository) -> None:
        owns = self._may_write(repository.id.partition("/")[0])
        if not repository.gated or owns or self.user in repository.granted:
            return
        text = f"Access to {repository.kind[:-1]} {repository.id} is restricted"
        raise HubError(403 if self.user else 401, "GatedRepo", text)

    # --- the routes

    def _route(self) -> Callable[[], None]:
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, self.raw)
            if match and self.command in method.split("|"):
                groups = {key: unquote(value or "") for key, value in match.groupdict().items()}
                return getattr(self, f"_on_{name}")(**groups)
        raise HubError(404, None, f"no such route: {self.command} {self.raw}")

    def _given(self) -> Any:
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise HubError(400, None, f"the body is not JSON: {error}") from error

    def _page(self, items: list[Any]) -> Callable[[], None]:
        """A page of a list, and where the next one is."""
        size = min(int(self.query.get("limit", ["1000000"])[0]), self.server.page_size)
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if start + size < len(items):
            kept = [(k, v) for k, vs in self.query.items() if k != "cursor" for v in vs]
            query = "&".join(f"{k}={quote(v, safe='')}" for k, v in kept)
            cursor = f"{query}&cursor={start + size}".lstrip("&")
            headers["Link"] = f'<{self._origin()}{self.raw}?{cursor}>; rel="next"'
        return self._json(items[start : start + size], headers)

    def _origin(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server.server_port}"

    def _on_whoami(self) -> Callable[[], None]:
        if self.user is None:
            raise HubError(401, None, "Invalid username or password.")
        orgs = [{"type": "org", "name": name} for name in self._orgs()]
        access = {"displayName": "tests", "role": "write"}
        user = {"type": "user", "name": self.user, "fullname": self.user, "orgs": orgs}
        return self._json({**user, "auth": {"type": "access_token", "accessToken": access}})

    def _on_create(self) -> Callable[[], None]:
        given = self._given()
        namespace = given.get("organization") or self.user
        if self.user is None:
            raise HubError(401, None, "Log in to create a repository")
        if not self._may_write(namespace):
            text = f'You don\'t have the rights to create under the namespace "{namespace}"'
            raise HubError(403, None, text)
        kind, repo_id = f"{given.get('type', 'model')}s", f"{namespace}/{given['name']}"
        if kind == "spaces" and not given.get("sdk"):
            raise HubError(400, None, "a Space needs an sdk")
        prefix = "" if kind == "models" else f"{kind}/"
        body = {"url": f"{self._origin()}/{prefix}{repo_id}", "name": repo_id, "id": repo_id}
        private = given.get("visibility") == "private" or bool(given.get("private"))
        try:
            self.server.store.create(
                kind, repo_id, self.user, private=private, sdk=given.get("sdk")
            )
        except HubError as error:
            error.body = body
            raise
        return self._json(body)

    def _on_delete(self) -> Callable[[], None]:
        given = self._given()
        repo_id = f"{given.get('organization') or self.user}/{given['name']}"
        repository = self._repository(f"{given.get('type', 'model')}s", repo_id, write=True)
        del self.server.store.repositories[repository.kind, repository.id]
        return self._json({})

    def _on_move(self) -> Callable[[], None]:
        given = self._given()
        kind = f"{given.get('type', 'model')}s"
        repository = self._repository(kind, given["fromRepo"], write=True)
        if not self._may_write(given["toRepo"].partition("/")[0]):
            raise HubError(403, None, "Forbidden")
        repositories = self.server.store.repositories
        if (kind, given["toRepo"]) in repositories:
            raise HubError(409, None, "The target exists")
        del repositories[kind, repository.id]
        repository.id = given["toRepo"]
        repositories[kind, repository.id] = repository
        return self._json({})

    def _on_settings(self, kind: str, id: str) -> Callable[[], None]:
        repository, given = self._repository(kind, id, write=True), self._given()
        if "visibility" in given or "private" in given:
            repository.private = given.get("visibility") == "private" or given.get("private", False)
        if "gated" in given:
            repository.gated = given["gated"]
        return self._json({"private": repository.private, "gated": repository.gated})

    def _on_validate_yaml(self) -> Callable[[], None]:
        try:
            front_matter(self._given()["content"])
        except HubError as error:
            raise HubError(400, None, error.text, {"errors": [{"message": error.text}]}) from error
        return self._json({"errors": [], "warnings": []})

    def _on_list(self, kind: str) -> Callable[[], None]:
        store, found = self.server.store, []
        wanted = {tag.lower() for tag in self.query.get("filter", [])}
        wanted |= {tag.lower() for tag in self.query.get("pipeline_tag", [])}
        author = self.query.get("author", [None])[0]
        search = self.query.get("search", [""])[0].lower()
        for repository in store.repositories.values():
            namespace = repository.id.partition("/")[0]
            hidden = repository.private and not self._may_write(namespace)
            if repository.kind != kind or hidden or author not in (None, namespace):
                continue
            commit = repository.at("main")
            tags = {tag.lower() for tag in store.tags(repository, commit)}
            if wanted <= tags and search in repository.id.lower():
                expand = self.query.get("expand", [])
                found.append(store.info(repository, commit, blobs=False, expand=expand))
        return self._page(found)

    def _on_info(self, kind: str, id: str, rev: str) -> Callable[[], None]:
        repository = self._repository(kind, id)
        commit = repository.at(rev or "main")
        blobs = bool(self.query.get("blobs"))
        expand = self.query.get("expand", [])
        info = self.server.store.info(repository, commit, blobs=blobs, expand=expand)
        return self._json(info, {"X-Repo-Commit": commit.sha})

    def _on_tree(self, kind: str, id: str, rev: str, path: str) -> Callable[[], None]:
        commit = self._repository(kind, id).at(rev)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{path}/" if path else ""
        entries: dict[str, Any] = {}
        for name, blob in sorted(commit.files.items()):
            if not name.startswith(prefix):
                continue
            *folders, _ = name.removeprefix(prefix).split("/")
            for depth in range(1, len(folders) + 1 if recursive else min(len(folders), 1) + 1):
                folder = prefix + "/".join(folders[:depth])
                oid = blob.oid[::-1]
                entries[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
            if recursive or not folders:
                entries[name] = _file(name, blob)
        if path and not entries:
            raise HubError(404, "EntryNotFound", f"{path} does not exist on {rev}")
        return self._page(list(entries.values()))

    def _on_paths_info(self, kind: str, id: str, rev: str) -> Callable[[], None]:
        commit = self._repository(kind, id).at(rev)
        paths = parse_qs(self.body.decode()).get("paths", [])
        return self._json(
            [_file(path, commit.files[path]) for path in paths if path in commit.files]
        )

    def _on_refs(self, kind: str, id: str) -> Callable[[], None]:
        repository = self._repository(kind, id)

        def told(refs: dict[str, str], where: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{where}/{name}", "targetCommit": sha}
                for name, sha in refs.items()
            ]

        answer = {
            "branches": told(repository.branches, "heads"),
            "tags": told(repository.tags, "tags"),
            "converts": [],
        }
        if self.query.get("include_prs"):
            numbered = {str(n): sha for n, sha in repository.pull_requests.items()}
            answer["pullRequests"] = told(numbered, "pr")
        return self._json(answer)

    def _on_commits(self, kind: str, id: str, rev: str) -> Callable[[], None]:
        return self._page(
            [
                {
                    "id": commit.sha,
                    "title": commit.title,
                    "message": commit.message,
                    "date": commit.date,
                    "authors": [{"user": commit.author}],
                }
                for commit in self._repository(kind, id).history(rev)
            ]
        )

    def _on_branch(self, kind: str, id: str, name: str) -> Callable[[], None]:
        repository = self._repository(kind, id, write=True)
        if self.command == "DELETE":
            if repository.branches.pop(name, None) is None:
                raise HubError(404, "RevisionNotFound", f"no branch {name}")
            return self._json({})
        if name in repository.branches:
            raise HubError(409, None, f"Branch {name} already exists")
        repository.branches[name] = repository.at(self._given().get("startingPoint") or "main").sha
        return self._json({})

    def _on_tag(self, kind: str, id: str, rev: str) -> Callable[[], None]:
        repository = self._repository(kind, id, write=True)
        if self.command == "DELETE":
            if repository.tags.pop(rev, None) is None:
                raise HubError(404, "RevisionNotFound", f"no tag {rev}")
            return self._json({})
        name = self._given()["tag"]
        if name in repository.tags:
            raise HubError(409, None, f"Tag reference exists already: {name}")
        repository.tags[name] = repository.at(rev).sha
        return self._json({})

    def _on_preupload(self, kind: str, id: str, rev: str) -> Callable[[], None]:
        repository = self._repository(kind, id, write=True)
        commit, files = repository.at(rev), self._given()["files"]
        if len(files) > MAX_PREUPLOAD:
            raise HubError(413, None, f"at most {MAX_PREUPLOAD} files a request")
        answer = []
        for file in files:
            sample = base64.b64decode(file.get("sample") or "")
            mode = "lfs" if is_lfs(file["path"], file["size"], sample) else "regular"
            entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            old = commit.files.get(file["path"])
            if old is not None:
                entry["oid"] = old.sha256 or old.oid
            answer.append(entry)
        return self._json({"files": answer})

    def _on_lfs_batch(self, prefix: str, id: str) -> Callable[[], None]:
        self._repository(KINDS[prefix], id, write=True)
        objects = []
        for item in self._given()["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server.store.blobs:
                href = f"{self._origin()}/-/lfs/{item['oid']}"
                verify = f"{self._origin()}/-/lfs/verify"
                entry["actions"] = {"upload": {"href": href}, "verify": {"href": verify}}
            objects.append(entry)
        return self._json({"transfer": "basic", "objects": objects})

    def _on_lfs_put(self, oid: str) -> Callable[[], None]:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, None, "the content does not have the announced sha256")
        self.server.store.keep_lfs(self.body)
        return self._json({})

    def _on_lfs_verify(self) -> Callable[[], None]:
        given, blobs = self._given(), self.server.store.blobs
        if len(blobs.get(given["oid"], b"")) != given["size"]:
            raise HubError(404, None, f"{given['oid']} is not stored in full")
        return self._json({})

    def _on_commit(self, kind: str, id: str, rev: str) -> Callable[[], None]:
        repository, store = self._repository(kind, id, write=True), self.server.store
        header: dict[str, Any] = {}
        changes: dict[str, Blob | None] = {}
        for line in self.body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                data = base64.b64decode(value["content"])
                if value["path"].endswith("README.md"):
                    front_matter(data.decode())
                changes[value["path"]] = store.keep(data)
            elif entry["key"] == "lfsFile":
                changes[value["path"]] = store.lfs_blob(value["oid"])
            elif entry["key"] == "deletedFile":
                changes[value["path"]] = None
            elif entry["key"] == "deletedFolder":
                changes[value["path"].rstrip("/") + "/"] = None
            else:
                raise HubError(400, None, f"unknown operation {entry['key']}")
        commit, number = store.commit(
            repository,
            rev,
            changes,
            title=header.get("summary", ""),
            message=header.get("description", ""),
            author=self.user or "",
            parent=header.get("parentCommit"),
            pull_request=bool(self.query.get("create_pr")),
        )
        prefix = "" if kind == "models" else f"{kind}/"
        url = f"{self._origin()}/{prefix}{id}"
        answer = {"success": True, "commitOid": commit.sha}
        answer["commitUrl"] = f"{url}/commit/{commit.sha}"
        if number is not None:
            answer["pullRequestUrl"] = f"{url}/discussions/{number}"
        return self._json(answer)

    def _on_resolve(self, prefix: str, id: str, rev: str, path: str) -> Callable[[], None]:
        repository = self._repository(KINDS[prefix], id)
        self._may_read_files(repository)
        commit = repository.at(rev)
        here = {"X-Repo-Commit": commit.sha}
        blob = commit.files.get(path)
        if blob is None:
            text = f"Entry not found: {path}"
            body = json.dumps({"error": text}).encode()
            errors = {"X-Error-Code": "EntryNotFound", "X-Error-Message": text}
            return lambda: self._send(404, body, here | errors)
        if blob.sha256 is None:
            return self._file(self.server.store.content(blob), here | {"ETag": f'"{blob.oid}"'})
        # Another origin, as a CDN is: clients must not send their token there.
        linked = {
            "Location": f"{self._origin('localhost')}/-/cdn/{blob.sha256}",
            "X-Linked-Etag": f'"{blob.sha256}"',
            "X-Linked-Size": str(blob.size),
            "ETag": f'"{blob.sha256}"',
        }
        return lambda: self._send(302, b"", here | linked)

    def _on_cdn(self, oid: str) -> Callable[[], None]:
        if self.headers.get("Authorization"):
            raise HubError(400, None, "a token was sent to the CDN")
        if oid not in self.server.store.blobs:
            raise HubError(404, None, "no such object")
        return self._file(self.server.store.blobs[oid], {"ETag": f'"{oid}"'})

    def _file(self, data: bytes, headers: dict[str, str]) -> Callable[[], None]:
        """A file or the range of it that was asked for."""
        headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not any(asked.groups()):
            return lambda: self._send(200, data, headers)
        first, last = asked.groups()
        start = int(first) if first else max(len(data) - int(last), 0)
        end = min(int(last) if first and last else len(data) - 1, len(data) - 1)
        if start > end:
            headers["Content-Range"] = f"bytes */{len(data)}"
            return lambda: self._send(416, b"", headers)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return lambda: self._send(206, data[start : end + 1], headers)

    def _on_auth_check(self, kind: str, id: str, write: str) -> Callable[[], None]:
        self._may_read_files(self._repository(kind, id, write=bool(write)))
        return self._json({})

    def _on_grant(self, kind: str, id: str) -> Callable[[], None]:
        self._repository(kind, id, write=True).granted.add(self._given()["user"])
        return self._json({})

    def _on_collections(self) -> Callable[[], None]:
        store = self.server.store
        if self.command == "GET":
            owner = self.query.get("owner", [None])[0]
            found = [
                collection
                for collection in store.collections.values()
                if owner in (None, collection["owner"]["name"])
            ]
            return self._page(found)
        given = self._given()
        if not self._may_write(given["namespace"]):
            raise HubError(403 if self.user else 401, None, "Forbidden")
        made = store.create_collection(
            given["namespace"], given["title"], bool(given.get("private")), given.get("description")
        )
        return self._json(made | {"position": 0})

    def _on_collection(self, slug: str) -> Callable[[], None]:
        collection = self.server.store.collection(slug)
        owns = self._may_write(collection["owner"]["name"])
        if self.command == "GET":
            if collection["private"] and not owns:
                raise HubError(404, None, "Collection not found")
            return self._json(collection | {"position": 0})
        if not owns:
            raise HubError(403 if self.user else 401, None, "Forbidden")
        if self.command == "DELETE":
            del self.server.store.collections[slug]
            return self._json({})
        given = self._given()
        collection |= {k: given[k] for k in ("title", "description", "private") if k in given}
        return self._json({"data": collection | {"position": 0}})

    def _on_collection_items(self, slug: str) -> Callable[[], None]:
        if not self._may_write(self.server.store.collection(slug)["owner"]["name"]):
            raise HubError(403 if self.user else 401, None, "Forbidden")
        given = self._given()
        made = self.server.store.add_item(slug, given["item"], given.get("note"))
        return self._json(made | {"position": 0})


def _file(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
    return entry


_REPO = r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_PAGE = r"/(?P<prefix>|datasets/|spaces/)(?P<id>[^/]+/[^/]+?)"
# Method(s), raw path, handler. A revision arrives quoted, so that "a/b" is one segment.
ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "delete"),
    ("POST", r"/api/repos/move", "move"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET|POST", r"/api/collections", "collections"),
    ("POST", r"/api/collections/(?P<slug>[^/]+/[^/]+)/items", "collection_items"),
    ("GET|PATCH|DELETE", r"/api/collections/(?P<slug>[^/]+/[^/]+)", "collection"),
    ("GET", r"/api/(?P<kind>models|datasets|spaces)", "list"),
    ("GET", _REPO + r"(?:/revision/(?P<rev>[^/]+))?", "info"),
    ("PUT", _REPO + r"/settings", "settings"),
    ("GET", _REPO + r"/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", "tree"),
    ("POST", _REPO + r"/paths-info/(?P<rev>[^/]+)", "paths_info"),
    ("GET", _REPO + r"/refs", "refs"),
    ("GET", _REPO + r"/commits/(?P<rev>[^/]+)", "commits"),
    ("POST|DELETE", _REPO + r"/branch/(?P<name>[^/]+)", "branch"),
    ("POST|DELETE", _REPO + r"/tag/(?P<rev>[^/]+)", "tag"),
    ("POST", _REPO + r"/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", _REPO + r"/commit/(?P<rev>[^/]+)", "commit"),
    ("GET", _REPO + r"/auth-check(?P<write>/write)?", "auth_check"),
    ("POST", _REPO + r"/user-access-request/grant", "grant"),
    ("POST", _PAGE + r"\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/-/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("POST", r"/-/lfs/verify", "lfs_verify"),
    ("GET|HEAD", r"/-/cdn/(?P<oid>[0-9a-f]{64})", "cdn"),
    ("GET|HEAD", _PAGE + r"/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
)


_FORBID = """import sys
class _Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError("forbidden here: " + name, name=name)
sys.meta_path.insert(0, _Forbidden())
"""


# --- the handle in the tests' process -------------------------------------------------------------


class HubServer:
    """A running server: its address, its request log, its fault switches, environments for clients.

    Attributes:
        url: Its address, on loopback.
        tokens: User ("owner", who may write to the organisation "rs"; "reader"; "stranger") ->
            token.
    """

    tokens = TOKENS

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    @contextmanager
    def start(cls, page_size: int = 1000) -> Iterator[HubServer]:
        """A server in a process of its own, for as long as the block lasts."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.hub.server", "--page-size", str(page_size)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield cls(int(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(10)

    def requests(self) -> list[Request]:
        """What was asked since the start or `forget`, in order."""
        return [Request(**entry) for entry in self._control("requests")]

    def forget(self) -> None:
        """Empties the request log."""
        self._control("forget")

    def fail(self, kind: str, method: str = "GET", path: str = ".", **settings: Any) -> None:
        """Turns a fault on for requests of a method ("*": any) whose raw path matches `path`.

        Kinds: `status` (answers `status`, with `retry_after` seconds), `cut` (closes the connection
        unheard), `cut_after` (does it, then closes), `slow` (`seconds` late), `truncate` (half of
        the body), `checksum` (right length, other bytes), `disk_full` (507), `html` (a page in
        place of what was asked for), `redirect` (to itself), `size` (announces another one). The
        first `after` matching requests are spared, the next `times` are hit.
        """
        assert kind in FAULTS, kind
        self._control("fail", {"kind": kind, "method": method, "path": path, **settings})

    def heal(self) -> None:
        """Turns all faults off."""
        self._control("heal")

    def reset(self) -> None:
        """Forgets everything."""
        self._control("reset")

    def env(
        self, home: Path, token: str | None = "owner", *, offline: bool = False
    ) -> dict[str, str]:
        """The environment of a client process that knows this Hub and no other.

        Args:
            home: Its `HF_HOME`.
            token: A user of `tokens`, a token itself, or None to be logged out.
            offline: Whether it is told that there is no network.
        """
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HF_", "HUGGING", "RS_MODELS_"))
        }
        kept |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            "RS_MODELS_CACHE": str(home / "rs_models"),
            "PYTHONPATH": str(ROOT),
        }
        if token is not None:
            kept["HF_TOKEN"] = self.tokens.get(token, token)
        if offline:
            kept["HF_HUB_OFFLINE"] = "1"
        return kept

    def python(
        self,
        code: str,
        home: Path,
        *arguments: str,
        token: str | None = "owner",
        offline: bool = False,
        forbid: Sequence[str] = ("rs_models",),
        check: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Runs code in a fresh client process, in which importing `forbid` fails."""
        guard = _FORBID.format(names=list(forbid)) if forbid else ""
        done = subprocess.run(
            [sys.executable, "-c", guard + code, *arguments],
            env=self.env(home, token, offline=offline) | environment,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr[-6000:]
        return done

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = "owner",
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """One plain HTTP request; the response, whose body is read already (`.body`)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response

    def _control(self, action: str, given: Any = None) -> Any:
        body = json.dumps(given).encode()
        return json.loads(self.ask("POST", f"/-/control/{action}", body, token=None).body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--page-size", type=int, default=1000)
    server = _Server(parser.parse_args().page_size)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
