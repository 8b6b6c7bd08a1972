"""The cache of decoded images."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from datasets import Array3D, ClassLabel, Dataset, Features, Image, Value

from rs_models.data import ImageCache, build_cache, load
from rs_models.data.resize import resize_and_crop
from rs_models.errors import UserError
from tests.data import make


def images(count=10, **columns):
    data = {"image": [{"bytes": make.png(make.pixels(i)), "path": None} for i in range(count)]}
    features = {"image": Image()}
    if "label" in columns:
        features["label"] = ClassLabel(names=["a", "b", "c"])
    return Dataset.from_dict({**data, **columns}, features=Features(features))


def arrays(values):
    features = Features({"image": Array3D(values.shape[1:], str(values.dtype))})
    return Dataset.from_dict({"image": values}, features=features)


@pytest.fixture
def build(tmp_path):
    return lambda rows, **settings: build_cache(
        rows, cache_dir=tmp_path / "cache", progress=False, **settings
    )


def test_pixels_labels_and_layout(build):
    cache = build(images(label=[i % 3 for i in range(10)]))
    assert tuple(cache.images.shape) == (10, 3, 20, 24)
    assert cache.images.dtype == torch.uint8
    assert cache.images.is_contiguous(memory_format=torch.channels_last)
    for i in (0, 9):
        np.testing.assert_array_equal(cache.images[i].permute(1, 2, 0), make.pixels(i))
    assert cache.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert cache.labels.dtype == torch.int64
    assert cache.classes == ["a", "b", "c"]
    assert (len(cache), cache.image_size, cache.value_range) == (10, (20, 24), (0, 255))
    assert build(images(3)).labels is None


def test_more_rows_than_a_block_keep_their_order(build):
    cache = build(images(600))
    expected = np.stack([make.pixels(i) for i in range(600)])
    np.testing.assert_array_equal(cache.images.permute(0, 2, 3, 1), expected)


def test_the_second_call_only_opens(build, monkeypatch):
    first = build(images())
    monkeypatch.setattr("rs_models.data.cache._build", None)
    second = build(images())
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.images, first.images)


def test_data_bands_and_size_decide_the_fingerprint(build):
    settings = [{}, {"bands": "red,green"}, {"image_size": 16}, {"image_size": 17}]
    found = {build(images(), **one).fingerprint for one in settings}
    found |= {build(images(9)).fingerprint, build(images().select([1, 0])).fingerprint}
    assert len(found) == 6


def test_the_content_is_the_same_wherever_the_images_lie_and_another_where_they_differ(tmp_path):
    def content(folder, rows):
        rows.to_parquet(folder / "train.parquet")
        return build_cache(load(folder), cache_dir=tmp_path / "caches", progress=False)

    one_other = images(100).to_list()
    one_other[41]["image"]["bytes"] = make.png(make.pixels(777))
    given = {
        **{"here": images(100), "there": images(100), "later": images(101).select(range(1, 101))},
        "labelled": images(100, label=[i % 3 for i in range(100)]),
        "one other": Dataset.from_list(one_other, features=images(1).features),
    }
    caches = {}
    for name, rows in given.items():
        (tmp_path / name).mkdir()
        caches[name] = content(tmp_path / name, rows)
    assert len({cache.fingerprint for cache in caches.values()}) == 5
    told = {name: cache.content() for name, cache in caches.items()}
    assert told.pop("here") == told["there"]
    assert len(set(told.values())) == 4


def test_the_file_is_mapped_and_pickles_by_path(build):
    cache = build(images())
    _ = cache.images
    assert len(pickle.dumps(cache)) < 2000
    again = pickle.loads(pickle.dumps(cache))
    assert torch.equal(again.images, cache.images)
    assert isinstance(np.load(cache.path / "images.npy", mmap_mode="r"), np.memmap)


def test_corrupt_images_are_counted_and_left_out(build):
    rows = images(6, label=[0, 1, 2, 0, 1, 2]).to_dict()
    rows["image"][1] = {"bytes": rows["image"][1]["bytes"][:80], "path": None}
    rows["image"][4] = {"bytes": None, "path": "/nowhere.png"}
    rows["image"][5] = None
    features = images(1, label=[0]).features
    broken = Dataset.from_dict(rows, features=features)
    cache = build(broken)
    assert [row for row, _ in cache.skipped] == [1, 4, 5]
    assert "nowhere.png" in cache.skipped[1][1]
    assert cache.labels.tolist() == [0, 2, 0]
    for place, row in enumerate((0, 2, 3)):
        np.testing.assert_array_equal(cache.images[place].permute(1, 2, 0), make.pixels(row))
    # Also when the cache is there already, as after a run that was not strict.
    with pytest.raises(UserError, match="row 1 cannot be read"):
        build(broken, strict=True)


def test_strict_stops_at_the_first_corrupt_image(build, tmp_path):
    rows = images(3).to_dict()
    rows["image"][2]["bytes"] = b"no image"
    broken = Dataset.from_dict(rows, features=Features({"image": Image()}))
    with pytest.raises(UserError, match="row 2 cannot be read"):
        build(broken, strict=True)
    assert not list((tmp_path / "cache").glob("*/")), "a failed build leaves nothing behind"


def test_no_readable_image_at_all(build):
    rows = Dataset.from_dict({"image": [{"bytes": b"x", "path": None}] * 2}).cast_column(
        "image", Image()
    )
    with pytest.raises(UserError, match="None of the 2 rows has a readable image: row 0"):
        build(rows)


def test_mixed_sizes_need_one(build):
    rows = images(3).to_dict()
    rows["image"][2]["bytes"] = make.png(make.pixels(2, height=30, width=40))
    mixed = Dataset.from_dict(rows, features=Features({"image": Image()}))
    with pytest.raises(UserError, match=r"row 2 is 40 x 30 pixels, row 0 is 24 x 20.*image_size"):
        build(mixed)
    cache = build(mixed, image_size=16)
    assert tuple(cache.images.shape) == (3, 3, 16, 16)


def test_grey_and_transparent_images_become_rgb(build):
    grey, clear = make.pixels(0, bands=1)[..., 0], make.pixels(1, bands=4)
    rows = {"image": [{"bytes": make.png(a), "path": None} for a in (grey, clear)]}
    cache = build(Dataset.from_dict(rows, features=Features({"image": Image()})))
    np.testing.assert_array_equal(cache.images[0].numpy(), np.stack([grey] * 3))
    np.testing.assert_array_equal(cache.images[1].permute(1, 2, 0).numpy(), clear[..., :3])


def test_sixteen_bit_images_without_a_scale_are_refused(build):
    deep = make.png(np.arange(480, dtype=np.uint16).reshape(20, 24))
    rows = Dataset.from_dict({"image": [{"bytes": deep, "path": None}]}).cast_column(
        "image", Image()
    )
    with pytest.raises(UserError, match="more than 8 bits"):
        build(rows)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((2, 4, 4, 3), 200, np.uint16), "reach 200 with a mean of 200"),
        (np.full((2, 4, 4, 3), 40_000, np.uint16), "not reflectance x 10000"),
        (np.full((2, 4, 4, 3), 0.5, np.float32), "float32 pixels"),
    ],
)
def test_other_value_ranges_are_refused(build, values, said):
    with pytest.raises(UserError, match=said):
        build(arrays(values))


def test_reflectance_stays_sixteen_bit(build):
    values = np.random.default_rng(0).integers(0, 9000, (3, 8, 8, 3)).astype(np.uint16)
    cache = build(arrays(values))
    assert cache.images.dtype == torch.uint16
    assert cache.value_range == (0, 10_000)
    np.testing.assert_array_equal(cache.images.permute(0, 2, 3, 1).numpy(), values)


def test_a_missing_array_is_left_out(build):
    values = np.full((8, 8, 3), 30, dtype=np.uint8) + np.arange(3, dtype=np.uint8)
    features = Features({"image": Array3D((8, 8, 3), "uint8")})
    cache = build(Dataset.from_dict({"image": [values, None, values]}, features=features))
    assert cache.skipped == [(1, "the image is missing (null)")]
    np.testing.assert_array_equal(cache.images[1].permute(1, 2, 0), values)


def test_missing_columns_and_bands(build):
    with pytest.raises(UserError, match=r"no 'image' column \(it has x\)"):
        build(Dataset.from_dict({"x": [1]}))
    with pytest.raises(UserError, match="nir asked for, but the data has red, green, blue"):
        build(images(), bands="rgbn")


def test_rows_without_a_label_get_minus_one(build):
    features = Features({"image": Image(), "label": Value("int64")})
    rows = {**images(2).to_dict(), "label": [1, None]}
    assert build(Dataset.from_dict(rows, features=features)).labels.tolist() == [1, -1]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_resizing_is_antialiased_and_centred(dtype):
    scale = 1 if dtype == "uint8" else 30
    image = (make.pixels(3, height=90, width=120).astype(np.int64) * scale).astype(dtype)
    small = resize_and_crop(image, 30)
    assert small.shape == (30, 30, 3)
    assert small.dtype == image.dtype
    tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(
        tensor, (30, 40), mode="bilinear", antialias=True, align_corners=False
    )[0, :, :, 5:35].permute(1, 2, 0)
    assert np.abs(small.astype(np.float64) - expected.numpy()).max() <= scale
    stripes = np.zeros((64, 64, 3), dtype)
    stripes[:, ::2] = 200
    # Without the antialiasing filter every second column would vanish or fill the image.
    assert np.ptp(resize_and_crop(stripes, 16).astype(int)[2:-2, 2:-2]) <= 60


def test_open_says_when_there_is_no_cache(tmp_path):
    with pytest.raises(UserError, match="not an image cache"):
        ImageCache.open(tmp_path)


def test_leftovers_of_killed_builds_are_removed(build, tmp_path):
    fingerprint = build(images()).fingerprint
    root = tmp_path / "cache"
    killed = root / f".{fingerprint}.{2**22 + 7}.partial"
    running = root / f".{fingerprint}.{os.getppid()}.partial"
    for path in (killed, running):
        path.mkdir()
    (root / fingerprint).rename(root / "moved away")
    build(images())
    assert not killed.exists()
    assert running.exists()


def _build_in_process(root, folder, queue):
    cache = build_cache(load(folder), image_size=16, cache_dir=root, progress=False)
    queue.put((cache.fingerprint, int(cache.images.long().sum())))


def test_processes_share_one_build(tmp_path):
    folder = make.class_folders(tmp_path / "images", {"river": 20})
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (tmp_path / "cache", folder, queue)
    workers = [context.Process(target=_build_in_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(results) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [results.pop()[0]]


def test_the_first_finished_build_wins_without_locks(build, tmp_path, monkeypatch):
    """Two builds of one cache at once, as on a file system without locks."""
    from contextlib import nullcontext

    import filelock

    from rs_models.data import cache as module

    monkeypatch.setattr(filelock, "FileLock", lambda *_: nullcontext())
    original = module._decoded_blocks
    nested = []

    def blocks(*arguments):
        if not nested:
            nested.append(True)
            nested.append(build(images()))
        yield from original(*arguments)

    monkeypatch.setattr(module, "_decoded_blocks", blocks)
    cache = build(images())
    assert cache.fingerprint == nested[1].fingerprint
    np.testing.assert_array_equal(cache.images[4].permute(1, 2, 0), make.pixels(4))
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 1


@pytest.mark.slow
def test_the_fingerprint_is_the_same_in_another_process(tmp_path):
    """A cache that every process builds anew would be no cache."""
    import subprocess
    import sys

    root = tmp_path / "data"
    root.mkdir()
    images(3, label=[0, 1, 2]).to_parquet(str(root / "train.parquet"))
    code = (
        "import sys; from rs_models.data import load, build_cache\n"
        "rows = load(sys.argv[1], bands='rgb')\n"
        "print(build_cache(rows, cache_dir=sys.argv[2], progress=False).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "cache")]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    )
    assert first == second != ""


def test_real_images(shared_data, build):
    rows = load(shared_data / "aid96", "validation")
    cache = build(rows)
    assert tuple(cache.images.shape) == (1000, 3, 96, 96)
    np.testing.assert_array_equal(cache.images[17].permute(1, 2, 0), np.asarray(rows[17]["image"]))
