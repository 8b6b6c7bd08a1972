"""One pile of several sets: what it holds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rs_models.data import load
from rs_models.data.mixture import write_mixture
from rs_models.data.names import data_name, sets_of
from rs_models.errors import UserError


@pytest.fixture
def sets(tmp_path):
    """Class folders of 8 pixel images, and a flat folder of 32 pixel ones."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(["town/field", "town/water", "towns"] * 3):
        side = 32 if name == "towns" else 8
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return str(tmp_path / "town"), str(tmp_path / "towns")


def test_sets_follow_each_other_with_source_and_class(sets, tmp_path):
    rows = load(write_mixture(tmp_path / "mixed", {sets[0]: 1, sets[1]: 2}), "train")
    assert rows["source"] == ["town"] * 6 + ["towns"] * 2
    assert rows.features["label"].names == ["town/field", "town/water", "towns"]
    assert list(rows["label"]) == [0, 0, 0, 1, 1, 1, 2, 2]
    first = load(sets[0], "train")[0]["image"]
    assert np.array_equal(rows[0]["image"], first)


def test_large_images_are_cut_into_tiles(sets, tmp_path):
    rows = load(write_mixture(tmp_path / "mixed", {sets[0]: 3, sets[1]: 3}, tile=16), "train")
    assert [image.size for image in rows["image"]] == [(8, 8)] * 2 + [(16, 16)] * 4
    whole = np.asarray(load(sets[1], "train")[0]["image"])
    assert np.array_equal(rows[3]["image"], whole[:16, 16:])


def test_what_cannot_be_is_refused(sets, tmp_path):
    with pytest.raises(UserError, match="every 0 images"):
        write_mixture(tmp_path / "mixed", {sets[0]: 0})
    with pytest.raises(UserError, match="exists"):
        write_mixture(tmp_path, {sets[0]: 1})


def test_a_mixture_is_called_by_its_sets(sets, tmp_path):
    mixed = write_mixture(tmp_path / "mixed", {sets[0]: 1, sets[1]: 2})
    assert data_name(mixed) == "town+towns"
    assert sets_of(f"{data_name(mixed)}:train") == ["town", "towns"]
    (mixed / "mixture.json").write_text("[1]")  # of somebody else
    assert data_name(mixed) == "mixed"
