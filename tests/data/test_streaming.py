"""Batches from streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Array3D, Dataset, Features, Image
from torch.utils.data import DataLoader

from rs_models.data import load
from rs_models.data.columns import BandArray
from rs_models.data.streaming import StreamBatches
from rs_models.errors import UserError
from tests.data import make


@pytest.fixture
def folder(tmp_path):
    return make.class_folders(tmp_path / "images", {"river": 24})


def stream(folder, **settings):
    rows = load(folder, streaming=True)
    return StreamBatches(rows, **{"image_size": 16, "batch_size": 4, **settings})


def test_batches_hold_the_images_in_order(folder):
    batches = list(stream(folder, image_size=20))
    assert [tuple(b.shape) for b in batches] == [(4, 3, 20, 20)] * 6
    assert batches[0].dtype == torch.uint8
    assert batches[0].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batches[1][2].permute(1, 2, 0), make.pixels(6)[:, 2:22])


def test_an_incomplete_last_batch_is_dropped(folder):
    assert len(list(stream(folder, batch_size=5))) == 4


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")
def test_processes_and_workers_share_the_images(folder):
    def found(batches):
        return sorted(image.sum().item() for batch in batches for image in batch.long())

    everything = found(stream(folder))
    parts = [found(stream(folder, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [len(part) for part in parts] == [12, 12]
    assert sorted(parts[0] + parts[1]) == everything
    loader = DataLoader(stream(folder), batch_size=None, num_workers=2)
    assert found(loader) == everything


def test_a_stream_continues_where_it_was(folder):
    source = stream(folder)
    expected = list(stream(folder))
    iterator = iter(source)
    for _ in range(3):
        next(iterator)
    again = stream(folder)
    again.skip(source.rows_read)
    rest = list(again)
    assert len(rest) == 3
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[3:], strict=True))


def broken_rows():
    data = [{"bytes": make.png(make.pixels(i)), "path": None} for i in range(9)]
    data[2] = {"bytes": b"no image", "path": None}
    rows = Dataset.from_dict({"image": data}, features=Features({"image": Image()}))
    return rows.to_iterable_dataset()


def test_corrupt_images_are_replaced_by_the_next(caplog):
    source = StreamBatches(broken_rows(), image_size=20, batch_size=4)
    batches = list(source)
    assert source.skipped == 1
    assert "cannot be read" in caplog.text
    np.testing.assert_array_equal(batches[0][2].permute(1, 2, 0), make.pixels(3)[:, 2:22])
    assert len(batches) == 2


def test_strict_streams_stop():
    with pytest.raises(UserError, match="stream cannot be read"):
        list(StreamBatches(broken_rows(), image_size=20, batch_size=4, strict=True))


def test_arrays_and_their_nir_column(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (4, 8, 8, 3)).astype(np.uint8)
    nir = [{"bytes": make.png(np.full((8, 8), i, np.uint8)), "path": None} for i in range(4)]
    features = Features({"image": Array3D((8, 8, 3), "uint8"), "nir": Image()})
    rows = Dataset.from_dict({"image": values, "nir": nir}, features=features)
    rows = rows.to_iterable_dataset()
    batch = next(iter(StreamBatches(rows, bands="rgb", image_size=8, batch_size=4)))
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1), values)
    named = rows.cast_column("image", BandArray((8, 8, 3), "uint8", ["red", "green", "blue"]))
    batch = next(iter(StreamBatches(named, bands="rgbn", image_size=8, batch_size=4)))
    assert batch[:, 3, 0, 0].tolist() == [0, 1, 2, 3]


def test_missing_bands_are_told_before_the_first_batch(folder):
    with pytest.raises(UserError, match="nir asked for"):
        stream(folder, bands="rgbn")
