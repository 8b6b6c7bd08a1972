"""Band names, value ranges and statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rs_models.bands import (
    LANDSAT,
    band_indices,
    band_statistics,
    default_value_range,
    numbered_band,
    resolve_bands,
    told_sensor,
)
from rs_models.errors import UserError


@pytest.mark.parametrize("name", ["B04", "B4", "b4", "R", "red", "Red", " RED "])
def test_every_spelling_of_a_band_is_one_band(name):
    assert resolve_bands([name]) == ("red",)


def test_sensor_names_stand_for_lists():
    assert resolve_bands("rgb") == ("red", "green", "blue")
    assert resolve_bands("Sentinel-2") == resolve_bands("sentinel2")
    sentinel = resolve_bands("sentinel2")
    assert len(sentinel) == 13
    numbered = [f"B{i:02d}" for i in range(1, 9)] + ["B8A", "B09", "B10", "B11", "B12"]
    assert resolve_bands(numbered) == sentinel


@pytest.mark.parametrize(
    ("sensor", "numbers"),
    [
        ("sentinel-2", ("B04", "B03", "B02", "B08", "B11")),
        ("landsat-5", ("SR_B3", "SR_B2", "SR_B1", "SR_B4", "SR_B5")),
        ("landsat-9", ("B4", "Band 3", "b2", "B05", "SR_B6")),
    ],
)
def test_numbers_are_those_of_their_sensor(sensor, numbers):
    names = tuple(numbered_band(number, sensor) for number in numbers)
    assert names == ("red", "green", "blue", "nir", "swir1")


def test_numbers_without_a_band_and_sensors_without_numbers():
    assert numbered_band("ST_B10", "landsat-8") is None
    assert numbered_band("B6", "landsat-7") is None  # thermal
    with pytest.raises(UserError, match="'spot' is not known: name one of sentinel-2, landsat-4"):
        numbered_band("B1", "spot")
    for numbers in LANDSAT.values():
        assert resolve_bands(list(numbers.values())) == tuple(numbers.values())


@pytest.mark.parametrize(
    ("text", "names", "sensor"),
    [
        ("LC08_L2SP_201024_20240501", [], "landsat-8"),
        ("platform=Landsat-7", [], "landsat-7"),
        ("S2B_MSIL2A_20240501", [], "sentinel-2"),
        ("sentinel-2 beside landsat-8", ["B04"], None),
        ("scene", ["B04", "B03"], "sentinel-2"),
        ("scene", ["SR_B4", "SR_B6"], "landsat-8"),
        ("scene", ["B4", "B3"], None),
    ],
)
def test_a_sensor_is_told_or_it_is_not(text, names, sensor):
    assert told_sensor(text, names) == sensor


def test_names_in_one_string_keep_their_order():
    assert resolve_bands("B08, B04,B03") == ("nir", "red", "green")


@pytest.mark.parametrize(
    ("value", "said"),
    [(["red", "violet"], "violet"), (["red", "B04"], "twice"), ([], "empty"), ("", "empty")],
)
def test_bad_lists_are_refused(value, said):
    with pytest.raises(UserError, match=said):
        resolve_bands(value)


def test_missing_bands_are_never_invented():
    assert band_indices(("red", "green", "blue", "nir"), ("nir", "red")) == [3, 0]
    with pytest.raises(UserError, match=r"swir1 asked for, but tile\.tif has red, nir"):
        band_indices(("red", "nir"), ("red", "swir1"), source="tile.tif")


def test_value_ranges():
    assert default_value_range("uint8", ["red"]) == (0, 255)
    assert default_value_range(torch.uint16, ["red"]) == (0, 10_000)
    assert default_value_range(np.dtype("uint16"), ["red"]) == (0, 10_000)
    for dtype, bands in (("uint16", ["vv"]), ("float32", ["red"])):
        with pytest.raises(UserError, match=dtype):
            default_value_range(dtype, bands)


@pytest.mark.parametrize(("dtype", "high"), [("uint8", 255), ("uint16", 10_000)])
def test_statistics_are_those_of_the_scaled_pixels(dtype, high):
    rng = np.random.default_rng(0)
    images = rng.integers(0, high, (150, 2, 6, 5)).astype(dtype)
    mean, std = band_statistics(torch.from_numpy(images), (0, high))
    scaled = images.astype(np.float64) / high
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)))
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)))


def test_statistics_of_a_sample_spread_over_the_set():
    images = np.repeat(np.arange(100, dtype=np.uint8), 4).reshape(100, 1, 2, 2)
    mean, _ = band_statistics(images, (0, 255), max_images=11)
    assert mean[0] * 255 == pytest.approx(49.5, abs=0.5)


def test_a_constant_band_is_an_error():
    images = np.full((4, 2, 3, 3), 7, dtype=np.uint8)
    images[:, 0] = np.arange(9).reshape(3, 3)
    with pytest.raises(UserError, match=r"number 1 .* value 7"):
        band_statistics(images, (0, 255))
