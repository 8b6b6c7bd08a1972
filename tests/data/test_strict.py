"""What cannot be read or never occurs is told and counted, or with `strict` refused."""

from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from rs_models.errors import UserError
from rs_models.evaluation.probe import ProbeData, _cached
from rs_models.tasks.finetuning.config import FinetuneData
from rs_models.tasks.finetuning.data import check_labels, open_split
from tests.data import make

RGB = ("red", "green", "blue")


@pytest.fixture
def broken(tmp_path):
    """Three images of two classes each, of which the fifth cannot be read."""
    root = make.class_folders(tmp_path / "set", {"train/forest": 3, "train/river": 3})
    (root / "train/river/001.png").write_bytes(b"\x89PNG broken")
    return root


@pytest.fixture
def without_river(tmp_path):
    """A named class that the test split lacks."""
    folder = tmp_path / "rivers"
    folder.mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=["forest", "river", "road"])})
    for split, numbers in (("train", [0, 1, 2]), ("test", [0, 2])):
        images = [{"bytes": make.png(make.pixels(n)), "path": None} for n in numbers]
        rows = Dataset.from_dict({"image": images, "label": numbers}, features=features)
        rows.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def test_fine_tuning_stops_or_leaves_out_and_counts(broken, caplog):
    lenient = FinetuneData(name=str(broken), strict=False)
    kept = open_split(lenient, "train", "classification", RGB)
    assert kept.labels is not None and kept.labels.tolist() == [0, 0, 0, 1, 1]
    assert "1 of 6 images" in caplog.text and "001.png" in caplog.text
    stops = open_split(FinetuneData(name=str(broken)), "train", "classification", RGB)
    with pytest.raises(UserError, match=r"row 4 of .*001\.png"):
        stops.image(4)


def test_evaluation_leaves_out_or_stops(broken, tmp_path):
    _, images = _cached(ProbeData(name=str(broken)), "train", tmp_path / "cache")
    assert len(images) == 5 and images.skipped[0][0] == 4
    with pytest.raises(UserError, match=r"row 4 .*001\.png"):
        _cached(ProbeData(name=str(broken), strict=True), "train", tmp_path / "cache")


def test_a_named_class_that_never_occurs_is_told(without_river, tmp_path, caplog):
    data = FinetuneData(name=str(without_river))
    for split, count in (("train", 3), ("test", 2)):
        check_labels(open_split(data, split, "classification", RGB), range(count), 3)
    expected = "(test) has the class river: it can neither be learned nor counted there."
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith(expected)
    caplog.clear()
    for split in ("train", "test"):
        _cached(ProbeData(name=str(without_river)), split, tmp_path / "cache")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith(expected)
