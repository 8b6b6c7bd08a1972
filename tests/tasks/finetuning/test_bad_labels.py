"""Labels that cannot be right are told before anything is trained or written."""

from __future__ import annotations

import re

import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from rs_models.cli import main

NAN = float("nan")
GOOD = [4.0, 4.0, 8.0, 8.0]


def picture(array):
    return PIL.Image.fromarray(np.asarray(array))


def write(folder, column, feature, train, test=None):
    """Images of 24 pixels with labels, train and test."""
    for split, labels in (("train", train), ("test", test or train)):
        rng = np.random.default_rng(0)
        images = [picture(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)) for _ in labels]
        features = Features({"image": Image(), column: feature})
        rows = Dataset.from_dict({"image": images, column: labels}, features=features)
        rows.to_parquet(folder / f"{split}.parquet")


def refused(folder, capsys, task, *arguments):
    """What is said; nothing is written."""
    base = ["finetune", f"task={task}", "model=baseline:random-resnet_nano", "max_steps=1"]
    data = [f"data.name={folder}", f"output_dir={folder}/run", "seeds=[0]"]
    capsys.readouterr()
    assert main([*base, *data, *(arguments or ["labels=all"])]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ") and "Traceback" not in message
    assert not (folder / "run").exists()
    return message


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([4.0, 4.0, -8.0, 8.0], "row 2, .*no area"),
        ([4.0, 4.0, 0.0, 8.0], "row 2, .*no area"),
        ([NAN, 4.0, 8.0, 8.0], "row 2, .*not finite"),
        ([4.0, 4.0, float("inf"), 8.0], "not finite"),
        ([90.0, 90.0, 8.0, 8.0], "outside of its image"),
        ([4.0, 4.0, 8.0], "row 2"),
    ],
)
def test_boxes(tmp_path, capsys, box, message):
    good = {"bbox": [GOOD], "category": [0]}
    bad = {"bbox": [GOOD, box], "category": [0, 1]}
    feature = {"bbox": List(List(Value("float32"))), "category": List(Value("int64"))}
    write(tmp_path, "objects", feature, [good, good, bad, good])
    text = refused(tmp_path, capsys, "detection", "labels=all", "data.classes=[roof, car]")
    assert re.search(message, text), text


def test_boxes_that_no_image_has(tmp_path, capsys):
    none = {"bbox": [], "category": []}
    feature = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=["a"]))}
    write(tmp_path, "objects", feature, [none] * 3)
    assert "holds a box" in refused(tmp_path, capsys, "detection")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((24, 24), 255, np.uint8), "255 means no class"),
        (np.full((24, 24), 311, np.uint16), "has the values 311"),
        (np.full((24, 24, 3), (200, 30, 0), np.uint8), "colours"),
        (np.full((24, 24), 9, np.uint8), "class 9, but there are 2 classes"),
        (np.where(np.eye(24, dtype=bool), 255, 0).astype(np.uint8), "255 means no class"),
    ],
)
def test_masks(tmp_path, capsys, mask, message):
    write(tmp_path, "mask", Image(), [picture(mask)] * 3)
    assert message in refused(
        tmp_path, capsys, "segmentation", "labels=all", "data.classes=[ground, building]"
    )


def test_masks_whose_every_class_is_ignored(tmp_path, capsys):
    write(tmp_path, "mask", Image(), [picture(np.eye(24, dtype=np.uint8))] * 3)
    ignored = "data.ignored_classes=[0, 1]"
    text = refused(tmp_path, capsys, "segmentation", "labels=all", "data.classes=[a, b]", ignored)
    assert "255 or ignored throughout" in text


def test_masks_of_the_test_images_are_read_before_training_too(tmp_path, capsys):
    good = [picture(np.eye(24, dtype=np.uint8))] * 3
    write(tmp_path, "mask", Image(), good, [*good, picture(np.full((24, 24), 200, np.uint8))])
    text = refused(tmp_path, capsys, "segmentation", "labels=all", "data.classes=[a, b]")
    assert "ow 3 of" in text and "(test) has class 200" in text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 1, 0], "Image 1 of .* class -1, which means none"),
        ([0, -1, 1, 0], "Image 1 of .* class -1, which means none"),
        ([0, 5, 1, 0], r"names 2 classes, but .* has 3 \(0, 1, 5\)"),
    ],
)
def test_classes(tmp_path, capsys, labels, message):
    write(tmp_path, "label", Value("int64"), labels)
    text = refused(tmp_path, capsys, "classification", "labels=all", "data.classes=[a, b]")
    assert re.search(message, text), text


def test_trackers_that_are_not_installed(tmp_path, capsys):
    write(tmp_path, "label", ClassLabel(names=["a", "b"]), [0, 1, 0, 1])
    text = refused(tmp_path, capsys, "classification", "labels=all", "report_to=[telegraph]")
    assert "telegraph" in text and "not installed" in text


def test_a_word_that_is_no_task(tmp_path, capsys):
    text = refused(tmp_path, capsys, "segmentations", "labels=all")
    assert "did you mean segmentation?" in text
