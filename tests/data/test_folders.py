"""Splits and classes of folders as people name them."""

from __future__ import annotations

import pytest

from rs_models.data import load
from rs_models.data.folders import files_below
from rs_models.data.names import natural, split_of
from rs_models.errors import UserError
from tests.data import make


def shape(root, split="train"):
    rows = load(root, split)
    return len(rows), getattr(rows.features.get("label"), "names", None)


@pytest.mark.parametrize(
    "folders, counts",
    [
        (("training", "testing"), {"train": 2, "test": 2}),
        (("Train_Set", "test-images"), {"train": 2, "test": 2}),
        (("train2017", "val2017"), {"train": 2, "validation": 2}),
        (("train", "val", "validation"), {"train": 2, "validation": 4}),
        (("TRAIN", "train", "dev"), {"train": 4, "validation": 2}),
        (("images/train", "images/valid"), {"train": 2, "validation": 2}),
        (("set/data/Training", "set/data/Test"), {"train": 2, "test": 2}),
    ],
)
def test_splits_by_all_their_spellings(tmp_path, folders, counts):
    for folder in folders:
        make.class_folders(tmp_path / "d" / folder, {"sea": 1, "river": 1})
    assert {split: shape(tmp_path / "d", split) for split in counts} == {
        split: (count, ["river", "sea"]) for split, count in counts.items()
    }


def test_splits_below_their_classes(tmp_path):
    make.class_folders(
        tmp_path, {"sea/train": 2, "sea/test": 1, "river/train": 1, "river/testing": 1}
    )
    assert shape(tmp_path) == (3, ["river", "sea"])
    assert shape(tmp_path, "test") == (2, ["river", "sea"])


def test_a_class_named_train_stays_one(tmp_path):
    make.class_folders(tmp_path, {"plane": 2, "ship": 2, "train": 3})
    assert shape(tmp_path) == (7, ["plane", "ship", "train"])


@pytest.mark.parametrize(
    "folders, said",
    [
        ({"train/sea": 1, "train/river": 1, "eval/sea": 1}, "train beside eval"),
        ({"train": 1, "test": 1, "plane": 1}, "test, train beside plane"),
        ({"train": 1, "car": 1}, "train beside car"),
        ({"images": 1, "masks": 1}, "one of masks"),
        ({"train/images": 1, "train/labels": 1}, "one of masks"),
        ({"sea/train": 1, "sea/test": 1, "river": 1}, "Some class folders"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_by_name(tmp_path, folders, said):
    make.class_folders(tmp_path, folders)
    with pytest.raises(UserError, match=said):
        load(tmp_path)


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    make.class_folders(tmp_path, {name: 1 for name in ("10", "9", "1", "2")})
    assert shape(tmp_path) == (4, ["1", "2", "9", "10"])
    assert sorted(["b2", "b10", "a"], key=natural) == ["a", "b2", "b10"]


def test_linked_class_folders_are_followed_and_circles_are_not(tmp_path):
    make.class_folders(tmp_path / "elsewhere", {"sea": 2})
    make.class_folders(tmp_path / "d", {"river": 1})
    (tmp_path / "d" / "sea").symlink_to(tmp_path / "elsewhere" / "sea", target_is_directory=True)
    (tmp_path / "d" / "river" / "up").symlink_to(tmp_path / "d", target_is_directory=True)
    assert shape(tmp_path / "d") == (3, ["river", "sea"])


def test_side_files_are_passed_over(tmp_path):
    make.class_folders(tmp_path, {"sea": 1, "river": 1})
    for name in ("._000.png", "Thumbs.db", "000.png.aux.xml", "000.png.ovr", "desktop.ini"):
        (tmp_path / "sea" / name).write_bytes(b"no image")
    (tmp_path / "__MACOSX" / "sea").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "sea" / "000.png").write_bytes(b"no image")
    assert shape(tmp_path) == (2, ["river", "sea"])
    assert [p.name for p in files_below(tmp_path, {".png"})] == ["000.png", "000.png"]


def test_a_folder_that_only_says_images_is_no_class(tmp_path):
    make.class_folders(tmp_path, {"images": 3})
    assert shape(tmp_path) == (3, None)


@pytest.mark.parametrize("name", ["trains", "validity", "tester", "contest", "eval", "train_masks"])
def test_other_words_are_no_splits(name):
    assert split_of(name) is None
