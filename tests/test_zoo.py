from __future__ import annotations

from rs_models.zoo import method_of, resolve


def test_a_folder_wins_then_the_local_hub_then_the_hub(tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    (hub / "rs" / "tov-resnet50").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RS_MODELS_HUB_DIR", raising=False)
    assert resolve("rs/tov-resnet50") == "rs/tov-resnet50"
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(hub))
    assert resolve("rs/tov-resnet50") == str(hub / "rs" / "tov-resnet50")
    assert resolve("rs/last-swin-tiny") == "rs/last-swin-tiny"
    (tmp_path / "rs" / "tov-resnet50").mkdir(parents=True)
    assert resolve("rs/tov-resnet50") == "rs/tov-resnet50"


def test_our_short_names_get_the_namespace(monkeypatch):
    monkeypatch.delenv("RS_MODELS_HUB_DIR", raising=False)
    monkeypatch.delenv("RS_MODELS_NAMESPACE", raising=False)
    assert resolve("tov-resnet50") == "rs/tov-resnet50"
    monkeypatch.setenv("RS_MODELS_NAMESPACE", "mine")
    assert resolve("tov-resnet50") == "mine/tov-resnet50"
    assert resolve("rs/tov-resnet50") == "rs/tov-resnet50"
    assert resolve("resnet50.a1_in1k") == "resnet50.a1_in1k"


def test_our_names_tell_their_method():
    assert method_of("tov-resnet18-aid") == "tov"
    assert method_of("mine/last-swin-tiny") == "last"
    for other in ("tov", "resnet50.a1_in1k", "facebook/dino-vits16", "baseline:random-resnet18"):
        assert method_of(other) is None
