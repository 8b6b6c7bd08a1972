"""What strangers' models may say, and what the network may do: one sentence, never a question."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from rs_models import DeepLabV3PlusForSemanticSegmentation, GlcnetForPreTraining, backbones
from rs_models.cli import main
from rs_models.errors import ServiceError, UserError, http_error, load_error
from rs_models.evaluation.loading import load_encoder
from rs_models.predict.model import load_predictor
from tests.support.models import images, nano, provenance

DOORS = {
    "load": backbones.load,
    "encoder": load_encoder,
    "predictor": load_predictor,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A native folder with provenance."""
    folder = tmp_path_factory.mktemp("whole")
    model = nano("resnet_nano")
    model.config.rs_models = provenance(model)
    model.save_pretrained(folder)
    return folder


def changed(whole, folder, **settings):
    """A copy of the folder whose config.json says other things."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes())
    config = json.loads((whole / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return str(folder)


@pytest.mark.parametrize("door", DOORS)
def test_code_of_a_models_own_is_refused_and_never_asked_for(whole, tmp_path, door, monkeypatch):
    def ask(*_):
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", ask)
    own = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForSemanticSegmentation": "code.M"},
        "architectures": ["MineForSemanticSegmentation"],
    }
    folder = changed(whole, tmp_path / "own", **own)
    (tmp_path / "own" / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match=r"brings code of its own \(auto_map.*never run"):
        DOORS[door](folder)


def test_a_native_model_is_loaded_natively_whatever_auto_map_says(whole, tmp_path):
    folder = changed(whole, tmp_path / "m", auto_map={"AutoModel": "code.M"})
    (tmp_path / "m" / "code.py").write_text("raise SystemExit('ran')")
    assert type(backbones.load(folder)).__name__ == "ResNetModel"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("text", ["[1]", "null", "{}", "3", "{broken", "[" * 100_000])
def test_a_config_that_is_no_object_is_told(whole, tmp_path, door, text):
    changed(whole, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"No model at .*config\.json"):
        DOORS[door](str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depths": [10**6, 1, 1, 1]}, "impossible size .depths"),
        ({"depths": [1] * 10**5, "hidden_sizes": [8] * 10**5}, "impossible size"),
        ({"hidden_sizes": [10**9, 8, 8, 8]}, "impossible size .hidden_sizes"),
        ({"backbone_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers"),
        ({"hidden_sizes": "abc"}, "Cannot load"),
        ({"hidden_sizes": [], "depths": []}, "Cannot load"),
        ({"depths": [-1, 1, 1, 1]}, "impossible size"),
        ({"layer_type": "none"}, "Cannot load"),
        ({"rs_models": "text"}, "rs_models in config.json of .* is not an object"),
    ],
)
def test_settings_that_no_network_can_have_are_refused(whole, tmp_path, settings, words):
    folder = changed(whole, tmp_path / "m", **settings)
    with pytest.raises(UserError, match=words) as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers_are_refused(whole, tmp_path, dtype):
    folder = changed(whole, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    weights = load_file(path)
    name = "embedder.embedder.convolution.weight"
    weights[name] = weights[name].mul(100).to(dtype)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"stores embedder.*quantised"):
        backbones.load(folder)


def test_no_saved_config_tells_where_a_backbone_lay(whole, tmp_path):
    model = backbones.load(str(whole))
    networks = (
        DeepLabV3PlusForSemanticSegmentation.over(model, num_labels=3),
        GlcnetForPreTraining.from_backbone(str(whole)),
    )
    for number, network in enumerate((model, *networks)):
        network.save_pretrained(tmp_path / str(number))
        text = (tmp_path / str(number) / "config.json").read_text()
        assert "backbone_config" in text or number == 0
        assert str(whole) not in text


def test_half_precision_is_loaded_in_float32(whole, tmp_path):
    folder = changed(whole, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    halves = {k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}
    save_file(halves, path, {"format": "pt"})
    assert backbones.pooled(backbones.load(folder), images()).dtype == torch.float32


@pytest.mark.parametrize("name", ["../../etc", "https://127.0.0.1/x", "rs/../../../etc", "x" * 300])
def test_what_is_no_name_of_a_model_is_told(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # two levels above some checkout there is an etc
    if "/" in name:
        with pytest.raises(UserError, match="no such folder, and it is no Hub id"):
            backbones.load(name)
    assert main(["info", name]) == 2
    assert "Traceback" not in capsys.readouterr().err


def answered(status, **headers):
    response = SimpleNamespace(status_code=status, headers=headers, request=None)
    return HfHubHTTPError("no", response=response)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        # A 404 that names nothing is no Hub's.
        *((answered(status), ServiceError) for status in (404, 429, 500, 502, 503, 504)),
        *((answered(status), UserError) for status in (401, 403)),
        (answered(404, **{"X-Error-Code": "RepoNotFound"}), UserError),
        (http_error()("refused"), ServiceError),
        (TimeoutError("slow"), ServiceError),
        (ConnectionResetError("cut"), ServiceError),
        (
            OSError("Consistency check failed: file should be of size 4 but has size 3"),
            ServiceError,
        ),
        (OSError("no file named model.safetensors"), UserError),
    ],
    ids=lambda value: str(value)[:30],
)
def test_faults_of_the_network_are_told_as_such(cause, kind):
    try:
        try:
            raise cause
        except Exception as error:
            raise LocalEntryNotFoundError("not in the cache") from error
    except LocalEntryNotFoundError as error:
        wrapped = OSError("We couldn't connect to the Hub.\nSee the documentation.")
        wrapped.__cause__ = error
    told = load_error("No model at 'rs/x'", cause if kind is UserError else wrapped)
    assert type(told) is kind
    assert str(told).startswith("No model at 'rs/x': ") and str(told).endswith(".")
    assert "\n" not in str(told)
