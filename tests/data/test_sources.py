"""Opening data sets from every place they can be in."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from datasets import Array3D, ClassLabel, Dataset, DatasetDict, Features, Image, Value

from rs_models.bands import resolve_bands
from rs_models.data import build_cache, load, registry, resolve_revision
from rs_models.data.columns import BandArray, GeoTiff
from rs_models.errors import UserError
from tests.data import make

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def parquet(root, rows=6, split="train", **columns):
    root.mkdir(parents=True, exist_ok=True)
    data = {"image": [make.png(make.pixels(i)) for i in range(rows)], **columns}
    Dataset.from_dict(data).to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
    return root


# Folders of images


def test_class_folders_give_labels(tmp_path):
    rows = load(make.class_folders(tmp_path, {"river": 2, "forest": 3}))
    assert rows.features["label"].names == ["forest", "river"]
    assert rows["label"][:] == [0, 0, 0, 1, 1]
    assert isinstance(rows[0]["image"], PIL.Image.Image)
    np.testing.assert_array_equal(np.asarray(rows[3]["image"]), make.pixels(0))


def test_nested_class_folders_stay_apart(tmp_path):
    rows = load(make.class_folders(tmp_path, {"urban/dense": 1, "urban/sparse": 1, "field": 1}))
    assert rows.features["label"].names == ["field", "urban/dense", "urban/sparse"]


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in range(3):
        make.save(tmp_path / f"{i}.jpg", seed=i)
    rows = load(tmp_path)
    assert rows.column_names == ["image"]
    assert len(rows) == 3


def test_split_folders_number_classes_alike(tmp_path):
    """A class that one split lacks must not shift the numbers of the others."""
    make.class_folders(tmp_path / "train", {"beach": 1, "river": 1})
    make.class_folders(tmp_path / "val", {"forest": 1, "river": 1})
    train, val = load(tmp_path, "train"), load(tmp_path, "validation")
    names = ["beach", "forest", "river"]
    assert train.features["label"].names == val.features["label"].names == names
    assert train["label"][:] == [0, 2]
    assert load(tmp_path, "val")["label"][:] == [1, 2]
    with pytest.raises(UserError, match=r"no split 'test': it has train, validation"):
        load(tmp_path, "test")


def test_split_of_a_folder_without_splits(tmp_path):
    make.class_folders(tmp_path, {"river": 1})
    with pytest.raises(UserError, match=r"no split 'test': it has train"):
        load(tmp_path, "test")


def test_hidden_files_are_left_out(tmp_path):
    make.class_folders(tmp_path, {"river": 1})
    make.save(tmp_path / ".cache" / "x.png", seed=0)
    make.save(tmp_path / "__MACOSX" / "x.png", seed=0)
    assert len(load(tmp_path)) == 1


def test_changed_files_change_the_fingerprint(tmp_path):
    make.class_folders(tmp_path, {"river": 2})
    before = load(tmp_path)._fingerprint
    assert load(tmp_path)._fingerprint == before
    make.save(tmp_path / "river" / "000.png", seed=9, height=22)
    assert load(tmp_path)._fingerprint != before


def test_folder_errors_say_what_is_there(tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        load(tmp_path)
    make.class_folders(tmp_path, {"river": 1})
    loose = make.save(tmp_path / "loose.png", seed=1)
    with pytest.raises(UserError, match=r"loose\.png lies beside class folders"):
        load(tmp_path)
    loose.unlink()
    make.tiles(tmp_path / "tiles", make.pixels(0)[None])
    with pytest.raises(UserError, match="1 images and 1 TIFF"):
        load(tmp_path)


# Parquet


def test_parquet_of_another_schema(tmp_path):
    """Bytes and strings without any Hugging Face metadata, under other names."""
    root = tmp_path / "data"
    root.mkdir()
    table = {
        "img": [make.png(make.pixels(i)) for i in range(3)],
        "kind": ["sea", "land", "sea"],
    }
    Dataset.from_dict(table).to_pandas().to_parquet(root / "part.parquet")
    rows = load(root, columns={"image": "img", "label": "kind"})
    assert rows.features["label"].names == ["land", "sea"]
    assert rows["label"][:] == [1, 0, 1]
    np.testing.assert_array_equal(np.asarray(rows[2]["image"]), make.pixels(2))


def test_the_only_image_column_is_found(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    features = Features({"picture": Image(), "id": Value("int64")})
    rows = {"picture": [{"bytes": make.png(make.pixels(0)), "path": None}], "id": [7]}
    Dataset.from_dict(rows, features=features).to_parquet(str(root / "train.parquet"))
    assert load(root).column_names == ["image", "id"]


def test_integer_labels_become_classes(tmp_path):
    rows = load(parquet(tmp_path / "data", label=[0, 2, 2, 0, 1, 1]))
    assert rows.features["label"] == ClassLabel(names=["0", "1", "2"])


def test_splits_by_name_and_by_folder(tmp_path):
    root = tmp_path / "data"
    parquet(root, rows=4)
    parquet(root, rows=2, split="val")
    parquet(root / "test", rows=1, split="part")
    assert [len(load(root, s)) for s in ("train", "validation", "test")] == [4, 2, 1]
    assert len(load(root / "train-00000-of-00001.parquet")) == 4


def test_saved_to_disk(tmp_path):
    rows = load(make.class_folders(tmp_path / "images", {"river": 2}))
    DatasetDict(train=rows).save_to_disk(str(tmp_path / "saved"))
    assert load(tmp_path / "saved")["label"][:] == [0, 0]
    with pytest.raises(UserError, match="no split 'test'"):
        load(tmp_path / "saved", "test")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"split": "test"}, "no split 'test': it has train"),
        ({"columns": {"image": "picture"}}, "no column 'picture' for 'image': it has image, x"),
        ({"columns": {"picture": "image"}}, "key 'picture'"),
        ({"columns": {"image": "x"}}, r"'image' column .* not an image"),
        ({"bands": "rgbn"}, r"nir asked for, but .* has red, green, blue"),
    ],
)
def test_parquet_errors(tmp_path, arguments, said):
    root = parquet(tmp_path / "data", x=list(range(6)))
    with pytest.raises(UserError, match=said):
        load(root, **arguments)


def test_no_image_column(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    Dataset.from_dict({"text": ["a"], "x": [1]}).to_parquet(str(root / "train.parquet"))
    with pytest.raises(UserError, match=r"no 'image' column \(it has text, x\)"):
        load(root)


def test_float_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"row 0 of .* is 0\.5, which is no class"):
        load(parquet(tmp_path / "data", label=[0.5] * 6))


def test_broken_parquet_is_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read as Parquet"):
        load(tmp_path)


def test_strict_names_the_first_corrupt_row(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    images = [make.png(make.pixels(0)), make.png(make.pixels(1))[:60], b"nothing"]
    Dataset.from_dict({"image": images}).to_parquet(str(root / "train.parquet"))
    assert len(load(root)) == 3
    with pytest.raises(UserError, match="row 1 cannot be read"):
        load(root, strict=True)


# More bands


def test_arrays_get_their_band_names(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    array = np.random.default_rng(0).integers(0, 9000, (3, 4, 8, 8)).astype(np.uint16)
    features = Features({"image": Array3D((4, 8, 8), "uint16")})
    Dataset.from_dict({"image": array}, features=features).to_parquet(str(root / "train.parquet"))
    rows = load(root, bands=["B02", "B03", "B04", "B08"])
    assert rows.features["image"].bands == ["blue", "green", "red", "nir"]
    np.testing.assert_array_equal(rows[1]["image"], np.moveaxis(array[1], 0, 2))
    # The names travel with the column.
    part = rows.select([2, 1])
    cache = build_cache(part, bands=["nir", "red"], cache_dir=tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(cache.images[1].numpy(), array[1][[3, 2]])
    assert cache.value_range == (0, 10_000)
    with pytest.raises(UserError, match=r"shape \(4, 8, 8\), and 3 band names"):
        load(root, bands="rgb")


def test_known_sets_know_their_bands(tmp_path, monkeypatch):
    """EuroSAT's 13 bands: RGB is found by name, though nobody repeats all thirteen."""
    from rs_models.data import hub

    array = np.arange(2 * 13, dtype=np.uint16).reshape(2, 1, 1, 13).repeat(4, 1).repeat(4, 2) + 300
    features = Features({"image": Array3D((4, 4, 13), "uint16"), "label": ClassLabel(names=["a"])})
    rows = Dataset.from_dict({"image": array, "label": [0, 0]}, features=features)
    monkeypatch.setattr(hub.HubSource, "open", lambda *_, **__: rows)
    opened = load("eurosat_msi", bands="rgb")
    assert isinstance(opened.features["image"], BandArray)
    cache = build_cache(opened, bands="rgb", cache_dir=tmp_path, progress=False)
    assert cache.images[0, :, 0, 0].tolist() == [303, 302, 301]
    assert registry.EUROSAT_MS_BANDS[-1] == "nir_narrow"
    with pytest.raises(UserError, match="vv asked for"):
        load("eurosat_msi", bands=["vv"])


def test_nir_column_joins_when_asked_for(tmp_path):
    nir = [make.png(make.pixels(50 + i, bands=1)[..., 0]) for i in range(6)]
    rows = load(parquet(tmp_path / "data", nir=nir), bands="rgbn")
    cache = build_cache(rows, bands="rgbn", cache_dir=tmp_path / "cache", progress=False)
    assert cache.bands == ("red", "green", "blue", "nir")
    np.testing.assert_array_equal(cache.images[2, 3].numpy(), make.pixels(52, bands=1)[..., 0])
    np.testing.assert_array_equal(cache.images[2, 0].numpy(), make.pixels(2)[..., 0])


def test_tiles_are_read_by_their_band_descriptions(tmp_path):
    array = np.random.default_rng(1).integers(0, 9000, (2, 6, 5, 4)).astype(np.uint16)
    names = ("B02", "B03", "B04", "B08")
    make.tiles(tmp_path / "tiles" / "field", array, descriptions=names)
    # A file with another order: the names count, not the places.
    make.tiles(
        tmp_path / "tiles" / "lake", array[:1, :, :, ::-1], descriptions=tuple(reversed(names))
    )
    rows = load(tmp_path / "tiles", bands="rgb")
    assert isinstance(rows.features["image"], GeoTiff)
    assert rows.features["label"].names == ["field", "lake"]
    for row, expected in ((0, array[0]), (1, array[1]), (2, array[0])):
        np.testing.assert_array_equal(rows[row]["image"], expected[..., [2, 1, 0]])
    assert load(tmp_path / "tiles").features["image"].bands == list(resolve_bands(names))
    with pytest.raises(UserError, match=r"swir1 asked for, but .*000\.tif has blue"):
        load(tmp_path / "tiles", bands=["swir1"])


@pytest.mark.parametrize(
    ("spacecraft", "bands"), [("LANDSAT_7", "green,red,nir"), ("SENTINEL-2A", "rgb"), (None, None)]
)
def test_band_numbers_of_a_tile_are_those_of_the_sensor_that_it_tells(tmp_path, spacecraft, bands):
    import rasterio

    array = np.random.default_rng(1).integers(0, 9000, (1, 6, 5, 3)).astype(np.uint16)
    make.tiles(tmp_path / "tiles", array, descriptions=("B2", "B3", "B4"))
    if spacecraft:
        with rasterio.open(tmp_path / "tiles" / "000.tif", "r+") as raster:
            raster.update_tags(SPACECRAFT_ID=spacecraft)
    if bands is None:  # B4 is red on the one and infrared on the other: it is asked for
        with pytest.raises(UserError, match="numbers without saying whose"):
            load(tmp_path / "tiles")
        found = load(tmp_path / "tiles", bands="blue,green,red").features["image"].bands
        assert found == ["blue", "green", "red"]
        return
    found = load(tmp_path / "tiles").features["image"].bands
    assert sorted(found) == sorted(resolve_bands(bands))


def test_tiles_without_names_need_them_given(tmp_path):
    array = np.random.default_rng(1).integers(0, 9000, (2, 6, 5, 4)).astype(np.uint16)
    root = make.tiles(tmp_path / "tiles", array)
    with pytest.raises(
        UserError, match=r"000\.tif has 4 bands that it does not name.* no band names are given"
    ):
        load(root)
    rows = load(root, bands=["blue", "green", "red", "nir"])
    np.testing.assert_array_equal(rows[1]["image"], array[1])


def test_a_tile_with_other_bands_is_named(tmp_path):
    array = np.random.default_rng(1).integers(0, 9000, (3, 6, 5, 4)).astype(np.uint16)
    root = make.tiles(tmp_path / "tiles", array, descriptions=("B02", "B03", "B04", "B08"))
    make.tiles(tmp_path / "odd", array[:1, :, :, :2], descriptions=("B02", "B03"))
    (tmp_path / "odd" / "000.tif").rename(root / "001.tif")
    rows = load(root, bands="rgb")
    with pytest.raises(UserError, match=r"red asked for, but .*001\.tif has blue, green"):
        build_cache(rows, cache_dir=tmp_path / "cache", progress=False)


# Streaming


@pytest.mark.parametrize("layout", ["folder", "parquet", "tiles", "synthetic"])
def test_streams_have_the_same_rows(tmp_path, layout):
    if layout == "folder":
        name = make.class_folders(tmp_path / "data", {"river": 2, "sea": 1})
    elif layout == "parquet":
        name = tmp_path / "data"
        name.mkdir()
        rows = load(make.class_folders(name / "images", {"river": 2, "sea": 1}))
        rows.to_parquet(str(name / "train.parquet"))
    elif layout == "tiles":
        array = np.random.default_rng(1).integers(0, 9000, (3, 6, 5, 3)).astype(np.uint16)
        name = make.tiles(tmp_path / "data", array, descriptions=("red", "green", "blue"))
    else:
        name = "synthetic:num=3,size=16"
    rows, stream = load(name), list(load(name, streaming=True))
    assert len(stream) == len(rows) == 3
    for one, other in zip(rows, stream, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_array_equal(np.asarray(one["image"]), np.asarray(other["image"]))
        assert one.get("label") == other.get("label")


# The Hub


def test_names_that_are_nowhere():
    with pytest.raises(UserError, match="no folder or file 'eurosat_rbg'"):
        load("eurosat_rbg")
    with pytest.raises(UserError, match="is not in the local cache, and HF_HUB_OFFLINE is set"):
        load("nobody/nothing-here")


def fake_hub(monkeypatch, files, sha="a" * 40):
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo

    siblings = [{"rfilename": name} for name in files]
    info = DatasetInfo(id="a/b", sha=sha, siblings=siblings, private=False, tags=[])
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: info)


def test_script_repositories_are_refused(monkeypatch):
    fake_hub(monkeypatch, ["old.py", "README.md"])
    with pytest.raises(UserError, match=r"script old\.py.*refs/convert/parquet"):
        load("someone/old")
    fake_hub(monkeypatch, ["data.zip", "README.md"])
    with pytest.raises(UserError, match="holds no Parquet files"):
        load("someone/old")


def test_missing_hub_splits_are_listed(monkeypatch):
    import datasets

    fake_hub(monkeypatch, ["data/train-00000.parquet"])

    def load_dataset(*_, split, **__):
        raise ValueError(f'Unknown split "{split}". Should be one of ["train"].')

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train"])
    with pytest.raises(UserError, match=r"someone/set has no split 'validation': it has train"):
        load("someone/set", "val")


def test_the_loaded_commit_is_known(monkeypatch, tmp_path):
    fake_hub(monkeypatch, [], sha="b" * 40)
    assert resolve_revision("timm/eurosat-rgb") == "b" * 40
    assert resolve_revision("timm/eurosat-rgb", "c" * 40) == "c" * 40
    assert resolve_revision(tmp_path) is None
    assert resolve_revision("synthetic:num=3").startswith("synthetic-")


def test_the_commit_offline_is_that_of_the_cache(monkeypatch, tmp_path):
    from huggingface_hub import constants

    ref = tmp_path / "datasets--timm--resisc45" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text("d" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_revision("timm/resisc45") == "d" * 40
    assert resolve_revision("timm/eurosat-rgb") is None


def test_the_registry_holds_together():
    assert registry.find("EuroSAT-RGB") is registry.KNOWN["timm/eurosat-rgb"]
    assert registry.find("nothing") is None
    for name, entry in registry.KNOWN.items():
        assert entry.hub_id == name
        assert resolve_bands(entry.bands) == tuple(entry.bands)
        assert set(entry.splits) <= {"train", "validation", "test"}


# Real images


def test_real_images(shared_data, tmp_path):
    rows = load(shared_data / "rsscn7", "test")
    assert len(rows) == 700
    assert rows.features["label"].num_classes == 7
    trees = load(shared_data / "naip_trees", bands="rgbn")
    cache = build_cache(
        trees, bands="rgbn", image_size=64, cache_dir=tmp_path / "cache", progress=False
    )
    # A third of the scenes, those of one year, have no near infrared: left out, never invented.
    assert tuple(cache.images.shape) == (18, 4, 64, 64)
    assert {reason for _, reason in cache.skipped} == {"the nir band is missing (null)"}
