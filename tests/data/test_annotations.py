"""Masks and boxes as people store them."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from rs_models.data import load
from rs_models.errors import UserError
from tests.data import make

TILE = np.repeat(np.repeat(np.array([[0, 1], [2, 1]], np.uint8), 6, 0), 8, 1)  # 12 x 16


def stored(image, fmt="png", **more):
    buffer = io.BytesIO()
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    image.save(buffer, fmt, **more)
    return {"bytes": buffer.getvalue(), "path": None}


def table(root, columns, features):
    root.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    columns = {"image": [stored(make.pixels(i, 12, 16)) for i in range(count)], **columns}
    rows = Dataset.from_dict(columns, features=Features({"image": Image(), **features}))
    rows.to_parquet(str(root / "train.parquet"))
    return root


def mask_of(root, image, **settings):
    root = table(root, {"mask": [image]}, {"mask": Image()})
    return np.asarray(load(root, **settings)[0]["mask"])


def colours(mask):
    return np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[mask]


def palette(mask):
    image = PIL.Image.fromarray(mask)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    return image


@pytest.mark.parametrize(
    "image, values",
    [
        (TILE, None),
        (TILE.astype(np.uint16), None),
        (TILE.astype(np.float32), None),
        (palette(TILE), None),
        (np.stack([TILE] * 3, -1), None),
        (TILE * 100, {0: 0, 100: 1, 200: 2}),
        (TILE.astype(np.uint16) + 311, {311: 0, 312: 1, 313: 2}),
        (TILE + 1, {1: 0, 2.0: 1, 3: 2}),
        (colours(TILE), {"0,0,0": 0, "#ff0000": 1, "(0, 0, 255)": 2}),
        (palette(TILE), {"0,0,0": 0, "#ff0000": 1, "0,0,255": 2}),
    ],
    ids=[
        *("bytes", "16bit", "float", "palette", "grey", "spread", "codes", "onebased", "colours"),
        "palette's colours",
    ],
)
def test_masks_mean_their_classes(tmp_path, image, values):
    kind = "tiff" if getattr(image, "dtype", None) == np.float32 else "png"
    found = mask_of(tmp_path / "d", stored(image, kind), mask_values=values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, TILE)


@pytest.mark.parametrize("image", [TILE + 1, TILE * 40], ids=["onebased", "gaps"])
def test_numbers_that_may_be_codes_are_told(tmp_path, caplog, image):
    np.testing.assert_array_equal(mask_of(tmp_path / "d", stored(image)), image)
    values = np.unique(image).tolist()
    expected = "{" + ", ".join(f"{value}: {number}" for number, value in enumerate(values)) + "}"
    assert f"hold the values {', '.join(map(str, values))}" in caplog.text
    assert f"mask_values={expected}" in caplog.text


def test_jpeg_masks_take_the_nearest_named_value(tmp_path):
    image = np.where(TILE == 1, 255, 0).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    found = mask_of(tmp_path / "d", stored(image, "jpeg"), mask_values={0: 0, 255: 1})
    assert ((found == 1) == (image == 255))[found != 255].all() and (found != 255).mean() > 0.95


def test_nothing_and_hidden_pixels_are_ignored(tmp_path):
    wide = np.where(TILE == 2, 65_535, TILE).astype(np.uint16)
    np.testing.assert_array_equal(
        mask_of(tmp_path / "a", stored(wide)), np.where(TILE == 2, 255, TILE)
    )
    alpha = np.where(TILE == 1, 0, 255).astype(np.uint8)
    found = mask_of(tmp_path / "b", stored(np.dstack([TILE, TILE, TILE, alpha])))
    np.testing.assert_array_equal(found, np.where(TILE == 1, 255, TILE))


@pytest.mark.parametrize(
    "image, kind, values, said",
    [
        (np.where(TILE == 1, 255, 0).astype(np.uint8), "png", None, "no values but 0 and 255"),
        (np.full_like(TILE, 255), "png", None, "no values but 0 and 255"),
        (
            (TILE > 0).astype(np.uint8) * 128,
            "png",
            None,
            r"0 and 128, .*mask_values={0: 0, 128: 1}",
        ),
        (TILE.astype(np.uint16) + 311, "png", None, "311, 312, 313, and class numbers go"),
        (colours(TILE), "png", None, r"colours 0,0,0 \| 0,0,255 \| 255,0,0"),
        (TILE.astype(np.float32) / 3, "tiff", None, "no whole class numbers"),
        (TILE, "jpeg", None, "stored as JPEG"),
        (TILE, "png", {0: 0, 1: 1}, "values 2, which mask_values does not name"),
        (TILE, "png", {0: 0, "red": 1}, "mask_values has 'red'"),
        (TILE, "png", {0: 0, "1,2,3": 1}, "numbers and colours"),
    ],
)
def test_masks_that_mean_nothing_are_refused_with_their_values(tmp_path, image, kind, values, said):
    with pytest.raises(UserError, match=said):
        mask_of(tmp_path / "d", stored(image, kind), mask_values=values)
    assert len(load(tmp_path / "d", annotations=False)) == 1  # the images alone are fine


NAMED = {
    "bbox": List(List(Value("float32"), length=4)),
    "category": List(ClassLabel(names=["roof", "car"])),
}
FREE = {"bbox": List(List(Value("float32"))), "category": List(Value("string"))}


def objects_of(root, values, features, **settings):
    rows = load(table(root, {"objects": values}, {"objects": features}), **settings)
    feature = rows.features["objects"]["category"].feature
    return rows["objects"][:], feature.names


@pytest.mark.parametrize(
    "value, features",
    [
        ({"bbox": [[2, 3, 4, 5]], "category": [0]}, NAMED),
        (
            [{"bbox": [2, 3, 4, 5], "category": 0}],
            List({"bbox": List(Value("float32")), "category": ClassLabel(names=["roof", "car"])}),
        ),
        (
            {"boxes": [[2, 3, 4, 5]], "labels": [0]},
            {"boxes": NAMED["bbox"], "labels": NAMED["category"]},
        ),
        (
            {"bbox": [[2, 3, 4, 5], [0, 0, 9, 9]], "category": [0, 1], "iscrowd": [0, 1]},
            {**NAMED, "iscrowd": List(Value("int32"))},
        ),
        ({"bbox": [[2, 3, 6, 3, 6, 8, 2, 8]], "category": [0]}, {**NAMED, "bbox": FREE["bbox"]}),
        (
            {"segmentation": [[[2, 3, 6, 3, 6, 8], [4, 4, 5, 4, 5, 5]]], "category": [0]},
            {"segmentation": List(FREE["bbox"]), "category": NAMED["category"]},
        ),
        (
            {"xmin": [2.0], "ymin": [3.0], "xmax": [6.0], "ymax": [8.0], "category": [0]},
            {
                **{key: List(Value("float64")) for key in ("xmin", "ymin", "xmax", "ymax")},
                "category": NAMED["category"],
            },
        ),
    ],
    ids=["standard", "dicts", "keys", "crowd", "polygon", "segmentation", "corners"],
)
def test_boxes_of_every_kind(tmp_path, value, features):
    found, names = objects_of(tmp_path / "d", [value], features)
    assert found == [{"bbox": [[2, 3, 4, 5]], "category": [0]}]
    assert names == ["roof", "car"]


def test_categories_as_text_have_one_number_in_every_split(tmp_path):
    root = tmp_path / "d"
    for split, names in (("test", ["ship"]), ("train", ["car", "ship"])):
        values = [{"bbox": [[1, 1, 4, 4]] * len(names), "category": names}]
        table(root, {"objects": values}, {"objects": FREE})
        if split == "test":
            (root / "train.parquet").rename(root / "test.parquet")
    assert load(root, "test")[0]["objects"]["category"] == [1]
    assert load(root)[0]["objects"]["category"] == [0, 1]


def test_corners_are_told_by_boxes_that_leave_the_image(tmp_path):
    values = [{"bbox": [[9, 6, 15, 11]], "category": [0]}] * 3
    with pytest.raises(UserError, match="box_format=xyxy"):
        objects_of(tmp_path / "d", values, NAMED)
    found, _ = objects_of(tmp_path / "d", values, NAMED, box_format="xyxy")
    assert found[0]["bbox"] == [[9, 6, 6, 5]]


@pytest.mark.parametrize(
    "boxes, categories, said",
    [
        ([[1, 1, 4, 4], [1, 1, 0, 4]], [0, 0], r"1 of 2 .* row 0, \[1, 1, 0, 4\], has no area"),
        ([[1, 1, -4, 4]], [0], "has no area"),
        ([[float("nan")] * 4], [0], "is not finite"),
        ([[90, 90, 4, 4]], [0], "lies outside of its image"),
        ([[0.1, 0.1, 0.4, 0.4]], [0], "between 0 and 1"),
        ([[1, 1, 4, 4]], [0, 1], "1 boxes and 2 categories"),
    ],
)
def test_boxes_that_cannot_be_right(tmp_path, boxes, categories, said):
    with pytest.raises(UserError, match=said):
        objects_of(tmp_path / "d", [{"bbox": boxes, "category": categories}], NAMED)


def test_a_negative_number_is_no_category(tmp_path):
    numbers = {**FREE, "category": List(Value("int64"))}
    with pytest.raises(UserError, match=r"has the category -1, and classes are numbered from 0"):
        objects_of(tmp_path / "d", [{"bbox": [[2, 3, 4, 5]], "category": [-1]}], numbers)


def test_boxes_end_at_the_border_and_it_is_said(tmp_path, caplog):
    value = {"bbox": [[10, 2, 20, 4], [1, 1, 2, 2]], "category": [0, 1]}
    found, _ = objects_of(tmp_path / "d", [value], NAMED)
    assert found[0]["bbox"] == [[10, 2, 6, 4], [1, 1, 2, 2]]
    assert "1 of 2 boxes" in caplog.text


@pytest.mark.parametrize("number", range(1, 9))
def test_masks_and_boxes_turn_with_their_image(tmp_path, number):
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[3:8, 2:6] = 255  # where the mask and the box are
    mask = (pixels[..., 0] > 0).astype(np.uint8)
    exif = PIL.Image.Exif()
    exif[PIL.Image.ExifTags.Base.Orientation] = number
    columns = {
        "image": [stored(pixels, exif=exif)],
        "mask": [stored(mask)],
        "objects": [{"bbox": [[2, 3, 4, 5]], "category": [0]}],
    }
    root = table(tmp_path / "d", columns, {"mask": Image(), "objects": NAMED})
    row = load(root)[0]
    from rs_models.data.columns import RowReader

    raw = load(root)
    reader = RowReader(raw.features, ("red", "green", "blue"))
    shown = reader(reader.undecoded(raw.select_columns(["image"]))[0])[..., 0] > 0
    np.testing.assert_array_equal(row["mask"] == 1, shown)
    x, y, w, h = (int(part) for part in row["objects"]["bbox"][0])
    assert shown[y : y + h, x : x + w].all() and shown.sum() == w * h
