"""Labelled images: drawn, held out, read for each task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from rs_models.errors import UserError
from rs_models.preprocessing import Preprocessing
from rs_models.tasks.finetuning.config import FinetuneData
from rs_models.tasks.finetuning.data import class_count, content_hash, open_split, statistics
from rs_models.tasks.finetuning.draws import draw, hold_out
from rs_models.tasks.finetuning.examples import Examples, collate

RGB = ("red", "green", "blue")
PLAIN = Preprocessing(RGB, (0.0, 255.0), (0.5,) * 3, (0.25,) * 3, 32)


@pytest.fixture(scope="module")
def scenes():
    return FinetuneData(name="synthetic:num=60,size=32")


def opened(data, task, split="train"):
    return open_split(data, split, task, RGB)


def test_draws_are_seeded_and_nested(scenes):
    split = opened(scenes, "classification")
    two, three = draw(split, "2/class", 1), draw(split, "3/class", 1)
    assert len(two) == 24 and set(two) <= set(three)
    assert not np.array_equal(two, draw(split, "2/class", 2))
    counts = np.bincount(split.labels[draw(split, "40%", 0)])
    assert (counts == 2).all()
    masks = opened(scenes, "segmentation")
    assert set(draw(masks, 5, 0)) <= set(draw(masks, "50%", 0)) and len(draw(masks, "1%", 0)) == 1
    with pytest.raises(UserError, match="61 labelled images are asked for, but there are 60"):
        draw(masks, 61, 0)
    with pytest.raises(UserError, match="6 per class are asked for"):
        draw(split, "6/class", 0)


def test_what_is_held_out_is_not_learned_from(scenes):
    split = opened(scenes, "classification")
    rows = draw(split, "5/class", 0)
    learned, held = hold_out(split, rows, 0.2, 0)
    assert sorted([*learned, *held]) == sorted(rows)
    assert (np.bincount(split.labels[held], minlength=12) == 1).all()
    few = draw(split, "2/class", 0)
    assert len(hold_out(split, few, 0.2, 0)[1]) == 0
    masks = opened(scenes, "segmentation")
    assert len(hold_out(masks, np.arange(10), 0.2, 0)[1]) == 2
    assert len(hold_out(masks, np.arange(4), 0.2, 0)[1]) == 0


def test_samples_of_each_task(scenes):
    for task in ("classification", "multilabel", "segmentation", "detection"):
        split = opened(scenes, task)
        classes = class_count(split, np.arange(60), split)
        examples = Examples(split, range(60), PLAIN, classes)
        sample = examples[3]
        image = np.asarray(split.image(3), np.float32) / 255
        wanted = (torch.from_numpy(image).permute(2, 0, 1) - 0.5) / 0.25
        torch.testing.assert_close(sample["pixel_values"], wanted)
        batch = collate([examples[i] for i in range(4)])
        assert batch["pixel_values"].shape == (4, 3, 32, 32)
        labels = batch["labels"]
        if task == "classification":
            assert labels.tolist() == split.labels[:4].tolist()
        elif task == "segmentation":
            assert labels.shape == (4, 32, 32) and labels.dtype == torch.int64
        elif task == "multilabel":
            mask = np.asarray(split.rows[3]["mask"])
            there = [c for c in np.unique(mask) if c != 255]
            assert sample["labels"].nonzero()[:, 0].tolist() == there
        else:
            boxes = np.asarray(split.rows[3]["objects"]["bbox"]).reshape(-1, 4)
            assert len(labels[3]["boxes"]) == len(boxes)
            if len(boxes):
                centre = (boxes[:, :2] + boxes[:, 2:] / 2) / 32
                np.testing.assert_allclose(labels[3]["boxes"][:, :2], centre, atol=1e-5)


def saved(folder, columns, features):
    Dataset.from_dict(columns, features=Features(features)).to_parquet(folder / "train.parquet")
    return FinetuneData(name=str(folder / "train.parquet"))


def pictures(count, size=8, value=0):
    import PIL.Image

    return [
        PIL.Image.fromarray(np.full((size, size, 3), value + i, np.uint8)) for i in range(count)
    ]


def masks(*arrays):
    import PIL.Image

    return [PIL.Image.fromarray(np.asarray(array, np.uint8)) for array in arrays]


def test_ignored_classes_are_neither_learned_nor_counted(tmp_path):
    mask = np.zeros((8, 8))
    mask[2:], mask[5:], mask[7:] = 1, 2, 255
    data = saved(
        tmp_path,
        {"image": pictures(1), "mask": masks(mask)},
        {"image": Image(), "mask": Image()},
    )
    split = opened(data, "segmentation")
    assert class_count(split, np.arange(1), split) == 3
    data.ignored_classes = [1]
    split = opened(data, "segmentation")
    label = Examples(split, [0], PLAIN, 3)[0]["labels"]
    assert sorted(label.unique().tolist()) == [0, 2, 255] and (label[2:5] == 255).all()
    data.ignored_classes, data.classes = [], ["a", "b"]
    with pytest.raises(UserError, match="has class 2, but there are 2 classes"):
        _ = Examples(opened(data, "segmentation"), [0], PLAIN, 2)[0]


def test_several_labels_come_as_numbers_or_as_a_vector(tmp_path):
    names = ["sea", "field", "town"]
    for labels in ([[0, 2], [1], []], [[1, 0, 1], [0, 1, 0], [0, 0, 0]]):
        folder = tmp_path / str(len(labels[1]))
        folder.mkdir()
        data = saved(
            folder,
            {"image": pictures(3), "labels": labels},
            {"image": Image(), "labels": List(ClassLabel(names=names))},
        )
        split = opened(data, "multilabel")
        assert split.classes == names
        found = [Examples(split, [i], PLAIN, 3)[0]["labels"].tolist() for i in range(3)]
        assert found == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_bad_rows_are_named(tmp_path):
    data = saved(
        tmp_path,
        {"image": pictures(2), "mask": masks(np.zeros((8, 8)), np.zeros((8, 9)))},
        {"image": Image(), "mask": Image()},
    )
    split = opened(data, "segmentation")
    with pytest.raises(UserError, match=r"The mask in row 1 of .* is 9 x 8 pixels"):
        split.example(1)
    with pytest.raises(UserError, match="no 'objects' column, which detection needs"):
        opened(data, "detection")

    broken = tmp_path / "broken"
    broken.mkdir()
    rows = {"image": [{"bytes": b"no image", "path": None}], "label": [0]}
    data = saved(broken, rows, {"image": Image(), "label": ClassLabel(names=["a", "b"])})
    with pytest.raises(UserError, match=r"The image in row 0 of .* cannot be read"):
        opened(data, "classification").image(0)


def test_statistics_and_hash_are_of_the_pixels(tmp_path):
    data = saved(
        tmp_path,
        {"image": pictures(2, value=100), "label": [0, 1], "place": ["x", "y"]},
        {"image": Image(), "label": ClassLabel(names=["a", "b"]), "place": Value("string")},
    )
    split = opened(data, "classification")
    value_range, mean, std = statistics(split, np.arange(2), RGB)
    assert value_range == (0.0, 255.0)
    assert mean == pytest.approx([100.5 / 255] * 3) and std == pytest.approx([0.5 / 255] * 3)
    again = tmp_path / "again"
    again.mkdir()
    other = saved(
        again,
        {"image": pictures(2, value=100), "label": [0, 1]},
        {"image": Image(), "label": ClassLabel(names=["a", "b"])},
    )
    assert content_hash(split) == content_hash(opened(other, "classification"))
    assert content_hash(split) != content_hash(
        opened(FinetuneData("synthetic:num=12,size=32"), "classification")
    )
