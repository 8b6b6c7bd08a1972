"""From a training to a stranger's `from_pretrained`, through the real clients and a Hub for tests.

Everything is published once; then processes that cannot import rs_models find it and load it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rs_models import backbones, cli
from tests.data.convert.tiny import make
from tests.support.hub.server import HubServer
from tests.support.models import images

pytestmark = pytest.mark.slow

TINY = (
    *("data.name=synthetic:num=24,size=40", "backbone=resnet_nano", "image_size=32"),
    *("batch_size=8", "epochs=1", "evaluation.every=0"),
)
CLI = "import sys; from rs_models.cli import main; sys.exit(main(sys.argv[1:]))"
PROBE = """
import json, sys, torch
x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
def told(features, **more):
    print(json.dumps({"features": features.flatten(1).tolist(), **more}))
"""
NATIVE = (
    PROBE
    + """
from transformers import AutoModel
name, revision = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
try:
    model = AutoModel.from_pretrained(name, revision=revision, use_safetensors=True).eval()
    with torch.no_grad():
        told(model(x).pooler_output, kind=type(model).__name__)
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""
)
NO_OTHERS = ("rs_models", "timm", "datasets")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The quickstart's model in three repositories, a data set and a Space, all on a Hub."""
    root = tmp_path_factory.mktemp("work")
    run = root / "quickstart"
    assert cli.main(["pretrain", "--config", "quickstart", *TINY, f"output_dir={run}"]) == 0
    make("rsscn7", root / "source")
    converted = root / "rsscn7-mini"
    assert (
        cli.main(["convert-dataset", "rsscn7", str(root / "source"), "--output", str(converted)])
        == 0
    )
    space = root / "compare"
    space.mkdir()
    (space / "app.py").write_text("import gradio\n")
    (space / "README.md").write_text("---\ntitle: Compare\nsdk: gradio\napp_file: app.py\n---\n")
    with HubServer.start() as hub:
        hub.home = root / "owner"
        hub.home.mkdir()
        results = ("--results", str(run / "results"), "--yes", "--tag", "v1")
        for arguments in (
            (str(run), *results, "--collection", "Zoo"),
            (str(run), *results, "--pretraining"),
            (str(run), *results, "--private", "--repo-id", "rs/quickstart-private"),
            (str(run), *results, "--repo-id", "rs/quickstart-gated"),
            (str(converted), "--repo-type", "dataset", "--yes", "--tag", "v1"),
            (str(space), "--repo-type", "space", "--yes"),
        ):
            # The card wants the results under the repository's own name.
            if "--repo-id" in arguments:
                other = arguments[-1].rpartition("/")[2]
                arguments = (*arguments, "--results", str(renamed(run / "results", other, root)))
            done = hub.python(CLI, hub.home, "push", *arguments, forbid=(), check=False)
            assert done.returncode == 0, done.stderr
        hub.ask(
            "PUT",
            "/api/models/rs/quickstart-gated/settings",
            json.dumps({"gated": "auto"}).encode(),
        )
        hub.run, hub.converted = run, converted
        yield hub


def renamed(results, name, root):
    """Results under another model's name."""
    target = root / f"results-{name}"
    target.mkdir()
    for path in Path(results).rglob("*.json"):
        content = json.loads(path.read_text())
        if content["model"] == "quickstart":
            content["model"] = name
            (target / path.name).write_text(json.dumps(content))
    return target


@pytest.fixture
def hub(published):
    published.heal()
    published.forget()
    return published


@pytest.fixture
def expected(published):
    """Features of the run's own export."""
    with torch.no_grad():
        return backbones.pooled(backbones.load(str(published.run / "export")), images())


def asked(hub, home, code, *arguments, **settings):
    done = hub.python(code, home, *arguments, **settings)
    return json.loads(done.stdout.strip().splitlines()[-1])


def assert_loaded(answer, expected):
    assert "error" not in answer, answer
    np.testing.assert_allclose(answer["features"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_transformers_finds_and_loads_it_and_then_without_a_network(hub, tmp_path, expected):
    find = """
import json
from huggingface_hub import HfApi
api = HfApi()
print(json.dumps([
    [m.id for m in api.list_models(filter=["tov", "remote-sensing"])],
    [m.id for m in api.list_models(author="rs", pipeline_tag="image-feature-extraction")],
    [i.item_id for c in api.list_collections(owner="rs") for i in api.get_collection(c.slug).items],
    [t.name for t in api.list_repo_refs("rs/quickstart").tags],
]))
"""
    by_tag, by_task, collections, tags = asked(hub, tmp_path, find, token=None)
    assert "rs/quickstart" in by_tag
    assert "rs/quickstart" in by_task
    assert "rs/quickstart-private" not in by_tag + by_task
    assert collections == ["rs/quickstart"]
    assert tags == ["v1"]
    for revision in ((), ("v1",)):
        answer = asked(
            hub, tmp_path, NATIVE, "rs/quickstart", *revision, token=None, forbid=NO_OTHERS
        )
        assert answer["kind"] == "ResNetModel"
        assert_loaded(answer, expected)
    hub.forget()
    for revision in ((), ("v1",)):
        answer = asked(
            hub,
            tmp_path,
            NATIVE,
            "rs/quickstart",
            *revision,
            token=None,
            offline=True,
            forbid=NO_OTHERS,
        )
        assert_loaded(answer, expected)
    assert hub.requests() == []


def test_everything_else_that_the_card_says_works(hub, tmp_path):
    code = (
        PROBE
        + """
import numpy as np
from PIL import Image
from transformers import (
    AutoBackbone, AutoImageProcessor, AutoModelForImageClassification, pipeline
)
name = "rs/quickstart"
processor = AutoImageProcessor.from_pretrained(name, revision="v1")
image = Image.fromarray(np.full((50, 70, 3), 90, np.uint8))
classifier = AutoModelForImageClassification.from_pretrained(name, num_labels=3)
logits = classifier(**processor(images=image, return_tensors="pt")).logits
backbone = AutoBackbone.from_pretrained(name, out_indices=[1, 2])
features = pipeline("image-feature-extraction", model=name)(image)
print(json.dumps([
    list(logits.shape), len(backbone(x).feature_maps), np.shape(features)[-3:],
    processor.size["height"],
]))
"""
    )
    logits, maps, shape, size = asked(hub, tmp_path, code, token=None, forbid=NO_OTHERS)
    assert (logits, maps, size) == ([1, 3], 2, 32)
    assert len(shape) == 3


def test_timm_loads_the_same_weights(hub, tmp_path, expected):
    code = (
        PROBE
        + """
import timm
model = timm.create_model("hf-hub:rs/quickstart", pretrained=True).eval()
with torch.no_grad():
    told(model(x))
"""
    )
    answer = asked(hub, tmp_path, code, token=None, forbid=("rs_models", "transformers"))
    assert_loaded(answer, expected)


def test_datasets_loads_the_data_set_and_then_without_a_network(hub, tmp_path):
    code = """
import json, sys
from datasets import load_dataset
rows = load_dataset("rs/rsscn7-mini", split="train", revision="v1")
row = rows[0]
print(json.dumps([len(rows), rows.features["label"].names, row["image"].size, row["label"]]))
"""
    online = asked(hub, tmp_path, code, token=None, forbid=("rs_models", "transformers"))
    assert online[0] == 21
    assert online[1][3] == "RiverLake"
    hub.forget()
    offline = asked(hub, tmp_path, code, token=None, offline=True)
    assert offline == online
    assert hub.requests() == []


def test_a_space_is_there_with_its_sdk(hub):
    info = json.loads(hub.ask("GET", "/api/spaces/rs/compare", token=None).body)
    assert info["sdk"] == "gradio"
    assert {"app.py", "README.md"} <= {entry["rfilename"] for entry in info["siblings"]}


def test_a_private_model_is_its_owners(hub, tmp_path, expected):
    for user in (None, "reader"):
        home = tmp_path / str(user)
        home.mkdir()
        answer = asked(hub, home, NATIVE, "rs/quickstart-private", token=user)
        assert "rs/quickstart-private" in answer["error"]
    (tmp_path / "owner").mkdir()
    assert_loaded(asked(hub, tmp_path / "owner", NATIVE, "rs/quickstart-private"), expected)


def test_a_gated_model_opens_after_the_grant(hub, tmp_path, expected):
    answer = asked(hub, tmp_path, NATIVE, "rs/quickstart-gated", token="reader")
    assert "gated" in answer["error"]
    grant = json.dumps({"user": "reader"}).encode()
    hub.ask("POST", "/api/models/rs/quickstart-gated/user-access-request/grant", grant)
    answer = asked(hub, tmp_path, NATIVE, "rs/quickstart-gated", token="reader")
    assert_loaded(answer, expected)


OURS = (
    PROBE
    + """
import rs_models
from transformers import AutoModelForPreTraining
from rs_models.evaluation.loading import load_encoder
method = AutoModelForPreTraining.from_pretrained("rs/quickstart-pretraining", use_safetensors=True)
encoder = load_encoder("rs/quickstart")
rows = rs_models.load_data("rs/rsscn7-mini", "test")
with torch.no_grad():
    told(
        rs_models.backbones.pooled(rs_models.load_backbone("rs/quickstart"), x),
        method=type(method).__name__, rows=len(rows), revision=encoder.revision,
    )
"""
)


def test_rs_models_loads_the_method_the_backbone_and_the_data(hub, tmp_path, expected):
    answer = asked(hub, tmp_path, OURS, token=None, forbid=())
    assert_loaded(answer, expected)
    assert (answer["method"], answer["rows"]) == ("TovForPreTraining", 7)
    info = json.loads(hub.ask("GET", "/api/models/rs/quickstart").body)
    assert answer["revision"] == info["sha"]  # what a result records
    hub.forget()
    assert_loaded(asked(hub, tmp_path, OURS, token=None, forbid=(), offline=True), expected)
    assert hub.requests() == []


def test_a_local_hub_folder_needs_no_network_at_all(hub, tmp_path, expected):
    """Filled by `hf download` on another machine, or by hand."""
    fetch = """
import sys
from huggingface_hub import snapshot_download
for name, kind in (("rs/quickstart", "model"), ("rs/quickstart-pretraining", "model"),
                   ("rs/rsscn7-mini", "dataset")):
    snapshot_download(name, repo_type=kind, revision="v1", local_dir=f"{sys.argv[1]}/{name}")
"""
    folder = tmp_path / "hub"
    (tmp_path / "home").mkdir()
    hub.python(fetch, tmp_path / "home", str(folder), token=None)
    hub.forget()
    empty = tmp_path / "empty"
    empty.mkdir()
    code = OURS.replace(
        'from_pretrained("rs/quickstart-pretraining"',
        'from_pretrained(rs_models.zoo.resolve("rs/quickstart-pretraining")',
    ).replace("import rs_models\n", "import rs_models, rs_models.zoo\n")
    answer = asked(
        hub, empty, code, token=None, forbid=(), offline=True, RS_MODELS_HUB_DIR=str(folder)
    )
    assert_loaded(answer, expected)
    assert answer["rows"] == 7
    # A plain id works too where the folder is the current one: a folder comes before the Hub.
    done = hub.python(
        f"import os; os.chdir({str(folder)!r})\n" + NATIVE, empty, "rs/quickstart", offline=True
    )
    assert_loaded(json.loads(done.stdout.splitlines()[-1]), expected)
    assert hub.requests() == []


def test_a_copied_cache_serves_ids_without_a_network(hub, tmp_path, expected):
    (tmp_path / "one").mkdir()
    fetch = """
from huggingface_hub import snapshot_download
snapshot_download("rs/quickstart"); snapshot_download("rs/rsscn7-mini", repo_type="dataset")
snapshot_download("rs/quickstart-pretraining")
"""
    hub.python(fetch, tmp_path / "one", token=None)
    shutil.copytree(tmp_path / "one" / "hub", tmp_path / "two" / "hub", symlinks=True)
    hub.forget()
    answer = asked(hub, tmp_path / "two", OURS, token=None, forbid=(), offline=True)
    assert_loaded(answer, expected)
    assert hub.requests() == []


def test_what_is_not_there_without_a_network_is_told(hub, tmp_path):
    code = "from rs_models.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    for arguments, words in (
        (("info", "rs/quickstart"), "HF_HUB_OFFLINE is set"),
        (("evaluate", "model=rs/quickstart", "data.name=synthetic"), "No model at 'rs/quickstart'"),
        (("embed", "rs/none", "--model", "x/y", "--output", "o"), "No model at 'x/y'"),
    ):
        done = hub.python(code, tmp_path, *arguments, forbid=(), offline=True, check=False)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert hub.requests() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503, "times": 1},
        {"kind": "status", "status": 503, "times": 99},
        {"kind": "cut", "times": 1},
        {"kind": "cut", "times": 99},
        {"kind": "truncate", "times": 1},
        {"kind": "truncate", "times": 99},
        {"kind": "checksum", "times": 99},
        {"kind": "slow", "seconds": 2, "times": 1},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault['times']}",
)
def test_a_download_in_trouble_is_completed_or_told(hub, tmp_path, expected, fault):
    """Nothing half-loaded: the right features, or one sentence and, once healed, the right ones."""
    ours = (
        PROBE.replace("import json", "import huggingface_hub.utils._http as t\nimport json")
        + """
t.time.sleep = lambda seconds: None  # the client's own retries wait for seconds
import rs_models
from rs_models.errors import ServiceError, UserError
try:
    with torch.no_grad():
        told(rs_models.backbones.pooled(rs_models.load_backbone("rs/quickstart"), x))
except (ServiceError, UserError) as error:
    print(json.dumps({"error": str(error)}))
"""
    )
    hub.fail(**fault, method="GET", path="/-/cdn/")
    answer = asked(hub, tmp_path, ours, token=None, forbid=())
    if "error" in answer:
        assert "rs/quickstart" in answer["error"]
        assert "\n" not in answer["error"]
    else:
        assert_loaded(answer, expected)
    if fault["times"] == 99:
        assert "error" in answer
    elif fault["kind"] != "status":  # the client itself tries again after a broken connection
        assert "error" not in answer
    hub.heal()
    if fault["kind"] == "checksum":
        # The client keeps what it was given: `hf cache verify` finds it, a new download mends it.
        shutil.rmtree(tmp_path / "hub")
    assert_loaded(asked(hub, tmp_path, ours, token=None, forbid=()), expected)


def test_pickled_weights_are_never_opened(hub, tmp_path):
    made = """
import json, sys
from huggingface_hub import HfApi, CommitOperationAdd
api = HfApi()
api.create_repo("rs/old")
config = CommitOperationAdd(
    "config.json", api.hf_hub_download("rs/quickstart", "config.json")
)
weights = CommitOperationAdd("pytorch_model.bin", b"cos\\nsystem\\n")
api.create_commit("rs/old", [config, weights], commit_message="old")
"""
    hub.python(made, tmp_path)
    code = "import rs_models\ntry:\n    rs_models.load_backbone('rs/old')\n"
    code += "except rs_models.UserError as error:\n    print(error)\n"
    done = hub.python(code, tmp_path, forbid=())
    assert "Cannot load 'rs/old'" in done.stdout
    assert not any("pytorch_model.bin" in r.path and r.method == "GET" for r in hub.requests())


def test_embeddings_of_a_hub_data_set_by_a_hub_model(hub, tmp_path):
    done = hub.python(
        CLI,
        tmp_path,
        *("embed", "rs/rsscn7-mini", "--model", "rs/quickstart", "--output", "out", "--json"),
        token=None,
        forbid=(),
    )
    assert json.loads(done.stdout[done.stdout.index("{") :])["rows"] == 21
    manifest = json.loads((tmp_path / "out" / "embeddings.json").read_text())
    info = json.loads(hub.ask("GET", "/api/datasets/rs/rsscn7-mini").body)
    assert manifest["job"]["data_revision"] == info["sha"]
