"""The procedural scenes."""

from __future__ import annotations

import numpy as np
import pytest

from rs_models.data import build_cache, load
from rs_models.data.synthetic import CLASSES, LAND_COVER, OBJECTS, draw_scene
from rs_models.errors import UserError


@pytest.fixture(scope="module")
def rows():
    return load("synthetic:num=24,size=32")


def test_rows_have_every_kind_of_label(rows):
    assert len(CLASSES) >= 8
    assert rows.features["label"].names == list(CLASSES)
    assert sorted(set(rows["label"][:])) == list(range(len(CLASSES)))
    masks = np.stack([np.asarray(mask) for mask in rows["mask"]])
    assert masks.shape == (24, 32, 32)
    assert masks.max() < len(LAND_COVER)
    assert rows.features["objects"]["category"].feature.names == list(OBJECTS)
    assert rows[0]["image"].size == (32, 32)


def test_scenes_repeat_by_seed_and_differ_otherwise():
    image, cover, objects = draw_scene(10, [4, 2], 32)
    again = draw_scene(10, [4, 2], 32)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(cover, again[1])
    assert objects == again[2]
    assert not np.array_equal(image, draw_scene(10, [4, 3], 32)[0])


def test_splits_and_seeds_share_no_scene(rows):
    def pictures(name, split):
        return {np.asarray(image).tobytes() for image in load(name, split)["image"]}

    train = pictures("synthetic:num=24,size=32", "train")
    assert len(train) == 24
    assert not train & pictures("synthetic:num=24,size=32", "test")
    assert not train & pictures("synthetic:num=24,size=32,seed=1", "train")


def test_a_longer_set_starts_with_the_shorter(rows):
    longer = load("synthetic:num=26,size=32")
    assert np.array_equal(np.asarray(longer[23]["image"]), np.asarray(rows[23]["image"]))


def test_drawn_scenes_are_read_the_next_time(rows, monkeypatch):
    monkeypatch.setattr("rs_models.data.synthetic.draw._draw_rows", None)
    again = load("synthetic:num=24,size=32")
    assert again._fingerprint == rows._fingerprint
    assert again[5]["label"] == rows[5]["label"]


@pytest.mark.parametrize(
    ("scene", "present"),
    [
        ("forest", "tree"),
        ("farmland", "crop"),
        ("harbor", "water"),
        ("residential", "building"),
        ("parking", "vehicle"),
        ("beach", "sand"),
    ],
)
def test_scenes_show_what_they_are_called(scene, present):
    covers = [draw_scene(CLASSES.index(scene), [0, i], 32)[1] for i in range(4)]
    shares = [(cover == LAND_COVER.index(present)).mean() for cover in covers]
    assert np.mean(shares) > 0.05


@pytest.mark.parametrize(
    ("scene", "category", "cover"),
    [
        ("residential", "house", "building"),
        ("parking", "car", "vehicle"),
        ("airport", "plane", "vehicle"),
        ("harbor", "ship", "vehicle"),
    ],
)
def test_boxes_lie_on_their_things(scene, category, cover):
    size, covered, outside = 128, [], []
    for seed in range(8):
        _, mask, objects = draw_scene(CLASSES.index(scene), [seed], size)
        thing = mask == LAND_COVER.index(cover)
        inside = np.zeros_like(thing)
        for (x, y, w, h), kind in zip(objects["bbox"], objects["category"], strict=True):
            assert x >= 0 and y >= 0 and x + w <= size + 1e-3 and y + h <= size + 1e-3
            assert w >= 1 and h >= 1
            view = (slice(int(y), int(np.ceil(y + h))), slice(int(x), int(np.ceil(x + w))))
            inside[view] = True
            if OBJECTS[kind] == category:
                covered.append(thing[view].mean())
        outside.append((thing & ~inside).sum() / max(thing.sum(), 1))
    assert len(covered) >= 4
    # An upright box around a turned rectangle is at worst half full; planes fill less.
    assert np.mean(covered) > (0.15 if category == "plane" else 0.4)
    assert min(covered) > 0.05
    # What no box covers are things cut by the border, of which less than half is visible.
    assert np.mean(outside) < 0.15


def test_the_ground_shown_does_not_depend_on_the_size():
    """The same scene at two sizes: a tensor program trained at one can be tried at the other."""
    shares = [
        np.bincount(draw_scene(6, [1], size)[1].ravel(), minlength=len(LAND_COVER)) / size**2
        for size in (64, 128)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.15


def test_near_infrared_shows_vegetation(tmp_path):
    rows = load("synthetic:num=24,size=32", bands="rgbn")
    cache = build_cache(rows, bands="rgbn", cache_dir=tmp_path, progress=False)
    masks = np.stack([np.asarray(mask) for mask in rows["mask"]])
    nir = cache.images[:, 3].numpy()
    brighter = [
        nir[i][masks[i] == LAND_COVER.index("grass")].mean()
        > nir[i][masks[i] == LAND_COVER.index("water")].mean()
        for i in range(24)
        if {LAND_COVER.index("grass"), LAND_COVER.index("water")} <= set(np.unique(masks[i]))
    ]
    assert brighter and all(brighter)
    assert "nir" not in load("synthetic:num=24,size=32").column_names


@pytest.mark.parametrize(
    ("name", "split", "bands", "said"),
    [
        ("synthetic:size=4", "train", None, "size from 16 to 1024"),
        ("synthetic:num=0", "train", None, "num >= 1"),
        ("synthetic:rows=3", "train", None, "'rows=3'"),
        ("synthetic:num=many", "train", None, "whole number"),
        ("synthetic", "night", None, "no split 'night': it has train, validation, test"),
        ("synthetic", "train", ["red", "vv"], "no band vv"),
    ],
)
def test_bad_names_are_refused(name, split, bands, said):
    with pytest.raises(UserError, match=said):
        load(name, split, bands=bands)


@pytest.mark.slow
def test_colours_alone_do_not_tell_classes_apart():
    """Texture must be worth learning: channel statistics stay far behind a simple spectrum."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    count = 30 * len(CLASSES)
    labels = np.arange(count) % len(CLASSES)
    images = np.stack([draw_scene(label, [7, i])[0][..., :3] for i, label in enumerate(labels)])
    half = count // 2
    grey = images.mean(-1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(grey)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    rings = [(radius >= a) & (radius < a * 1.35) for a in 0.015 * 1.35 ** np.arange(11)]
    spectrum = [np.log(f(power[:, ring], 1)) for ring in rings for f in (np.mean, np.max)]

    def accuracy(features):
        features = StandardScaler().fit(features[:half]).transform(features)
        nearest = KNeighborsClassifier(10).fit(features[:half], labels[:half])
        return nearest.score(features[half:], labels[half:])

    colour = accuracy(np.concatenate([images.mean((1, 2)), images.std((1, 2))], 1))
    assert colour < 0.5
    assert accuracy(np.stack(spectrum, 1)) > colour + 0.15
