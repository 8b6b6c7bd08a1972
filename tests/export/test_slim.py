"""Half-precision weights that load in float32, and the models that a clone brings."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel

from rs_models import DeepLabV3PlusForSemanticSegmentation, TovConfig, TovForPreTraining
from rs_models.commands.export import main
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.export.slim import slim
from rs_models.settings import run_script
from rs_models.zoo import CLONE, ZOO, resolve
from tests.conftest import ROOT
from tests.evaluation.test_features import provenance
from tests.support.models import glcnet_run, nano

FOLDERS = sorted((ROOT / "hub" / "rs").glob("*/"))


def test_half_the_size_and_the_same_features(tmp_path):
    export(nano("resnet_nano"), tmp_path / "whole", provenance=provenance())
    slim(tmp_path / "whole", tmp_path / "small")
    names = {path.name for path in (tmp_path / "small").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert {t.dtype for t in load_file(tmp_path / "small" / "model.safetensors").values()} <= {
        torch.float16,
        torch.int64,
    }
    whole, small = (
        AutoModel.from_pretrained(tmp_path / name, use_safetensors=True).eval()
        for name in ("whole", "small")
    )
    assert small.dtype == torch.float32
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (model(x).pooler_output for model in (whole, small))
    assert (a - b).abs().max() < 0.01 * a.abs().max()


def test_the_command_halves_an_exported_backbone_and_a_methods_checkpoint(tmp_path, capsys):
    whole = tmp_path / "whole"
    export(nano("resnet_nano"), whole, provenance=provenance())
    assert run_script(main, [str(whole), str(tmp_path / "small"), "--half"]) == 0
    assert load_file(tmp_path / "small" / "model.safetensors").popitem()[1].dtype == torch.float16
    record = provenance()
    statistics = {key: record[key] for key in ("image_mean", "image_std")}
    config = TovConfig(backbone_config=nano("resnet_nano").config, **statistics)
    config.rs_models = record
    TovForPreTraining(config).save_pretrained(tmp_path / "run" / "pretraining")
    assert run_script(main, [str(tmp_path / "run"), str(tmp_path / "out"), "--half"]) == 0
    assert AutoModel.from_pretrained(tmp_path / "out", use_safetensors=True).dtype == torch.float32
    assert run_script(main, [str(whole), str(tmp_path / "out"), "--half"]) == 2
    assert "exists: choose another folder" in capsys.readouterr().err


def test_a_decoder_is_halved_with_the_backbone_and_says_the_same(tmp_path):
    run = glcnet_run(tmp_path / "run")
    slim(run / "export", tmp_path / "small")
    whole, small = run / "segmentation", tmp_path / "small" / "segmentation"
    assert {path.name for path in small.iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json")
    }
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, small)]
    assert sizes[1] < 0.6 * sizes[0]
    networks = [
        DeepLabV3PlusForSemanticSegmentation.from_pretrained(folder).eval()
        for folder in (whole, small)
    ]
    assert networks[1].dtype == torch.float32
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (network(x).logits for network in networks)
    assert (a - b).abs().max() < 0.01 * a.abs().max()
    # The slim repository is one again; a backbone without a decoder gets none.
    slim(tmp_path / "small", tmp_path / "again")
    assert (tmp_path / "again" / "segmentation" / "model.safetensors").is_file()
    export(nano("resnet_nano"), tmp_path / "plain", provenance=provenance())
    assert not (slim(tmp_path / "plain", tmp_path / "out") / "segmentation").exists()


def test_what_cannot_be_halved_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no exported backbone"):
        slim(tmp_path, tmp_path / "out")
    export(nano("resnet_nano"), tmp_path / "whole", provenance=provenance())
    path = tmp_path / "whole" / "model.safetensors"
    weights = load_file(path)
    weights["embedder.embedder.convolution.weight"].flatten()[0] = 1e6
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="beyond float16's range"):
        slim(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_clone_brings_all_six_methods_in_150_megabytes():
    assert {folder.name.partition("-")[0] for folder in FOLDERS} == {
        *("rsisc", "tov", "false", "sticl", "glcnet", "last")
    }
    size = sum(file.stat().st_size for file in (ROOT / "hub" / "rs").rglob("*") if file.is_file())
    assert size <= 150e6
    assert {folder.name for folder in FOLDERS} <= {model.name for model in ZOO}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_model_of_the_clone_loads_without_us_and_says_what_it_is(folder):
    model = AutoModel.from_pretrained(folder, use_safetensors=True)
    assert model.dtype == torch.float32
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "architecture" not in said and not (folder / "timm.safetensors").exists()
    size = AutoImageProcessor.from_pretrained(folder).size["height"]
    assert size == said["rs_models"]["train_size"]
    card = (folder / "README.md").read_bytes()
    assert card == (ROOT / "model_cards" / "rendered" / folder.name / "README.md").read_bytes()
    assert resolve(f"rs/{folder.name}") == str(CLONE / "rs" / folder.name)


def test_glcnets_decoder_is_in_the_clone_and_is_found_by_name():
    folder = resolve("rs/glcnet-resnet-mini-aid/segmentation")
    network = DeepLabV3PlusForSemanticSegmentation.from_pretrained(
        folder, num_labels=6, ignore_mismatched_sizes=True
    )
    backbone = AutoModel.from_pretrained(ROOT / "hub" / "rs" / "glcnet-resnet-mini-aid")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert network.eval()(x).logits.shape == (1, 6, 64, 64)
    whole = network.backbone.state_dict()
    for key, value in backbone.state_dict().items():
        assert torch.equal(whole[key], value), key


def test_what_a_half_cannot_hold_or_nobody_says_is_refused(tmp_path):
    export(nano("resnet_nano"), tmp_path / "whole", provenance=provenance())
    file = tmp_path / "whole" / "model.safetensors"
    weights = load_file(file)
    key = "embedder.embedder.convolution.weight"
    for factor in (1e9, 1e-9):  # to infinity, and to nothing
        save_file({**weights, key: weights[key] * factor}, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match="beyond float16's range"):
            slim(tmp_path / "whole", tmp_path / "small")
    save_file(weights, file, metadata={"format": "pt"})
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    del config["rs_models"]
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not say what it was trained on"):
        slim(tmp_path / "whole", tmp_path / "small")
    assert not (tmp_path / "small").exists()
