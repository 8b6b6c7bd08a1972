from __future__ import annotations

import dataclasses

import pytest

import rs_models
from rs_models import backbones, load_data, load_encoder, zoo
from rs_models.backbones import loading
from rs_models.errors import UserError
from rs_models.predict.model import load_predictor
from rs_models.zoo import method_of, pinned_revision, resolve, revision_of
from tests.data import make


def test_a_folder_wins_then_the_local_hub_then_the_hub(tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    (hub / "rs" / "rsisc-resnet50").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RS_MODELS_HUB_DIR", raising=False)
    assert resolve("rs/rsisc-resnet50") == "rs/rsisc-resnet50"
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(hub))
    assert resolve("rs/rsisc-resnet50") == str(hub / "rs" / "rsisc-resnet50")
    assert resolve("rs/last-swin-tiny") == "rs/last-swin-tiny"
    (tmp_path / "rs" / "rsisc-resnet50").mkdir(parents=True)
    assert resolve("rs/rsisc-resnet50") == "rs/rsisc-resnet50"


def test_our_short_names_get_the_namespace(monkeypatch):
    monkeypatch.delenv("RS_MODELS_HUB_DIR", raising=False)
    monkeypatch.delenv("RS_MODELS_NAMESPACE", raising=False)
    assert resolve("rsisc-resnet50") == "rs/rsisc-resnet50"
    monkeypatch.setenv("RS_MODELS_NAMESPACE", "mine")
    assert resolve("rsisc-resnet50") == "mine/rsisc-resnet50"
    assert resolve("rs/rsisc-resnet50") == "rs/rsisc-resnet50"
    assert resolve("resnet50.a1_in1k") == "resnet50.a1_in1k"


def test_a_decoder_is_found_in_the_repository_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(tmp_path))
    folder = tmp_path / "rs" / "glcnet-resnet50" / "segmentation"
    folder.mkdir(parents=True)
    assert resolve("rs/glcnet-resnet50/segmentation") == str(folder)
    for other in ("rs/glcnet-resnet50/other", "rs/sticl-resnet50/segmentation"):
        assert resolve(other) == other


def test_our_names_tell_their_method():
    assert method_of("tov-resnet18") == "tov"
    assert method_of("mine/last-swin-tiny") == "last"
    for other in ("tov", "resnet50.a1_in1k", "facebook/dino-vits16", "baseline:random-resnet18"):
        assert method_of(other) is None


def test_models_are_found_by_what_they_are(monkeypatch):
    monkeypatch.delenv("RS_MODELS_NAMESPACE", raising=False)
    names = {model.name for model in rs_models.list_models(method="tov")}
    assert names == {"tov-resnet50"}
    assert "last-vit-mini-aid" not in {m.name for m in rs_models.list_models(task="detection")}
    assert rs_models.list_models(bands=["red", "green"]) == []
    assert rs_models.list_models(bands="rgbn") == rs_models.list_models()
    assert rs_models.list_models(published=True) == []  # none is on the Hub yet
    model = rs_models.list_models(method="last")[0]
    assert model.repo_id == "rs/last-swin-tiny"
    monkeypatch.setenv("RS_MODELS_NAMESPACE", "mine")
    assert model.pretraining_id == "mine/last-swin-tiny-pretraining"
    for wrong in ({"method": "simclr"}, {"task": "weather"}):
        with pytest.raises(UserError, match="there are"):
            rs_models.list_models(**wrong)


def test_a_published_model_is_loaded_at_its_pinned_revision(monkeypatch):
    row = dataclasses.replace(zoo.ZOO[0], revision="v1")
    monkeypatch.setattr(zoo, "ZOO", (row,))
    assert pinned_revision(row.repo_id) == pinned_revision(row.pretraining_id) == "v1"
    assert pinned_revision("facebook/dino-vits16") is None
    assert revision_of(row.repo_id, None) == "v1" and revision_of(row.repo_id, "v2") == "v2"

    assert rs_models.list_models(published=True) == [row]
    asked = []
    monkeypatch.setattr(
        loading, "read_config", lambda source, revision: asked.append((source, revision)) or {}
    )
    for given in (None, "abc"):
        with pytest.raises(UserError):
            backbones.load(row.name, revision=given)
    assert asked == [(row.repo_id, "v1"), (row.repo_id, "abc")]


def test_a_folder_has_no_revisions(tmp_path):
    assert revision_of(str(tmp_path), None) is None
    with pytest.raises(UserError, match="is a folder, which has no revisions: leave"):
        revision_of(str(tmp_path), "v1")
    for load in (load_encoder, backbones.load, load_predictor):
        with pytest.raises(UserError, match="has no revisions"):
            load(str(tmp_path), revision="v1")
    (tmp_path / "a.png").write_bytes(make.png(make.pixels(0)))
    with pytest.raises(UserError, match="lies here and has no revisions"):
        load_data(tmp_path, revision="main")


def test_a_model_is_called_by_its_run(tmp_path):
    for part in (*zoo.PARTS_OF_A_RUN, "best"):
        (tmp_path / "my-run" / part).mkdir(parents=True)
    names = [zoo.run_name(tmp_path / "my-run" / part) for part in zoo.PARTS_OF_A_RUN]
    assert set(names) == {"my-run"} == {zoo.run_name(tmp_path / "my-run")}
    assert zoo.run_name(tmp_path / "my-run" / "best") == "best"
    assert zoo.run_name("rs/tov-resnet50") == "rs/tov-resnet50"
