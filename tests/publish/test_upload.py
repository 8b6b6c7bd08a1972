"""Publishing: whole or not at all, the same thing once, nothing by accident."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from rs_models.commands import push
from rs_models.errors import ServiceError, UserError, hub_errors
from rs_models.evaluation.results import write
from rs_models.export import export
from rs_models.publish.staging import check_folder, find_results, stage_model
from rs_models.settings import run_script
from tests.conftest import ROOT
from tests.publish.test_card import result
from tests.support.models import glcnet_run, nano, provenance

# Runs `rs-models push` in a client process of its own: the clients read their environment when
# they are imported.
PUSH = "import sys; from rs_models.commands.push import main\n"
PUSH += "from rs_models.settings import run_script\n"
PUSH += "sys.exit(run_script(main, sys.argv[1:]))"
# Many pushes in one process, for it costs seconds to start one. Prints a JSON line.
FLOW = """
import json, sys, warnings
from pathlib import Path
from rs_models.publish.upload import plan, publish
folder, *steps = sys.argv[1:]
def run(**settings):
    try:
        done = publish(folder, "rs/tiny", **settings)
        return [done.commit, done.changed, done.tag, done.url]
    except Exception as error:
        return [type(error).__name__, str(error)]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder with results beside it."""
    root = tmp_path_factory.mktemp("work")
    model = nano("resnet_nano")
    export(model, root / "tov-resnet-nano" / "export", provenance=provenance(model))
    for row in (
        result("tov-resnet-nano", "knn20", 47.0, revision="a" * 40),
        result("tov-resnet-nano", "knn20", 60.0, data="timm/eurosat-rgb", revision="a" * 40),
    ):
        write(row, root / "model_cards" / "results")
    return root / "tov-resnet-nano"


@pytest.fixture
def folder(tmp_path):
    """A small folder to publish: a card, weights kept by LFS, a folder."""
    folder = tmp_path / "tiny"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# One\n")
    (folder / "model.safetensors").write_bytes(b"\0weights" * 50)
    (folder / "figures" / "one.png").write_bytes(b"\x89PNG\0")
    (folder / "config.json").write_text("{}")
    return folder


def flow(hub, tmp_path, folder, code, **settings):
    """Runs code after FLOW in a client process; the JSON it prints last."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    done = hub.python(FLOW + code, home, str(folder), forbid=(), **settings)
    return json.loads(done.stdout.splitlines()[-1])


def files(hub, revision="main"):
    """Path -> content of everything that a reader without a login sees at a revision, or None."""
    answer = hub.ask("GET", f"/api/models/rs/tiny/tree/{revision}?recursive=true", token=None)
    if answer.status != 200:
        return None
    found = {}
    for entry in json.loads(answer.body):
        if entry["type"] == "file" and entry["path"] != ".gitattributes":
            oid = entry.get("lfs", entry)["oid"]
            found[entry["path"]] = oid
    return found


def writes(hub):
    return [r for r in hub.requests() if r.method not in ("GET", "HEAD")]


def commits(hub):
    return [r for r in writes(hub) if "/commit/" in r.path and r.status == 200]


def test_a_push_is_one_commit_and_the_same_push_again_is_none(hub, tmp_path, folder):
    code = "print(json.dumps([run(tag='v1', collection='Zoo'), run(tag='v1', collection='Zoo')]))"
    first, second = flow(hub, tmp_path, folder, code)
    assert first[1:3] == [True, "v1"]
    assert second == [first[0], False, "v1", first[3]]
    assert len(commits(hub)) == 1
    assert files(hub) == files(hub, "v1")
    assert set(files(hub)) == {
        *("README.md", "config.json", "model.safetensors", "figures/one.png")
    }
    order = [r.path for r in writes(hub)]
    where = [
        next(i for i, p in enumerate(order) if key in p)
        for key in (*("repos/create", "/commit/", "/tag/", "/api/collections", "/items"),)
    ]
    assert where == sorted(where)
    (slug,) = [c["slug"] for c in json.loads(hub.ask("GET", "/api/collections?owner=rs").body)]
    items = json.loads(hub.ask("GET", f"/api/collections/{slug}").body)["items"]
    assert [item["id"] for item in items] == ["rs/tiny"]


def test_a_version_never_changes(hub, tmp_path, folder):
    code = """
out = [run(tag='v1')]
(Path(folder) / 'config.json').write_text('{"a": 1}')
out.append(run(tag='v1'))
(Path(folder) / 'figures' / 'one.png').unlink()
out.append(run(tag='v2'))
print(json.dumps(out))
"""
    one, refused, two = flow(hub, tmp_path, folder, code)
    assert refused[0] == "UserError"
    assert "has the tag v1 for other content" in refused[1]
    assert "--tag v2" in refused[1]
    assert two[1:3] == [True, "v2"]
    assert one[0] != two[0]
    assert "figures/one.png" in files(hub, "v1")  # the old version still has its files
    assert "figures/one.png" not in files(hub, "v2")
    assert files(hub, "v1")["config.json"] != files(hub, "v2")["config.json"]
    assert len(commits(hub)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cut", "cut_after"])
def test_an_interruption_anywhere_shows_nothing_half_done_and_is_completed(
    hub, tmp_path, folder, kind
):
    """Connections break at the k-th request, for every k, before or after it was carried out."""
    settings = "tag='v1', collection='Zoo'"
    # The driver tells the server which request breaks, and a stranger looks after each attempt.
    code = f"""
import http.client, os
from urllib.parse import urlsplit
import huggingface_hub.utils._http as transport
transport.time.sleep = lambda seconds: None  # the client's own retries wait for seconds
port = urlsplit(os.environ["HF_ENDPOINT"]).port
def ask(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, json.dumps(body))
    response = connection.getresponse()
    return response.status, json.loads(response.read() or b"null")
def control(action, given=None):
    return ask("POST", "/-/control/" + action, given)[1]
def seen(revision):
    status, tree = ask("GET", "/api/models/rs/tiny/tree/" + revision + "?recursive=true")
    if status != 200:
        return None
    return {{e["path"]: e.get("lfs", e)["oid"] for e in tree
             if e["type"] == "file" and e["path"] != ".gitattributes"}}
run({settings})  # the client asks some things only once a process
control("reset")
run({settings})
count, complete = len(control("requests")), seen("main")
out = []
for k in range(count):
    control("reset")
    # As often as a client tries again by itself, so that the break is felt.
    control("fail", {{"kind": {kind!r}, "method": "*", "path": ".", "after": k, "times": 99}})
    first = run({settings})
    control("heal")
    states = [seen("main"), seen("v1")]
    second = run({settings})
    out.append([first, states, second, seen("main"), seen("v1")])
print(json.dumps([complete, out]))
"""
    complete, attempts = flow(hub, tmp_path, folder, code)
    assert set(complete) == {"README.md", "config.json", "model.safetensors", "figures/one.png"}
    assert len(attempts) > 10
    for first, states, second, main, v1 in attempts:
        assert first[0] == "ServiceError", first
        assert "running the same command again" in first[1] or "Looking at" in first[1]
        assert states[0] in (None, {}, complete)
        assert states[1] in (None, complete)
        assert second[2] == "v1", second
        assert main == v1 == complete


def test_two_at_once_do_not_mix(hub, tmp_path, folder):
    code = """
import huggingface_hub
run(tag='v1')
(Path(folder) / 'config.json').write_text('{"mine": 1}')
send = huggingface_hub.HfApi.create_commit
def late(self, *args, **settings):  # somebody else is faster
    huggingface_hub.HfApi.create_commit = send
    self.upload_file(path_or_fileobj=b'{"theirs": 1}', path_in_repo='config.json', repo_id=args[0])
    return send(self, *args, **settings)
huggingface_hub.HfApi.create_commit = late
print(json.dumps(run(tag='v2')))
"""
    kind, sentence = flow(hub, tmp_path, folder, code)
    assert kind == "ServiceError"
    assert "(412): somebody else changed the repository meanwhile" in sentence
    assert files(hub, "v2") is None


def test_a_pull_request_changes_nothing_by_itself(hub, tmp_path, folder):
    code = """
out = [run(create_pr=True), run(tag='v1')]
(Path(folder) / 'config.json').write_text('{"a": 1}')
out.append(run(tag='v2', create_pr=True, collection='Zoo'))
print(json.dumps(out))
"""
    none, _, request = flow(hub, tmp_path, folder, code)
    assert none[0] == "UserError"
    assert request[2:] == [None, f"{hub.url}/rs/tiny/discussions/1"]
    assert files(hub) == files(hub, "v1")
    assert files(hub, "refs%2Fpr%2F1")["config.json"] != files(hub)["config.json"]
    assert files(hub, "v2") is None
    assert json.loads(hub.ask("GET", "/api/collections").body) == []


def test_private_stays_private(hub, tmp_path, folder):
    code = "print(json.dumps([run(private=True), run(private=True), run(private=False)]))"
    first, second, third = flow(hub, tmp_path, folder, code)
    assert (first[1], second[1]) == (True, False)
    assert third[0] == "UserError"
    assert "exists and is private" in third[1]
    assert files(hub) is None  # for a stranger


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "disk_full", "method": "PUT", "path": "/lfs/"}, "no room left"),
        ({"kind": "disk_full", "method": "POST", "path": "/commit/"}, "no room left"),
        ({"kind": "status", "method": "POST", "path": "/commit/", "status": 500}, "bad moment"),
        ({"kind": "status", "method": "*", "path": ".", "status": 429}, "too many requests"),
        ({"kind": "status", "method": "PUT", "path": "/lfs/", "status": 404}, "not the Hub's own"),
        ({"kind": "status", "method": "POST", "path": "/commit/", "status": 404}, "not the Hub's"),
        ({"kind": "html", "method": "POST", "path": "/commit/"}, "its answer is no JSON"),
        ({"kind": "html", "method": "GET", "path": "/api/"}, "its answer is no JSON"),
        (
            {"kind": "truncate", "method": "*", "path": "/api/"},
            "(run this again|cannot be reached)",
        ),
        ({"kind": "redirect", "method": "*", "path": "/api/"}, "cannot be reached"),
        ({"kind": "cut", "method": "*", "path": "."}, "cannot be reached"),
    ],
)
def test_a_server_in_trouble_is_told_in_a_sentence(hub, tmp_path, folder, fault, words):
    hub.fail(**fault, times=99)
    code = "import huggingface_hub.utils._http as t; t.time.sleep = lambda s: None\n"
    kind, sentence = flow(hub, tmp_path, folder, code + "print(json.dumps(run(tag='v1')))")
    assert kind == "ServiceError", sentence
    assert re.search(words, sentence), sentence
    assert "\n" not in sentence
    hub.heal()
    assert files(hub) in (None, {})
    assert flow(hub, tmp_path, folder, "print(json.dumps(run(tag='v1')))")[2] == "v1"


def test_a_short_trouble_is_sat_out(hub, tmp_path, folder):
    hub.fail("status", "PUT", "/lfs/", status=503)
    hub.fail("slow", "POST", "/commit/", seconds=0.5)
    done = flow(hub, tmp_path, folder, "print(json.dumps(run(tag='v1')))")
    assert done[1:3] == [True, "v1"]
    assert [r.status for r in hub.requests() if r.fault == "status"] == [503]


def test_who_may_not_write_is_told_before_anything_is_sent(hub, tmp_path, folder):
    sentences = {}
    for token in ("stranger", "hf_wrong", None):
        kind, sentences[token] = flow(
            hub, tmp_path, folder, "print(json.dumps(run(tag='v1')))", token=token
        )
        assert kind == "UserError"
    assert "belongs to stranger, who may publish under stranger" in sentences["stranger"]
    assert "(401): the token is not accepted" in sentences["hf_wrong"]
    assert "hf auth login" in sentences[None]
    kind, offline = flow(hub, tmp_path, folder, "print(json.dumps(run()))", offline=True)
    assert "HF_HUB_OFFLINE is set" in offline
    assert writes(hub) == []
    gone = "import os; os.environ['HF_ENDPOINT'] = 'http://127.0.0.1:9'\n" + FLOW
    done = hub.python(
        gone + "print(json.dumps(run()))", tmp_path / "home", str(folder), forbid=(), check=False
    )
    assert "cannot be reached" in done.stdout


def test_secrets_do_not_travel(hub, tmp_path, folder):
    code = """
out = []
for name, text in ((".env", "X=1"), ("notes.md", "hf_" + "a" * 34), ("t.txt", sys.argv[-1])):
    (Path(folder) / name).write_text(text)
    out.append(run())
    (Path(folder) / name).unlink()
(Path(folder) / ".git").mkdir(); (Path(folder) / ".git" / "config").write_text("x")
(Path(folder) / ".cache").mkdir(); (Path(folder) / ".cache" / "x").write_text("x")
out.append(run())
print(json.dumps(out))
"""
    home = tmp_path / "home"
    home.mkdir()
    done = hub.python(FLOW + code, home, str(folder), hub.tokens["owner"], forbid=())
    env, notes, token, good = json.loads(done.stdout.splitlines()[-1])
    assert "may hold secrets" in env[1]
    assert "holds an access token" in notes[1]
    assert "holds an access token" in token[1]
    assert hub.tokens["owner"] not in done.stdout + done.stderr
    assert good[1]
    assert not any(path.startswith((".git/", ".cache/")) for path in files(hub))


# --- the command ----------------------------------------------------------------------------------


def command(hub, run, tmp_path, *arguments, **settings):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    results = str(run.parent / "model_cards" / "results")
    return hub.python(
        PUSH, home, *arguments, "--results", results, forbid=(), check=False, **settings
    )


def test_a_run_is_published_with_card_licence_and_results(hub, run, tmp_path):
    done = command(hub, run, tmp_path, str(run), "--yes", "--json", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["repo_id"] == "rs/tov-resnet-nano"
    assert f"endpoint {hub.url}, as owner" in done.stderr
    assert "model.safetensors" in done.stderr
    assert hub.tokens["owner"] not in done.stdout + done.stderr
    info = json.loads(hub.ask("GET", "/api/models/rs/tov-resnet-nano?expand=evalResults").body)
    assert {entry["rfilename"] for entry in info["siblings"]} == {
        *("README.md", "LICENSE", "config.json", "preprocessor_config.json", "model.safetensors"),
        *("timm.safetensors", ".gitattributes", ".eval_results/timm--eurosat-rgb.yaml"),
    }
    assert {"tov", "remote-sensing", "license:apache-2.0", "safetensors"} <= set(info["tags"])
    assert info["evalResults"][0]["data"]["value"] == 60.0
    assert info["pipeline_tag"] == "image-feature-extraction"
    licence = hub.ask("GET", "/rs/tov-resnet-nano/resolve/v1/LICENSE", token=None)
    assert b"Apache License" in licence.body
    card = hub.ask("GET", "/rs/tov-resnet-nano/resolve/v1/README.md", token=None).body.decode()
    assert 'revision="v1"' in card


def test_a_dry_run_sends_nothing_and_nobody_is_asked_without_a_terminal(hub, run, tmp_path):
    done = command(hub, run, tmp_path, str(run), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["dry_run"]
    assert {change["state"] for change in planned["changes"]} == {"new"}
    assert "will be created" in done.stderr
    assert "MB to send" in done.stderr
    done = command(hub, run, tmp_path, str(run))
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert writes(hub) == []


@pytest.mark.slow
def test_a_dry_run_without_a_login_tells_what_would_be_sent(hub, run, tmp_path):
    done = command(hub, run, tmp_path, str(run), "--dry-run", "--json", token=None)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["user"] is None
    assert {change["state"] for change in planned["changes"]} == {"new"}
    assert "not logged in" in done.stderr
    done = command(hub, run, tmp_path, str(run), "--yes", token=None)
    assert done.returncode == 2
    assert "hf auth login" in done.stderr


def test_a_token_is_no_argument(hub, run, tmp_path, capsys):
    for argument in ("hf_abcdefgh", "--token=hf_abcdefgh"):
        assert run_script(push.main, [str(run), argument]) == 2
        told = capsys.readouterr()
        assert "must not be an argument" in told.err
        assert "abcdefgh" not in told.out + told.err


def test_names_are_made_and_checked(run):
    def name(folder, *arguments):
        return push.repository_id(folder, push.parser().parse_args([str(folder), *arguments]))

    assert name(run) == name(run / "export") == "rs/tov-resnet-nano"
    assert name(run, "--pretraining") == "rs/tov-resnet-nano-pretraining"
    assert name(run, "--namespace", "lab") == "lab/tov-resnet-nano"
    assert name(run, "--repo-id", "mine") == "rs/mine"
    for wrong in (["--repo-id", "a/b/c"], ["--repo-id", "a/b", "--namespace", "c"]):
        with pytest.raises(UserError):
            name(run, *wrong)


def test_the_namespace_is_a_setting(run, monkeypatch):
    monkeypatch.setenv("RS_MODELS_NAMESPACE", "my-lab")
    options = push.parser().parse_args([str(run)])
    assert push.repository_id(run, options) == "my-lab/tov-resnet-nano"


# --- staging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.bin", "weights.pth", "modeling.py", "state.pkl"])
def test_files_that_can_run_code_are_refused(run, tmp_path, name):
    copy = tmp_path / "export"
    shutil.copytree(run / "export", copy)
    (copy / name).write_bytes(b"x")
    with pytest.raises(UserError, match="can run code"):
        stage_model(copy, tmp_path / "t", repo_id="rs/x", results=[])


def test_a_decoder_goes_with_its_backbone(tmp_path):
    made = glcnet_run(tmp_path / "glcnet-resnet-nano")
    results = [result("glcnet-resnet-nano", "knn20", 40.0, revision="a" * 40)]
    for source in (made, made / "export"):
        staged = tmp_path / source.name / "staged"
        staged.mkdir(parents=True)
        stage_model(source, staged, repo_id="rs/glcnet-resnet-nano", results=results)
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            path = staged / "segmentation" / name
            assert path.read_bytes() == (made / "segmentation" / name).read_bytes()
        assert 'subfolder="segmentation"' in (staged / "README.md").read_text()
    settings = made / "segmentation" / "config.json"
    good = settings.read_text()
    settings.write_text(json.dumps({**json.loads(good), "auto_map": {}}))
    with pytest.raises(UserError, match="remote code"):
        stage_model(made, tmp_path / "t", repo_id="rs/glcnet-resnet-nano", results=results)
    settings.write_text(good)
    (made / "segmentation" / "code.py").write_text("")
    with pytest.raises(UserError, match="can run code"):
        stage_model(made, tmp_path / "t", repo_id="rs/glcnet-resnet-nano", results=results)
    (made / "segmentation" / "code.py").unlink()
    (made / "export" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        stage_model(made, tmp_path / "t", repo_id="rs/glcnet-resnet-nano", results=results)


def test_what_would_load_wrongly_is_refused(run, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    def refused(change, words):
        copy = tmp_path / "export"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run / "export", copy)
        change(copy)
        with pytest.raises(UserError, match=words):
            stage_model(copy, tmp_path / "t", repo_id="rs/x", results=[])

    def config(**changes):
        def change(folder):
            path = folder / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

        return change

    def spoil(folder):
        weights = load_file(folder / "model.safetensors")
        next(w for w in weights.values() if w.is_floating_point()).view(-1)[0] = torch.nan
        save_file(weights, folder / "model.safetensors")

    def cut(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    refused(config(dtype="float16"), "float32")
    refused(config(auto_map={"AutoModel": "x.X"}), "remote code")
    refused(config(rs_models={"method": "tov"}), "Provenance must have the keys")
    refused(config(model_type="rs_tov"), "--pretraining")
    refused(spoil, "NaN or infinite")
    refused(cut, "not a whole safetensors file")
    refused(lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors")
    refused(lambda folder: (folder / "notes.txt").write_text("x"), "no part of a model")
    refused(lambda folder: None, "no results")


def test_data_sets_and_spaces_are_checked(tmp_path):
    def refused(kind, words):
        with pytest.raises(UserError, match=words):
            check_folder(tmp_path, kind)

    refused("dataset", r"no README\.md")
    (tmp_path / "README.md").write_text("# no metadata\n")
    refused("dataset", "must begin with YAML")
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    refused("dataset", "not valid YAML")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    refused("dataset", "no Parquet")
    refused("space", r"no app\.py")
    (tmp_path / "app.py").write_text("x = 1\n")
    refused("space", "sdk")
    refused("dataset", "is a script")
    (tmp_path / "README.md").write_text("---\nsdk: gradio\n---\n")
    assert check_folder(tmp_path, "space") == {"sdk": "gradio"}


def test_errors_say_what_was_tried():
    with pytest.raises(ServiceError, match=r"^Reading x failed: the server cannot be reached"):
        with hub_errors("Reading x"):
            raise ConnectionError("no route")


def test_weights_of_the_clone_can_be_published(tmp_path):
    folder = ROOT / "hub" / "rs" / "rsisc-resnet-mini-aid"
    results = find_results(folder)
    stage_model(folder, tmp_path, repo_id="rs/rsisc-resnet-mini-aid", results=results)
    card = (tmp_path / "README.md").read_text()
    assert re.findall(r"\]\((figures/[^)]+)\)", card)
    for picture in re.findall(r"\]\((figures/[^)]+)\)", card):
        assert (tmp_path / picture).is_file()
    assert (tmp_path / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


def test_a_runs_own_results_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    with pytest.raises(UserError, match="has no results"):
        find_results(run)
    (run / "results").mkdir()
    path = next((ROOT / "model_cards" / "results").rglob("*.json"))
    (run / "results" / path.name).write_bytes(path.read_bytes())
    for source in (run, run / "export"):
        assert len(find_results(source)) == 1
    with pytest.raises(UserError, match="no folder nowhere"):
        find_results(run, "nowhere")


@pytest.mark.parametrize("error", [json.JSONDecodeError("Expecting value", "<html>", 0)])
def test_an_answer_that_is_no_json_is_the_servers(error):
    with pytest.raises(ServiceError, match="no JSON"), hub_errors("Publishing rs/x"):
        raise error
