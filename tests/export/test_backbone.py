from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import AutoImageProcessor, AutoModel

from rs_models import backbones
from rs_models.bands import resolve_bands
from rs_models.errors import UserError
from rs_models.evaluation.loading import load_encoder
from rs_models.export import export
from rs_models.provenance import PROVENANCE_KEYS, validate_provenance
from tests.support.hub.cache import FakeHub, fake_hub  # noqa: F401
from tests.support.models import assert_features, images, nano, provenance

NANOS = ("resnet_nano", "swin_nano", "vit_nano")


def sample(bands, size=64, seed=0):
    """A stored image, (H, W, C) in the integer type of its sensor."""
    generator = np.random.default_rng(seed)
    if len(resolve_bands(bands)) > 4:
        return generator.integers(0, 10_000, (size, size, 13)).astype(np.uint16)
    return generator.integers(0, 256, (size, size, len(resolve_bands(bands)))).astype(np.uint8)


def normalised(image, meta):
    """What the model was trained with, written out."""
    x = torch.tensor(image.astype(np.float64)) / meta["value_range"][1]
    x = (x - torch.tensor(meta["image_mean"])) / torch.tensor(meta["image_std"])
    return x.permute(2, 0, 1)[None].float()  # (1, C, H, W)


# --- users without rs_models ---------------------------------------------------------------------

# Everything that a user's own program does, by Hub id.
USER_PROGRAM = """
import json, sys
import numpy as np, timm, torch
from PIL import Image
from transformers import (
    AutoImageProcessor, AutoModel, AutoModelForImageClassification, ResNetBackbone, pipeline)

result = {}
for repo, path in zip(sys.argv[1::2], sys.argv[2::2]):
    image = np.load(path)
    model, info = AutoModel.from_pretrained(repo, output_loading_info=True)
    processor = AutoImageProcessor.from_pretrained(repo)
    x = processor(image, return_tensors="pt").pixel_values
    out = result[repo] = {"class": type(model).__name__, "dtype": str(model.dtype)}
    out["clean"] = not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    out["processor"], out["shape"] = type(processor).__name__, list(x.shape)
    with torch.no_grad():
        features = model.eval()(x).pooler_output.flatten(1)
        out["features"] = features[0].tolist()
        other = timm.create_model("hf-hub:" + repo, pretrained=True).eval()
        out["timm"] = float((other(x) - features).abs().max())
        out["timm_features"] = other.num_features
        config = timm.data.resolve_model_data_config(other)
        out["timm_mean"], out["timm_size"] = list(config["mean"]), list(config["input_size"])
        classifier, info = AutoModelForImageClassification.from_pretrained(
            repo, num_labels=30, output_loading_info=True)
        out["logits"] = list(classifier.eval()(x).logits.shape)
        out["new_keys"] = sorted(info["missing_keys"])
        if image.shape[2] == 3:
            extract = pipeline("image-feature-extraction", model=repo)
            pooled = extract(Image.fromarray(image), pool=True)
            out["pipeline"] = float((torch.tensor(pooled).flatten() - features[0]).abs().max())
        if model.config.model_type == "resnet":
            maps = ResNetBackbone.from_pretrained(repo, out_indices=[1, 2, 3, 4])(x).feature_maps
            out["maps"] = [m.shape[1] for m in maps]
            last = maps[-1].mean((2, 3)) - features
            out["backbone"] = float(last.abs().max())
result["imported"] = "rs_models" in sys.modules
print(json.dumps(result))
"""

PUBLISHED = {
    "resnet": ("resnet_nano", "rgb"),
    "swin": ("swin_nano", "rgb"),
    "vit": ("vit_nano", "rgb"),
    "resnet-rgbn": ("resnet_nano", "rgbn"),
    "vit-sentinel2": ("vit_nano", "sentinel2"),
    "swin-sentinel2": ("swin_nano", "sentinel2"),
}


@pytest.fixture(scope="module")
def as_a_user(fake_hub: FakeHub, tmp_path_factory):  # noqa: F811
    """Results of the user's program for each published repository, beside what they should be."""
    folder = tmp_path_factory.mktemp("published")
    arguments, expected = [], {}
    for key, (name, bands) in PUBLISHED.items():
        model = nano(name, bands)
        meta = provenance(model, bands)
        fake_hub.publish(export(model, folder / key, provenance=meta), f"rs/{key}")
        size = 224 if "swin" in key else 64  # of the processor, so that nothing is resized
        image = sample(bands, size)
        np.save(folder / f"{key}.npy", image)
        arguments += [f"rs/{key}", str(folder / f"{key}.npy")]
        with torch.no_grad():
            features = backbones.pooled(model, normalised(image, meta))[0]
        expected[key] = SimpleNamespace(model=model, meta=meta, size=size, features=features)
    found = fake_hub.run(USER_PROGRAM, *arguments)
    assert found.pop("imported") is False
    return {key: (found[f"rs/{key}"], expected[key]) for key in PUBLISHED}


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_user_without_rs_models_gets_the_features(as_a_user, key):
    found, expected = as_a_user[key]
    channels = len(expected.meta["bands"])
    assert found["class"] == type(expected.model).__name__
    assert found["clean"] and found["dtype"] == "torch.float32"
    assert found["processor"].startswith("ViTImageProcessor")
    assert found["shape"] == [1, channels, expected.size, expected.size]
    assert_features(torch.tensor(found["features"]), expected.features)


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_user_of_timm_gets_the_same_features(as_a_user, key):
    found, expected = as_a_user[key]
    channels = len(expected.meta["bands"])
    assert found["timm"] < 1e-4
    assert found["timm_features"] == len(found["features"])
    assert found["timm_mean"] == expected.meta["image_mean"]
    assert found["timm_size"] == [channels, expected.size, expected.size]


@pytest.mark.parametrize("key", PUBLISHED)
def test_heads_and_pipelines_take_the_weights(as_a_user, key):
    found, _ = as_a_user[key]
    assert found["logits"] == [1, 30]
    assert found["new_keys"] and all(k.startswith("classifier.") for k in found["new_keys"])
    if key in ("resnet", "swin", "vit"):
        assert found["pipeline"] < 1e-4
    if key.startswith("resnet"):
        assert found["maps"] == [16, 32, 64, 128] and found["backbone"] < 1e-4


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NANOS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_published_in_float32(name, dtype, tmp_path):
    model = nano(name).to(dtype)
    model.config.dtype = dtype  # as after loading a half precision checkpoint
    export(model, tmp_path / "export", provenance=provenance(model))
    assert model.dtype == dtype
    for file in ("model.safetensors", "timm.safetensors"):
        weights = load_file(tmp_path / "export" / file)
        assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}
    assert json.loads((tmp_path / "export/config.json").read_text())["dtype"] == "float32"
    assert AutoModel.from_pretrained(tmp_path / "export").dtype == torch.float32


def test_the_pooler_of_a_vit_is_the_class_token_whatever_became_of_it(tmp_path):
    model = nano("vit_nano")
    nn.init.normal_(model.pooler.dense.weight)
    export(model, tmp_path / "export", provenance=provenance(model))
    with torch.no_grad():
        output = AutoModel.from_pretrained(tmp_path / "export")(images())
    assert_features(output.pooler_output, output.last_hidden_state[:, 0])


def test_the_method_around_a_backbone_is_left_out(tmp_path):
    backbone = nano("resnet_nano")
    meta = provenance(backbone)
    method = nn.Module()
    method.backbone = method.exported = backbone
    method.projector = nn.Linear(128, 8)
    method.config = SimpleNamespace(
        **{k: meta[k] for k in ("bands", "value_range", "image_mean", "image_std")}
    )
    export(method, tmp_path / "export", provenance=meta)
    loaded = backbones.load(str(tmp_path / "export"))
    assert_features(backbones.pooled(loaded, images()), backbones.pooled(backbone, images()))
    assert not any("projector" in key for key in load_file(tmp_path / "export/model.safetensors"))
    method.config.image_std = [0.9, 0.9, 0.9]
    with pytest.raises(UserError, match="image_std"):
        export(method, tmp_path / "other", provenance=meta)


def test_others_may_read_the_files(tmp_path):
    model = nano("resnet_nano")
    folder = export(model, tmp_path / "export", provenance=provenance(model))
    assert folder.stat().st_mode & 0o005 == 0o005
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in folder.iterdir())


def test_provenance_and_processor_come_back(tmp_path):
    model = nano("resnet_nano")
    meta = provenance(
        model, data=["general", "timm/eurosat-rgb"], data_revision=[None, "abc"], epochs=1.5
    )
    export(model, tmp_path / "export", provenance=meta)
    loaded = backbones.load(str(tmp_path / "export"))
    assert loaded.config.rs_models == meta and tuple(meta) == PROVENANCE_KEYS
    processor = AutoImageProcessor.from_pretrained(tmp_path / "export")  # a folder, not an id
    assert type(processor).__name__.startswith("ViTImageProcessor")
    assert list(processor.image_std) == meta["image_std"]
    large = Image.fromarray(sample("rgb", 150)).convert("P")  # another size and kind of image
    assert processor(large, return_tensors="pt").pixel_values.shape == (1, 3, 64, 64)


def test_sixteen_bit_images_are_resized_and_scaled(tmp_path):
    model = nano("resnet_nano", "sentinel2")
    export(model, tmp_path / "export", provenance=provenance(model, "sentinel2"))
    image = np.full((100, 80, 13), 2_500, dtype=np.uint16)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "export")
    x = processor(image, return_tensors="pt").pixel_values
    expected = normalised(np.full((64, 64, 13), 2_500), provenance(model, "sentinel2"))
    torch.testing.assert_close(x, expected, atol=2e-2, rtol=0)


def test_a_vit_trained_at_another_size_is_called_plainly_there(tmp_path):
    """Its position embeddings are of 64 pixels; training at 96 interpolated them at every step."""
    model = nano("vit_nano", image_size=64)
    export(model, tmp_path / "export", provenance=provenance(model, train_size=96))
    x = images(size=96)
    with torch.no_grad():
        plain = AutoModel.from_pretrained(tmp_path / "export")(x).pooler_output
        assert_features(plain, backbones.pooled(model, x))
    assert model.config.image_size == 64


def test_a_dilated_resnet_is_written_as_everybody_reads_it(tmp_path):
    """What we measure by `load_encoder` is what plain `AutoModel` gives."""
    model = backbones.dilate(nano("resnet_nano"), 16, first_block_dilated=True)
    with pytest.raises(UserError, match="output_stride 32 but the backbone has 16"):
        export(model, tmp_path / "export", provenance=provenance(model, output_stride=32))
    export(model, tmp_path / "export", provenance=provenance(model))
    settings = json.loads((tmp_path / "export/config.json").read_text())
    assert settings["rs_models"]["output_stride"] == 32
    assert not {"output_stride", "first_block_dilated"} & settings.keys()
    x = images()
    encoder = load_encoder(str(tmp_path / "export"))
    plain = AutoModel.from_pretrained(tmp_path / "export").eval()
    with torch.no_grad():
        assert_features(encoder.forward(x), plain(x).pooler_output.flatten(1))
        assert plain(x).last_hidden_state.shape[-1] == 2
    loaded = backbones.load(str(tmp_path / "export"))
    assert backbones.output_stride(model.config) == 16  # the source stays as it is
    backbones.dilate(loaded, 16, first_block_dilated=True)
    assert_features(backbones.dense(loaded, x), backbones.dense(model, x))


def test_an_older_export_that_was_dilated_is_read_as_it_was_measured(tmp_path):
    model = backbones.dilate(nano("resnet_nano"), 16, first_block_dilated=True)
    model.config.rs_models = provenance(model)
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    with torch.no_grad():
        assert_features(encoder.forward(images()), backbones.pooled(model, images()))


def test_without_timm(tmp_path):
    model = nano("resnet_nano")
    export(model, tmp_path / "export", provenance=provenance(model), timm=False)
    settings = json.loads((tmp_path / "export/config.json").read_text())
    assert "architecture" not in settings and "pretrained_cfg" not in settings
    assert not (tmp_path / "export/timm.safetensors").exists()
    AutoImageProcessor.from_pretrained(tmp_path / "export")


def test_an_export_can_be_exported_again(tmp_path):
    model = nano("vit_nano")
    first = export(model, tmp_path / "first", provenance=provenance(model))
    again = backbones.load(str(first), bands="rgbn")
    export(again, tmp_path / "second", provenance=provenance(again, "rgbn"))
    settings = json.loads((tmp_path / "second/config.json").read_text())
    assert settings["rs_models"]["bands"] == ["red", "green", "blue", "nir"]
    assert settings["pretrained_cfg"]["input_size"][0] == 4
    assert settings["pretrained_cfg"]["first_conv"] is None


def test_random_numbers_of_the_run_do_not_move(tmp_path):
    model = nano("resnet_nano")
    state = torch.get_rng_state()
    export(model, tmp_path / "export", provenance=provenance(model))
    assert torch.equal(torch.get_rng_state(), state)


# --- failures ------------------------------------------------------------------------------------


def test_an_older_export_survives_a_failure(tmp_path, monkeypatch):
    model = nano("resnet_nano")
    target = export(model, tmp_path / "export", provenance=provenance(model, epochs=1))

    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("rs_models.export.backbone.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        export(model, target, provenance=provenance(model, epochs=2))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert backbones.load(str(target)).config.rs_models["epochs"] == 1
    monkeypatch.undo()
    export(model, target, provenance=provenance(model, epochs=2))
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert backbones.load(str(target)).config.rs_models["epochs"] == 2


def test_files_that_do_not_give_the_features_are_refused(tmp_path, monkeypatch):
    model = nano("resnet_nano")
    names = {key: torch.zeros_like(w) for key, w in model.state_dict().items()}
    original = type(model).save_pretrained
    monkeypatch.setattr(
        type(model),
        "save_pretrained",
        lambda self, folder: original(self, folder, state_dict=names),
    )
    with pytest.raises(RuntimeError, match="differ from the source"):
        export(model, tmp_path / "export", provenance=provenance(model))
    assert not (tmp_path / "export").exists()


def test_a_diverged_model_is_refused(tmp_path):
    model = nano("resnet_nano")
    with torch.no_grad():
        model.get_parameter("embedder.embedder.convolution.weight")[0] = float("nan")
    with pytest.raises(UserError, match=r"embedder\.embedder\.convolution\.weight holds NaN"):
        export(model, tmp_path / "export", provenance=provenance(model))


def test_other_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="Cannot export a Linear"):
        export(nn.Linear(2, 2), tmp_path / "export", provenance=provenance(nano("resnet_nano")))


def test_provenance_of_other_bands_is_refused(tmp_path):
    with pytest.raises(UserError, match="names 4 bands but the backbone takes 3"):
        export(
            nano("resnet_nano"), tmp_path / "x", provenance=provenance(nano("resnet_nano"), "rgbn")
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", ""),
        ("bands", ["red", "green", "infra-purple"]),
        ("value_range", [255, 0]),
        ("value_range", 255),
        ("image_mean", [0.5]),
        ("image_mean", [0.5, float("nan"), 0.5]),
        ("image_std", [0.1, 0.0, 0.1]),
        ("train_size", 64.0),
        ("output_stride", 0),
        ("data", []),
        ("data_revision", 3),
        ("epochs", -1),
        ("version", None),
        ("commit", 7),
    ],
)
def test_provenance_is_checked_key_by_key(key, value):
    model = nano("resnet_nano")
    validate_provenance(provenance(model))
    with pytest.raises(UserError, match="infra-purple" if key == "bands" else f"'{key}'"):
        validate_provenance(provenance(model, **{key: value}))


def test_provenance_has_exactly_its_keys():
    meta = provenance(nano("resnet_nano"))
    with pytest.raises(UserError, match=r"missing \['commit'\]"):
        validate_provenance({key: value for key, value in meta.items() if key != "commit"})
    with pytest.raises(UserError, match=r"unknown \['licence'\]"):
        validate_provenance({**meta, "licence": "x"})
    assert validate_provenance({**meta, "bands": ("R", "B03", "blue")})["bands"] == [
        "red",
        "green",
        "blue",
    ]
