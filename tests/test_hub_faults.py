"""A Hub that fails at every door: a sentence that says whose fault it is, and the right exit code.

Doors are what our code asks a Hub for: what a model is, a model, a data set, a stream. Each is
opened under each fault by one client process, whose cache is emptied before every try.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from rs_models.export import export
from tests.data import make
from tests.support.models import nano, provenance

# A client that lives on: reads a door and a folder for its cache, says how it ended.
CLIENT = """
import contextlib, io, json, os, shutil, sys, time, traceback
from pathlib import Path
import datasets, huggingface_hub, torch, transformers
from rs_models import cli
from rs_models.data import load
from rs_models.settings import run_script

naps = []
time.sleep = naps.append
home = Path(os.environ["HF_HOME"])

def rows(argv):
    print(len(load("rs/set", "train")), "rows")

def nothing(argv):
    load("rs/nowhere", "train")

def stream(argv):
    print(len(list(load("rs/set", "train", streaming=True))), "rows")

def backbone(argv):
    from rs_models import backbones
    backbones.load("rs/model")
    print("loaded")

DOORS = {
    "info": lambda: cli.main(["info", "rs/model"]),
    "model": lambda: run_script(backbone, []),
    "data": lambda: run_script(rows, []),
    "stream": lambda: run_script(stream, []),
    "no data": lambda: run_script(nothing, []),
    "no model": lambda: cli.main(["info", "rs/nowhere"]),
}
for line in sys.stdin:
    door, keep = json.loads(line)
    if not keep:
        for name in ("hub", "datasets", "rs_models", "modules"):
            shutil.rmtree(home / name, ignore_errors=True)
    naps.clear()
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        try:
            code = DOORS[door]()
        except BaseException:
            code = 98
            traceback.print_exc()
    answer = [code, said.getvalue(), told.getvalue()[-2000:], sum(naps)]
    print("answer", json.dumps(answer), file=sys.__stdout__, flush=True)
"""
# Fault -> the switch, and the exit code: 2 where the user can mend it.
FAULTS = {
    "401": ({"kind": "status", "status": 401}, 2),
    "403": ({"kind": "status", "status": 403}, 2),
    "403 of files": ({"kind": "status", "status": 403, "path": "/resolve/"}, 2),
    "404 of a proxy": ({"kind": "status", "status": 404}, 1),
    "429": ({"kind": "status", "status": 429, "retry_after": 1}, 1),
    "500": ({"kind": "status", "status": 500}, 1),
    "503": ({"kind": "status", "status": 503}, 1),
    "503 of files": ({"kind": "status", "status": 503, "path": "/resolve/"}, 1),
    "cut": ({"kind": "cut"}, 1),
    "cut of files": ({"kind": "cut", "path": "/resolve/"}, 1),
    "cut later": ({"kind": "cut", "after": 3}, 1),
    "short body": ({"kind": "truncate", "path": "/resolve/"}, 1),
    "a page in place of an answer": ({"kind": "html"}, 1),
    "a page in place of files": ({"kind": "html", "path": "/resolve/"}, 1),
    "another size": ({"kind": "size", "path": "/resolve/"}, 1),
    "redirects": ({"kind": "redirect"}, 1),
    "redirects of files": ({"kind": "redirect", "path": "/resolve/"}, 1),
    "slow": ({"kind": "slow", "seconds": 2.5}, 1),
    "slow files": ({"kind": "slow", "seconds": 2.5, "path": "/resolve/"}, 1),
}
DOORS = {"info": "architecture", "model": "loaded", "data": "4 rows", "stream": "4 rows"}


class Client:
    """The client process."""

    def __init__(self, environment, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def open(self, door, *, keep=False):
        """(exit code, stdout, stderr, seconds that it would have waited)."""
        print(json.dumps([door, keep]), file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise AssertionError("the client has ended")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    (root / "set" / "data").mkdir(parents=True)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    images = [{"bytes": make.png(make.pixels(i)), "path": None} for i in range(4)]
    rows = Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    for part in range(2):
        some = rows.select(range(2 * part, 2 * part + 2))
        some.to_parquet(str(root / "set" / "data" / f"train-0000{part}-of-00002.parquet"))
    (root / "set" / "README.md").write_text("---\nlicense: mit\n---\n")
    backbone = nano("resnet_nano")
    export(backbone, root / "model", provenance=provenance(backbone, train_size=32), timm=False)
    return root


@pytest.fixture
def client(hub, folders, tmp_path):
    upload = (
        "from huggingface_hub import HfApi; api = HfApi()\n"
        "for kind, name in (('dataset', 'set'), ('model', 'model')):\n"
        "    api.create_repo(f'rs/{name}', repo_type=kind)\n"
        f"    api.upload_folder(repo_id=f'rs/{{name}}', repo_type=kind, "
        f"folder_path={str(folders)!r} + f'/{{name}}')"
    )
    environment = hub.env(tmp_path / "home")
    environment |= {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
    subprocess.run([sys.executable, "-c", upload], env=environment, check=True, timeout=120)
    client = Client(environment, tmp_path)
    yield client
    client.process.kill()
    client.process.wait()


def faults_of(code, said, told, expected):
    """What is wrong with an answer; None if nothing is."""
    lines = [line for line in told.strip().splitlines() if line]
    if "Traceback" in told:
        return f"traceback: {lines[-1][:300]}"
    if code != expected:
        return f"exit {code}, not {expected}: {lines[-1:]} {said[-100:]!r}"
    last = lines[-1] if lines else ""
    if not (last.startswith("error: ") and last.endswith(".")):
        return f"no sentence: {last[:300]!r}"
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_fault_at_every_door_is_a_sentence(hub, client):
    for door, words in DOORS.items():
        code, said, told, _ = client.open(door)
        assert code == 0 and words in said, (door, told)
    for door in ("no data", "no model"):
        assert not faults_of(*client.open(door)[:3], 2)
    faults = []
    for name, (switch, expected) in FAULTS.items():
        switch = {"method": "*", "path": ".", "times": 10_000, **switch}
        for door in DOORS:
            hub.forget()
            hub.fail(**switch)
            code, said, told, waited = client.open(door)
            hub.heal()
            if wrong := faults_of(code, said, told, expected):
                faults.append(f"{door}, {name}: {wrong}")
            asked = [request.path for request in hub.requests() if request.fault]
            if switch.get("status") in (429, 503) and door != "stream" and len(asked) < 2:
                faults.append(f"{door}, {name}: asked {len(asked)} times")
            if waited > 120:
                faults.append(f"{door}, {name}: waits {waited:.0f} s")
            # What the fault left in the cache is no part that passes for the whole.
            code, said, told, _ = client.open(door, keep=True)
            if code or DOORS[door] not in said:
                faults.append(f"{door}, after {name}: {code} {told[-300:]}")
    assert not faults, f"{len(faults)} of {len(FAULTS) * len(DOORS)}:\n" + "\n".join(faults)
