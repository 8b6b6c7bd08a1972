"""Every layout converts to what both loaders read; what is amiss is told by file name."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from rs_models.commands import convert_dataset
from rs_models.data import load
from rs_models.data.convert import LAYOUTS, convert
from rs_models.errors import UserError
from rs_models.files import sha256
from rs_models.settings import run_script
from tests.conftest import ROOT
from tests.data.convert.tiny import (
    BOX,
    DETECTION,
    SCENES,
    SEGMENTATION,
    SIZE,
    index_mask,
    make,
    pixels,
    save,
)


def converted(name, tmp_path, **settings):
    make(name, tmp_path / "source")
    done = convert(name, [tmp_path / "source"], tmp_path / "out", progress=False, **settings)
    return done, tmp_path / "out"


def bytes_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.mark.parametrize("name", SCENES)
def test_scenes(name, tmp_path):
    layout = LAYOUTS[name]
    done, out = converted(name, tmp_path, strict=True)
    classes = list(layout.classes) or sorted(f"Class {i}" for i in range(46))
    assert (
        sum(done.rows.values())
        == done.images
        == len(classes) * 5 * (2 if done.rows.keys() == {"train", "validation"} else 1)
    )
    rows = load_dataset(str(out), split="train")
    assert rows.features["label"].names == classes
    for row in rows.select(range(3)):
        assert row["file_name"].split("/")[-2] == classes[row["label"]]
    if name == "rsd46-whu":
        assert set(done.rows) == {"train", "validation"}
        return
    assert [done.rows[s] for s in ("train", "validation", "test")] == [
        len(classes) * n for n in (3, 1, 1)
    ]
    row = rows[0]
    stem = row["file_name"].split("/")[1]
    original = next((tmp_path / "source").rglob(stem))
    if name == "eurosat-ms":
        ours = load(out, "train", bands="sentinel2")
        assert ours.features["image"].bands[8] == "nir_narrow"
        stored = np.asarray(row["image"], np.uint16)
        import rasterio

        with rasterio.open(original) as file:
            theirs = file.read().transpose(1, 2, 0)
        assert (stored[..., 8] == theirs[..., 12]).all()  # B8A is their last band
        assert (stored[..., :8] == theirs[..., :8]).all()
        return
    assert (np.asarray(row["image"]) == np.asarray(Image.open(original).convert("RGB"))).all()
    assert load(out, "test").features["label"].names == classes


@pytest.mark.parametrize("name", SEGMENTATION)
def test_images_with_masks(name, tmp_path):
    settings = {"window": 16} if name == "potsdam" else {}
    done, out = converted(name, tmp_path, **settings)
    split = next(iter(done.rows))
    rows = load_dataset(str(out), split=split)
    row = rows[0]
    classes = len(LAYOUTS[name].classes)
    if name == "potsdam":
        assert done.rows == {"train": 18, "test": 9}  # 40 pixels are three windows of 16
        assert [(r["x"], r["y"]) for r in rows.select(range(4))] == [
            (0, 0),
            (16, 0),
            (24, 0),
            (0, 16),
        ]
        whole = pixels(0, 40, 4)
        there = rows[4]
        window = whole[there["y"] : there["y"] + 16, there["x"] : there["x"] + 16]
        assert (np.asarray(there["image"]) == window[..., :3]).all()
        assert (np.asarray(there["nir"]) == window[..., 3]).all()
        expected = index_mask(classes, 40)[16:32, 16:32]
        assert (np.asarray(there["mask"]) == expected).all()
        assert "nir" in load(out, "train", bands="rgbn").features
        return
    expected = index_mask(classes)
    if 255 not in LAYOUTS[name].mask.values():
        expected = np.where(expected == 255, 0, expected)
    assert (np.asarray(row["mask"]) == expected).all()
    assert np.asarray(row["image"]).shape == (SIZE, SIZE, 3)
    if name == "loveda":
        assert set(rows["scene"]) == {"urban", "rural"}
        assert done.rows == {"train": 4, "validation": 4}
    if name == "massachusetts-roads":
        assert done.rows == {"train": 1, "validation": 1, "test": 1}
    if name == "deepglobe-land-cover":
        assert [str(p) for p in done.problems] == [
            "land-valid/77_sat.jpg: there is no mask for this image"
        ]


@pytest.mark.parametrize("name", DETECTION)
def test_images_with_boxes(name, tmp_path):
    done, out = converted(name, tmp_path, strict=True)
    rows = load_dataset(str(out), split="train")
    found = [row["objects"] for row in rows if row["objects"]["bbox"]]
    label = {"levir": "ship", "dior": "windmill", "dota": "harbor"}[name]
    names = LAYOUTS[name].classes
    for objects in found:
        assert objects["bbox"] == [[float(v) for v in BOX]]
        assert [names[i] for i in objects["category"]] == [label]
    if name == "levir":
        assert len(found) == len(rows) - 1 or done.rows["train"] == len(found)
    if name == "dior":
        assert done.rows == {"train": 4, "test": 1}
    if name == "dota":
        assert done.rows == {"train": 4, "validation": 1}
        assert len(found[0]["polygon"][0]) == 8
        assert found[0]["difficult"] == [True]
    load(out, "train")


def test_folders_and_archives_give_the_same_bytes(tmp_path):
    source = make("rsscn7", tmp_path / "somewhere" / "deep")
    with zipfile.ZipFile(tmp_path / "RSSCN7.zip", "w") as file:
        for path in source.rglob("*.jpg"):
            file.write(path, f"other/{path.relative_to(source)}")
        file.writestr("__MACOSX/RSSCN7/aGrass/._x.jpg", b"junk")
    with tarfile.open(tmp_path / "RSSCN7.tar.gz", "w:gz") as bundle:
        bundle.add(source, "RSSCN7")
    outputs = []
    for number, place in enumerate(
        (source, source, tmp_path / "RSSCN7.zip", tmp_path / "RSSCN7.tar.gz")
    ):
        convert("rsscn7", [place], tmp_path / f"out{number}", progress=False)
        content = bytes_of(tmp_path / f"out{number}")
        content.pop("checksums.json")  # names the archives
        outputs.append(content)
    assert outputs[0] == outputs[1] == outputs[2] == outputs[3]
    sums = json.loads((tmp_path / "out2" / "checksums.json").read_text())
    assert list(sums["archives"]) == ["RSSCN7.zip"]
    assert len(sums["images"]) == 35
    assert not list(tmp_path.glob(".out*"))


def test_masks_and_images_may_come_in_two_archives(tmp_path):
    source = make("potsdam", tmp_path / "source")
    archives = []
    for folder in ("4_Ortho_RGBIR", "5_Labels_all"):
        archives.append(shutil.make_archive(str(tmp_path / folder), "zip", source / folder))
    done = convert("potsdam", archives, tmp_path / "out", window=20, progress=False)
    assert done.rows == {"train": 8, "test": 4}
    assert not done.problems


def test_splits_do_not_move_when_files_come_or_go(tmp_path):
    source = make("rsscn7", tmp_path / "source", count=10)
    convert("rsscn7", [source], tmp_path / "one", progress=False)
    convert("rsscn7", [source], tmp_path / "seed", seed=1, progress=False)
    one, seed = (json.loads((tmp_path / d / "splits.json").read_text()) for d in ("one", "seed"))
    assert one["splits"]["train"]["sha256"] != seed["splits"]["train"]["sha256"]
    assert [len(one["splits"][s]["files"]) for s in ("train", "validation", "test")] == [42, 14, 14]
    # Half of the images are gone; the stored splits still say where the rest belongs.
    for path in sorted(source.rglob("*.jpg"))[::2]:
        path.unlink()
    convert(
        "rsscn7",
        [source],
        tmp_path / "two",
        splits=tmp_path / "one" / "splits.json",
        progress=False,
    )
    two = json.loads((tmp_path / "two" / "splits.json").read_text())
    for split, said in two["splits"].items():
        assert set(said["files"]) <= set(one["splits"][split]["files"])
    other = make("nasc-tg2", tmp_path / "other")
    with pytest.raises(UserError, match="belongs to another data set"):
        convert("nasc-tg2", [other], tmp_path / "x", splits=tmp_path / "one" / "splits.json")


def test_the_card_is_what_the_hub_reads(tmp_path):
    _, out = converted("rsscn7", tmp_path)
    card = DatasetCard((out / "README.md").read_text())
    assert card.data.license == "other"
    assert card.data.task_categories == ["image-classification"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.configs[0]["data_files"][0] == {
        "split": "train",
        "path": "data/train-*.parquet",
    }
    assert "| 3 | RiverLake | 5 |" in card.text
    assert "Zou et al." in card.text
    assert "seed 0" in card.text


def test_large_sets_are_written_in_shards(tmp_path):
    done, out = converted("rsscn7", tmp_path, shard_bytes=20_000)
    names = sorted(p.name for p in (out / "data").glob("train-*"))
    assert len(names) > 1
    assert names[0] == f"train-00000-of-{len(names):05d}.parquet"
    assert len(load_dataset(str(out), split="train")) == done.rows["train"] == 21


def spoilt(name, spoil, tmp_path):
    source = make(name, tmp_path / "source")
    spoil(source)
    return source


def first(source, pattern):
    return sorted(source.rglob(pattern))[0]


def empty_folder(source):
    shutil.rmtree(source / "Wrapped" / "aGrass")


def stray_folder(source):
    save(pixels(500), source / "Wrapped" / "hVolcano" / "x.jpg")


def corrupt_image(source):
    path = source / "Wrapped" / "aGrass" / "aGrass_0.jpg"
    path.write_bytes(path.read_bytes()[:200])


def duplicate(source):
    shutil.copy(source / "Wrapped/aGrass/aGrass_0.jpg", source / "Wrapped/bField/copy.jpg")


def wrong_colour(source):
    path = source / "5_Labels_all" / "top_potsdam_2_10_label.tif"
    mask = np.asarray(Image.open(path)).copy()
    mask[:3, :2] = (1, 2, 3)
    Image.fromarray(mask).save(path)


def small_mask(source):
    path = source / "5_Labels_all" / "top_potsdam_2_10_label.tif"
    Image.open(path).crop((0, 0, 30, 30)).save(path)


def lonely_mask(source):
    (source / "4_Ortho_RGBIR" / "top_potsdam_2_10_RGBIR.tif").unlink()


def wrong_value(source):
    path = first(source, "masks_png/0.png")
    Image.fromarray(np.full((SIZE, SIZE), 9, np.uint8)).save(path)


def rewrite(old, new):
    def spoil(source):
        path = sorted(p for p in source.rglob("*") if p.suffix in (".txt", ".xml"))[2]
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return spoil


@pytest.mark.parametrize(
    ("name", "spoil", "file", "words"),
    [
        ("rsscn7", empty_folder, "Grass", "the folder of this class is missing"),
        ("rsscn7", stray_folder, "hVolcano", "a folder of no class"),
        ("rsscn7", corrupt_image, "Grass/aGrass_0.jpg", "cannot be read"),
        ("rsscn7", duplicate, "Grass/aGrass_0.jpg|Field/copy.jpg", "the same file as"),
        ("potsdam", wrong_colour, "2_10", r"6 pixels of the mask have the value \(1, 2, 3\)"),
        ("potsdam", small_mask, "2_10", "the mask is 30 x 30 pixels, the image not"),
        ("potsdam", lonely_mask, "2_10", "there is no image for this mask"),
        ("loveda", wrong_value, "Rural/0.png", "have the value 9, which is no class"),
        ("dior", rewrite("windmill", "dragon"), "00002.jpg", "unknown category 'dragon'"),
        ("dior", rewrite("<xmax>14", "<xmax>99"), "00002.jpg", "box outside of the image"),
        ("dior", rewrite("<xmax>14", "<xmax>4"), "00002.jpg", "empty box"),
        ("dior", rewrite("</object>", ""), "00002.jpg", "cannot be read"),
        ("levir", rewrite("2 4 6", "2 4"), "00002.jpg", "cannot be read"),
        ("levir", rewrite("2 4 6", "7 4 6"), "00002.jpg", "unknown category '7'"),
        ("dota", rewrite("harbor", "kraken"), "P0002.png", "unknown category 'kraken'"),
    ],
)
def test_what_is_amiss_is_told_by_name_and_strict_stops(name, spoil, file, words, tmp_path):
    source = spoilt(name, spoil, tmp_path)
    settings = {"progress": False, **({"window": 16} if name == "potsdam" else {})}
    done = convert(name, [source], tmp_path / "out", **settings)
    assert len(done.problems) == 1
    problem = done.problems[0]
    import re

    assert re.search(file, problem.file)
    assert re.search(words, problem.what)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["left_out"] == [str(problem)]
    listed = json.loads((tmp_path / "out" / "splits.json").read_text())["splits"]
    assert problem.file not in [key for said in listed.values() for key in said["files"]]
    load_dataset(str(tmp_path / "out"), split="train")
    with pytest.raises(UserError, match=f"1 things are amiss: .*{words}"):
        convert(name, [source], tmp_path / "strict", strict=True, **settings)
    assert not (tmp_path / "strict").exists()


def test_archives_that_lead_out_of_themselves_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("../escaped.jpg", b"x")
    with tarfile.open(tmp_path / "bad.tar", "w") as bundle:
        info = tarfile.TarInfo("../escaped.jpg")
        info.size = 1
        bundle.addfile(info, io.BytesIO(b"x"))
    with tarfile.open(tmp_path / "link.tar", "w") as bundle:
        info = tarfile.TarInfo("aGrass/x.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bundle.addfile(info)
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and nothing more")
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    for name, words in (
        ("bad.zip", "leads out of it"),
        ("bad.tar", "leads out of it"),
        ("link.tar", "holds a link"),
        ("set.rar", "RAR archives.*unpack it yourself"),
        ("broken.zip", "damaged|cannot be unpacked"),
        ("nothing.zip", "no file or folder"),
    ):
        with pytest.raises(UserError, match=words):
            convert("rsscn7", [tmp_path / name], tmp_path / "out", progress=False)
    assert not (tmp_path / "escaped.jpg").exists()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_other_data_and_an_existing_output_are_refused(tmp_path):
    source = make("rsscn7", tmp_path / "source")
    with pytest.raises(UserError, match="lies as DIOR is distributed"):
        convert("dior", [source], tmp_path / "out", progress=False)
    with pytest.raises(UserError, match="no data set that is known"):
        convert("imagenet", [source], tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists"):
        convert("rsscn7", [source], tmp_path / "out")


def test_the_command(tmp_path, capsys):
    source = make("rsscn7", tmp_path / "source")
    corrupt_image(source)
    arguments = ["rsscn7", str(source), "--output", str(tmp_path / "out")]
    assert run_script(convert_dataset.main, [*arguments, "--strict"]) == 2
    assert "aGrass_0.jpg" in capsys.readouterr().err
    assert run_script(convert_dataset.main, [*arguments, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["images"] == 34
    assert "left out: Grass/aGrass_0.jpg" in told.err
    assert run_script(convert_dataset.main, ["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(LAYOUTS) == 18
    assert run_script(convert_dataset.main, ["rsscn7"]) == 2


def test_a_slice_keeps_as_many_of_each_class_with_the_splits_shares(tmp_path):
    done, out = converted("rsscn7", tmp_path, per_class=5)
    assert done.rows == {"train": 21, "validation": 7, "test": 7}, done.rows
    assert done.expected is None
    for again in (4, 3):
        convert("rsscn7", [tmp_path / "source"], tmp_path / str(again), per_class=again)
        fewer = json.loads((tmp_path / str(again) / "splits.json").read_text())["splits"]
        all_files = json.loads((out / "splits.json").read_text())["splits"]
        counts: dict[str, int] = {}
        for split, kept in fewer.items():
            assert set(kept["files"]) <= set(all_files[split]["files"])
            for key in kept["files"]:
                counts[key.split("/")[0]] = counts.get(key.split("/")[0], 0) + 1
        assert set(counts.values()) == {again} and len(counts) == 7
    card = (tmp_path / "3" / "README.md").read_text()
    assert "a slice" in card and "3 images of each class were kept" in card
    images = json.loads((tmp_path / "3" / "checksums.json").read_text())["images"]
    assert set(images) == {key for kept in fewer.values() for key in kept["files"]}


def test_only_scenes_are_sliced_by_class(tmp_path):
    make("levir", tmp_path / "source")
    with pytest.raises(UserError, match="has no class an image"):
        convert("levir", [tmp_path / "source"], tmp_path / "out", per_class=2)


@pytest.mark.parametrize(
    ("name", "rows", "classes", "side"),
    [("rs/ucmerced", (630, 105, 315), 21, 128), ("rs/eurosat-slice", (360, 60, 180), 10, 64)],
)
def test_the_sets_of_a_clone_load_by_id_as_they_were_converted(name, rows, classes, side):
    folder = ROOT / "hub" / "datasets" / name
    hashes = json.loads((folder / "checksums.json").read_text())["shards"]
    assert {p.name: sha256(p) for p in folder.glob("data/*.parquet")} == hashes
    files: set[str] = set()
    for split, count in zip(("train", "validation", "test"), rows, strict=True):
        data = load(name, split)
        assert len(data) == count and len(data.features["label"].names) == classes
        assert len(set(data["label"])) == classes
        assert data[0]["image"].size == (side, side)
        assert not files & set(data["file_name"])
        files |= set(data["file_name"])
