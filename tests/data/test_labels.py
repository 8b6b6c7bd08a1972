"""Label columns as people store them: one class, one number, in every split."""

from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from rs_models.data import load
from rs_models.errors import UserError
from tests.data import make


def table(root, **splits):
    """A Parquet file a split, from {column: values} or bare labels."""
    root.mkdir(exist_ok=True)
    for split, columns in splits.items():
        columns = columns if isinstance(columns, dict) else {"label": columns}
        count = len(next(iter(columns.values())))
        images = [{"bytes": make.png(make.pixels(i)), "path": None} for i in range(count)]
        rows = Dataset.from_dict({"image": images, **columns}).cast_column("image", Image())
        rows.to_parquet(str(root / f"{split}.parquet"))
    return root


@pytest.mark.parametrize(
    "labels, names, numbers",
    [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        ([1, 2, 3], ["1", "2", "3"], [0, 1, 2]),
        ([0, 2, 1], ["0", "1", "2"], [0, 2, 1]),
        ([111, 523, 111], ["111", "523"], [0, 1, 0]),
        ([10**12, 5, 5], ["5", str(10**12)], [1, 0, 0]),
        ([1.0, 0.0, float("nan")], ["0", "1"], [1, 0, -1]),
        ([True, False, True], ["false", "true"], [1, 0, 1]),
        (["a", None, "b"], ["a", "b"], [0, -1, 1]),
        ([0, None, 1], ["0", "1"], [0, -1, 1]),
        ([0, -1, 1], ["0", "1"], [0, -1, 1]),
        (["1", "10", "2"], ["1", "2", "10"], [0, 2, 1]),
    ],
)
def test_labels_of_every_kind(tmp_path, labels, names, numbers):
    rows = load(table(tmp_path / "d", train=labels))
    assert rows.features["label"] == ClassLabel(names=names)
    assert rows["label"][:] == numbers
    assert load(tmp_path / "d")._fingerprint == rows._fingerprint  # the cache finds it again


def test_a_class_has_one_number_in_every_split(tmp_path):
    root = table(tmp_path / "d", train=["c", "a"], validation=["d", "b"], test=["b", "c"])
    for split, numbers in (("train", [2, 0]), ("validation", [3, 1]), ("test", [1, 2])):
        rows = load(root, split)
        assert rows.features["label"].names == ["a", "b", "c", "d"]
        assert rows["label"][:] == numbers


def test_splits_that_number_their_classes_otherwise_are_refused(tmp_path):
    for split, names in (("train", ["a", "b"]), ("test", ["b", "a"])):
        features = Features({"image": Value("binary"), "label": ClassLabel(names=names)})
        rows = Dataset.from_dict({"image": [b"x"], "label": [0]}, features=features)
        rows.to_parquet(str(tmp_path / f"{split}.parquet"))
    with pytest.raises(UserError, match="a, b in one split and b, a in test"):
        load(tmp_path)


def test_numbers_take_the_names_beside_them(tmp_path):
    columns = {"label": [1, 2, 1], "class_name": ["sea", "river", "sea"]}
    assert load(table(tmp_path / "d", train=columns)).features["label"].names == ["sea", "river"]
    columns["class_name"] = ["sea", "river", "lake"]  # no names of the numbers
    assert load(table(tmp_path / "e", train=columns)).features["label"].names == ["1", "2"]


@pytest.mark.parametrize(
    "labels, said",
    [
        ([0.5, 1.0], r"row 0 of .* is 0\.5"),
        ([0, -3], "row 1 of .* is -3"),
        ([None, None], "All labels .* are missing"),
        (list(range(10_001)), "10001 different values"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, said):
    features = Features(
        {
            "image": Value("binary"),
            "label": Value("float64" if isinstance(labels[0], float) else "int64"),
        }
    )
    rows = Dataset.from_dict({"image": [b""] * len(labels), "label": labels}, features=features)
    rows.to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(UserError, match=said):
        load(tmp_path)


def test_parquet_files_that_name_no_split_beside_others_are_refused(tmp_path):
    root = table(tmp_path / "d", train=[0, 1])
    (root / "train.parquet").rename(root / "part-1.parquet")
    table(root, **{"eurosat-training-0001": [0, 1]})
    assert len(load(root / "part-1.parquet")) == 2
    with pytest.raises(UserError, match=r"1 Parquet files .* name no split"):
        load(root)
    (root / "part-1.parquet").rename(root / "eurosat-testing.parquet")
    assert [len(load(root, split)) for split in ("train", "test")] == [2, 2]


def test_parquet_files_with_other_columns_are_named(tmp_path):
    root = table(tmp_path / "d", **{"train-0": [0, 1], "train-1": {"id": [0, 1]}})
    with pytest.raises(UserError, match=r"train-1\.parquet has the columns image, id"):
        load(root)
