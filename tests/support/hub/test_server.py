"""The Hub for tests, asked in plain HTTP: what the clients rely on."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json

import pytest

from tests.support.hub.server import HubServer

CARD = b"---\nlicense: apache-2.0\nlibrary_name: transformers\ntags:\n- aerial\n---\n# Card\n"
WEIGHTS = b"\0\1\2weights" * 100
SHA = hashlib.sha256(WEIGHTS).hexdigest()


def create(hub, name="tiny", kind="model", **more):
    body = {"name": name, "organization": "rs", "type": kind, "visibility": "public", **more}
    return hub.ask("POST", "/api/repos/create", json.dumps(body).encode())


def commit(hub, lines, path="/api/models/rs/tiny/commit/main", header=None, token="owner"):
    entries = [{"key": "header", "value": {"summary": "change", **(header or {})}}, *lines]
    body = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    return hub.ask("POST", path, body, token=token)


def regular(path, data):
    content = base64.b64encode(data).decode()
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}


def lfs(path, sha=SHA):
    value = {"path": path, "algo": "sha256", "oid": sha, "size": len(WEIGHTS)}
    return {"key": "lfsFile", "value": value}


def put(hub, data=WEIGHTS, sha=SHA):
    return hub.ask("PUT", f"/-/lfs/{sha}", data, token=None)


def told(response):
    return json.loads(response.body)


def info(hub, path="/api/models/rs/tiny", token="owner"):
    return told(hub.ask("GET", path, token=token))


@pytest.fixture
def filled(hub):
    """A model with a card and a file kept by LFS."""
    create(hub)
    put(hub)
    assert commit(hub, [regular("README.md", CARD), lfs("model.safetensors")]).status == 200
    return hub


def test_who_am_i(hub):
    answer = told(hub.ask("GET", "/api/whoami-v2"))
    assert (answer["name"], answer["orgs"][0]["name"]) == ("owner", "rs")
    assert answer["auth"]["accessToken"]["role"] == "write"
    assert hub.ask("GET", "/api/whoami-v2", token=None).status == 401
    wrong = hub.ask("GET", "/api/whoami-v2", token="hf_wrong")
    assert wrong.status == 401
    assert wrong.getheader("X-Error-Message") == "Invalid credentials in Authorization header"


def test_a_repository_is_created_once_and_only_by_who_may(hub):
    made = create(hub)
    assert (made.status, told(made)["id"]) == (200, "rs/tiny")
    again = create(hub)
    assert (again.status, told(again)["url"]) == (409, f"{hub.url}/rs/tiny")
    body = json.dumps({"name": "x", "organization": "rs", "type": "model"}).encode()
    assert hub.ask("POST", "/api/repos/create", body, token="stranger").status == 403
    assert hub.ask("POST", "/api/repos/create", body, token=None).status == 401
    assert create(hub, "demo", "space").status == 400
    assert told(create(hub, "demo", "space", sdk="gradio"))["url"].endswith("/spaces/rs/demo")
    assert list(told(hub.ask("GET", "/api/models/rs/tiny/tree/main"))[0]) == [
        *("type", "path", "size", "oid")
    ]


def test_absent_private_and_gated_repositories_are_told_apart_by_headers(filled):
    path = "/api/models/rs/nowhere"
    for token, status in ((None, 401), ("reader", 404)):
        answer = filled.ask("GET", path, token=token)
        assert (answer.status, answer.getheader("X-Error-Code")) == (status, "RepoNotFound")
    change = json.dumps({"visibility": "private"}).encode()
    assert filled.ask("PUT", "/api/models/rs/tiny/settings", change).status == 200
    for token, status in ((None, 401), ("reader", 404), ("owner", 200)):
        assert filled.ask("GET", "/api/models/rs/tiny", token=token).status == status
    assert told(filled.ask("GET", "/api/models", token="reader")) == []
    change = json.dumps({"visibility": "public", "gated": "auto"}).encode()
    filled.ask("PUT", "/api/models/rs/tiny/settings", change)
    assert info(filled, token=None)["gated"] == "auto"
    file = "/rs/tiny/resolve/main/README.md"
    for token, status in ((None, 401), ("reader", 403)):
        answer = filled.ask("HEAD", file, token=token)
        assert (answer.status, answer.getheader("X-Error-Code")) == (status, "GatedRepo")
        assert filled.ask("GET", "/api/models/rs/tiny/auth-check", token=token).status == status
    grant = json.dumps({"user": "reader"}).encode()
    path = "/api/models/rs/tiny/user-access-request/grant"
    assert filled.ask("POST", path, grant, token="reader").status == 403
    assert filled.ask("POST", path, grant).status == 200
    assert filled.ask("GET", file, token="reader").body == CARD
    assert filled.ask("GET", "/api/models/rs/tiny/auth-check/write", token="reader").status == 403


def test_a_regular_file_has_its_git_hash_and_ranges(filled):
    answer = filled.ask("HEAD", "/rs/tiny/resolve/main/README.md")
    oid = hashlib.sha1(b"blob %d\0" % len(CARD) + CARD).hexdigest()
    assert answer.getheader("ETag") == f'"{oid}"'
    assert answer.getheader("X-Repo-Commit") == info(filled)["sha"]
    assert int(answer.getheader("Content-Length")) == len(CARD)
    assert answer.body == b""
    for asked, expected in (("4-7", CARD[4:8]), ("4-", CARD[4:]), ("-6", CARD[-6:])):
        answer = filled.ask(
            "GET", "/rs/tiny/resolve/main/README.md", headers={"Range": f"bytes={asked}"}
        )
        assert (answer.status, answer.body) == (206, expected)
        assert answer.getheader("Content-Range").endswith(f"/{len(CARD)}")
    answer = filled.ask("GET", "/rs/tiny/resolve/main/README.md", headers={"Range": "bytes=9999-"})
    assert answer.status == 416


def test_an_lfs_file_is_on_another_origin_that_must_not_get_the_token(filled):
    answer = filled.ask("GET", "/rs/tiny/resolve/main/model.safetensors")
    assert answer.status == 302
    assert answer.getheader("X-Linked-Etag") == f'"{SHA}"'
    assert int(answer.getheader("X-Linked-Size")) == len(WEIGHTS)
    where = answer.getheader("Location")
    assert where.startswith("http://localhost:")
    path = f"/-/cdn/{SHA}"
    assert filled.ask("GET", path, token=None).body == WEIGHTS
    assert filled.ask("GET", path, token=None, headers={"Range": "bytes=2-4"}).body == WEIGHTS[2:5]
    assert filled.ask("GET", path).status == 400


def test_a_missing_entry_says_at_which_commit_and_a_missing_revision_that_it_is_one(filled):
    answer = filled.ask("GET", "/rs/tiny/resolve/main/nothing.json")
    assert (answer.status, answer.getheader("X-Error-Code")) == (404, "EntryNotFound")
    assert answer.getheader("X-Repo-Commit") == info(filled)["sha"]
    answer = filled.ask("GET", "/rs/tiny/resolve/v9/README.md")
    assert (answer.status, answer.getheader("X-Error-Code")) == (404, "RevisionNotFound")


def test_what_is_known_of_a_model(filled):
    answer = info(filled, "/api/models/rs/tiny?blobs=True")
    assert {"aerial", "transformers", "safetensors", "license:apache-2.0"} <= set(answer["tags"])
    files = {entry["rfilename"]: entry for entry in answer["siblings"]}
    assert files["model.safetensors"]["lfs"]["sha256"] == SHA
    assert files["README.md"]["size"] == len(CARD)
    assert answer["cardData"]["license"] == "apache-2.0"
    assert answer["library_name"] == "transformers"
    assert "size" not in info(filled)["siblings"][0]
    results = b"- dataset: {id: rs/mini, task_id: default}\n  value: 0.5\n"
    commit(filled, [regular(".eval_results/mini.yaml", results)])
    entry = info(filled, "/api/models/rs/tiny?expand=evalResults")["evalResults"][0]
    assert entry["data"]["value"] == 0.5


def test_trees_are_paged_and_folders_listed(hub):
    create(hub)
    files = [regular(f"a/b/{i}.txt", b"x") for i in range(3)] + [regular("top.txt", b"y")]
    commit(hub, files)
    names = [e["path"] for e in told(hub.ask("GET", "/api/models/rs/tiny/tree/main"))]
    assert names == [".gitattributes", "a", "top.txt"]
    names = [e["path"] for e in told(hub.ask("GET", "/api/models/rs/tiny/tree/main/a"))]
    assert names == ["a/b"]
    entries = told(hub.ask("GET", "/api/models/rs/tiny/tree/main?recursive=true"))
    assert {e["path"] for e in entries if e["type"] == "file"} == {
        *(".gitattributes", "top.txt", "a/b/0.txt", "a/b/1.txt", "a/b/2.txt")
    }
    assert hub.ask("GET", "/api/models/rs/tiny/tree/main/c").status == 404
    found = hub.ask("POST", "/api/models/rs/tiny/paths-info/main", b"paths=top.txt&paths=no.txt")
    assert [e["path"] for e in told(found)] == ["top.txt"]


def test_lists_are_filtered_and_paged(tmp_path):
    with HubServer.start(page_size=2) as hub:
        for name in ("one", "two", "three"):
            create(hub, name)
            commit(hub, [regular("README.md", CARD)], f"/api/models/rs/{name}/commit/main")
        create(hub, "other")
        ask = "/api/models?filter=aerial&filter=license%3Aapache-2.0"
        first = hub.ask("GET", ask, token=None)
        assert [m["id"] for m in told(first)] == ["rs/one", "rs/two"]
        following = first.getheader("Link").removeprefix("<").partition(">")[0]
        path = following.removeprefix(hub.url)
        second = hub.ask("GET", path, token=None)
        assert [m["id"] for m in told(second)] == ["rs/three"]
        assert second.getheader("Link") is None
        assert [m["id"] for m in told(hub.ask("GET", "/api/models?search=TWO"))] == ["rs/two"]
        assert told(hub.ask("GET", "/api/models?author=owner")) == []
        assert told(hub.ask("GET", "/api/models?pipeline_tag=image-feature-extraction")) == []


def test_preupload_tells_how_and_whether_a_file_is_sent(filled):
    sample = base64.b64encode(b"\0\1").decode()
    files = [
        {"path": "README.md", "sample": "", "size": 5},
        {"path": "model.safetensors", "sample": sample, "size": 5},
        {"path": "notes", "sample": sample, "size": 2},
        {"path": "big.txt", "sample": "", "size": 11 * 2**20},
    ]
    body = json.dumps({"files": files}).encode()
    answer = told(filled.ask("POST", "/api/models/rs/tiny/preupload/main", body))["files"]
    assert [f["uploadMode"] for f in answer] == ["regular", "lfs", "lfs", "lfs"]
    assert answer[1]["oid"] == SHA
    assert "oid" not in answer[2]
    body = json.dumps({"files": files[:1] * 257}).encode()
    assert filled.ask("POST", "/api/models/rs/tiny/preupload/main", body).status == 413


def test_lfs_objects_are_checked_and_sent_once(hub):
    create(hub)
    batch = {"operation": "upload", "objects": [{"oid": SHA, "size": len(WEIGHTS)}]}
    path, body = "/rs/tiny.git/info/lfs/objects/batch", json.dumps(batch).encode()
    assert "upload" in told(hub.ask("POST", path, body))["objects"][0]["actions"]
    assert put(hub, b"something else").status == 400
    verify = json.dumps({"oid": SHA, "size": len(WEIGHTS)}).encode()
    assert hub.ask("POST", "/-/lfs/verify", verify, token=None).status == 404
    assert put(hub).status == 200
    assert hub.ask("POST", "/-/lfs/verify", verify, token=None).status == 200
    assert "actions" not in told(hub.ask("POST", path, body))["objects"][0]
    assert hub.ask("POST", path, body, token="reader").status == 403


def test_a_commit_is_whole_or_not_at_all(filled):
    before = info(filled)["sha"]
    missing = commit(filled, [regular("a.txt", b"a"), lfs("b.bin", "0" * 64)])
    assert missing.status == 400
    assert info(filled)["sha"] == before
    unknown = {"key": "deletedFile", "value": {"path": "nothing"}}
    answer = commit(filled, [regular("a.txt", b"a"), unknown])
    assert (answer.status, answer.getheader("X-Error-Code")) == (404, "EntryNotFound")
    assert info(filled)["sha"] == before
    assert commit(filled, [regular("README.md", CARD)]).status == 200
    assert info(filled)["sha"] == before  # nothing changed, no commit
    old = commit(filled, [regular("a.txt", b"a")], header={"parentCommit": "1" * 40})
    assert old.status == 412
    good = commit(filled, [regular("a.txt", b"a")], header={"parentCommit": before})
    assert told(good)["commitOid"] == info(filled)["sha"] != before
    gone = {"key": "deletedFile", "value": {"path": "a.txt"}}
    commit(filled, [gone, regular("f/x.txt", b"x")])
    commit(filled, [{"key": "deletedFolder", "value": {"path": "f"}}])
    names = [entry["rfilename"] for entry in info(filled)["siblings"]]
    assert names == [".gitattributes", "README.md", "model.safetensors"]
    assert len(told(filled.ask("GET", "/api/models/rs/tiny/commits/main"))) == 5
    assert commit(filled, [regular("a.txt", b"a")], token="reader").status == 403
    assert commit(filled, [regular("README.md", b"---\nx: [\n---\n")]).status == 400


def test_tags_and_branches_stay_where_they_are(filled):
    path, tag = "/api/models/rs/tiny/tag/main", json.dumps({"tag": "v1"}).encode()
    assert filled.ask("POST", path, tag).status == 200
    assert filled.ask("POST", path, tag).status == 409
    branch = "/api/models/rs/tiny/branch/a%2Fb"
    assert filled.ask("POST", branch, b"{}").status == 200
    assert filled.ask("POST", branch, b"{}").status == 409
    at_v1 = info(filled, "/api/models/rs/tiny/revision/v1")["sha"]
    commit(filled, [regular("a.txt", b"new")])
    assert info(filled, "/api/models/rs/tiny/revision/v1")["sha"] == at_v1
    assert info(filled, "/api/models/rs/tiny/revision/a%2Fb")["sha"] == at_v1
    assert filled.ask("GET", "/rs/tiny/resolve/v1/a.txt").status == 404
    refs = told(filled.ask("GET", "/api/models/rs/tiny/refs"))
    assert {"name": "v1", "ref": "refs/tags/v1", "targetCommit": at_v1} in refs["tags"]
    assert {b["name"] for b in refs["branches"]} == {"main", "a/b"}
    assert filled.ask("DELETE", "/api/models/rs/tiny/tag/v1").status == 200
    assert filled.ask("DELETE", branch).status == 200
    assert filled.ask("DELETE", branch).status == 404


def test_a_pull_request_leaves_main_alone(filled):
    before = info(filled)["sha"]
    path = "/api/models/rs/tiny/commit/main?create_pr=1"
    answer = told(commit(filled, [regular("a.txt", b"a")], path))
    assert answer["pullRequestUrl"].endswith("/rs/tiny/discussions/1")
    assert info(filled)["sha"] == before
    assert filled.ask("GET", "/rs/tiny/resolve/refs%2Fpr%2F1/a.txt").body == b"a"


def test_repositories_move_and_go(filled):
    move = {"fromRepo": "rs/tiny", "toRepo": "rs/small", "type": "model"}
    assert filled.ask("POST", "/api/repos/move", json.dumps(move).encode()).status == 200
    assert filled.ask("GET", "/api/models/rs/tiny").status == 404
    body = json.dumps({"name": "small", "organization": "rs", "type": "model"}).encode()
    assert filled.ask("DELETE", "/api/repos/delete", body, token="reader").status == 403
    assert filled.ask("DELETE", "/api/repos/delete", body).status == 200
    assert filled.ask("GET", "/api/models/rs/small").status == 404


def test_collections(filled):
    given = json.dumps({"title": "A zoo", "namespace": "rs", "private": False}).encode()
    slug = told(filled.ask("POST", "/api/collections", given))["slug"]
    again = filled.ask("POST", "/api/collections", given)
    assert (again.status, told(again)["slug"]) == (409, slug)
    assert filled.ask("POST", "/api/collections", given, token="reader").status == 403
    item = json.dumps({"item": {"id": "rs/tiny", "type": "model"}, "note": "first"}).encode()
    path = f"/api/collections/{slug}/items"
    assert filled.ask("POST", path, item).status == 200
    assert filled.ask("POST", path, item).status == 409
    collection = told(filled.ask("GET", f"/api/collections/{slug}", token=None))
    assert [i["id"] for i in collection["items"]] == ["rs/tiny"]
    assert "position" not in told(filled.ask("GET", "/api/collections?owner=rs"))[0]
    change = json.dumps({"title": "Zoo"}).encode()
    assert filled.ask("PATCH", f"/api/collections/{slug}", change).status == 200
    assert filled.ask("DELETE", f"/api/collections/{slug}", token="reader").status == 403
    assert filled.ask("DELETE", f"/api/collections/{slug}").status == 200


def test_cards_are_checked(hub):
    good = json.dumps({"content": CARD.decode(), "repoType": "model"}).encode()
    assert told(hub.ask("POST", "/api/validate-yaml", good))["errors"] == []
    bad = json.dumps({"content": "---\n- a\n---\n", "repoType": "model"}).encode()
    assert hub.ask("POST", "/api/validate-yaml", bad).status == 400


def test_fault_switches(filled):
    path = "/rs/tiny/resolve/main/README.md"
    filled.fail("status", path="resolve", status=503, times=2, after=1, retry_after=3)
    answers = [filled.ask("GET", path) for _ in range(4)]
    assert [a.status for a in answers] == [200, 503, 503, 200]
    assert answers[1].getheader("Retry-After") == "3"
    filled.fail("checksum", path="resolve")
    wrong = filled.ask("GET", path)
    assert (len(wrong.body), wrong.body != CARD) == (len(CARD), True)
    filled.fail("truncate", path="resolve")
    with pytest.raises(http.client.IncompleteRead):
        filled.ask("GET", path)
    filled.fail("cut", path="resolve")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        filled.ask("GET", path)
    before = info(filled)["sha"]
    filled.fail("disk_full", "POST", "/commit/")
    assert commit(filled, [regular("a.txt", b"a")]).status == 507
    assert info(filled)["sha"] == before
    filled.fail("cut_after", "POST", "/commit/")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        commit(filled, [regular("a.txt", b"a")])
    assert info(filled)["sha"] != before  # it was done although nobody heard so
    filled.fail("status", path="resolve", times=99)
    filled.heal()
    assert filled.ask("GET", path).status == 200


def test_the_log_names_every_request_and_its_user(filled):
    filled.forget()
    filled.ask("GET", "/api/models?limit=1", token="reader")
    filled.ask("HEAD", "/rs/tiny/resolve/main/none", token=None)
    filled.fail("cut", path="whoami")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        filled.ask("GET", "/api/whoami-v2")
    log = [(r.method, r.path, r.user, r.status, r.fault) for r in filled.requests()]
    assert log == [
        ("GET", "/api/models?limit=1", "reader", 200, None),
        ("HEAD", "/rs/tiny/resolve/main/none", None, 404, None),
        ("GET", "/api/whoami-v2", None, 0, "cut"),
    ]
