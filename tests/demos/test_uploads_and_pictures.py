"""Uploads end in a picture or in a sentence; pictures show what they say."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image

from rs_models.demos import pictures
from rs_models.demos.uploads import read_picture, shrunk
from rs_models.errors import UserError


def tiff(path, bands=3, dtype="uint8", side=32, names=None):
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=bands, dtype=dtype
    ) as out:
        for band in range(1, bands + 1):
            out.write(np.full((side, side), band * 10, dtype), band)
            if names:
                out.set_band_description(band, names[band - 1])
    return path


def test_photos_are_read_upright_in_three_bands(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned
    Image.new("L", (40, 20), 77).save(tmp_path / "grey.jpg", exif=exif)
    picture = read_picture(tmp_path / "grey.jpg")
    assert picture.shape == (40, 20, 3) and picture.dtype == np.uint8
    assert abs(int(picture[0, 0, 1]) - 77) < 3


def test_bands_of_a_raster_are_found_by_name(tmp_path):
    path = tiff(tmp_path / "a.tif", 4, names=["nir", "blue", "green", "red"])
    assert read_picture(path)[0, 0].tolist() == [40, 30, 20]
    assert read_picture(tiff(tmp_path / "b.tif", 3))[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda p: None, "Choose an image first"),
        (lambda p: p / "gone.png", "upload it again"),
        (lambda p: _text(p / "notes.txt"), "notes.txt is not an image"),
        (lambda p: _text(p / "broken.tif"), "is not a TIFF"),
        (lambda p: _cut(p), "damaged"),
        (lambda p: tiff(p / "s.tif", 12), "12 bands"),
        (lambda p: tiff(p / "u.tif", 3, "uint16"), "8-bit"),
        (lambda p: _large(p), "4000 a side"),
        (lambda p: _large(p, 8), "too small"),
    ],
)
def test_what_is_no_picture_ends_in_a_sentence_without_a_path(tmp_path, make, said):
    with pytest.raises(UserError, match=said) as error:
        read_picture(make(tmp_path))
    assert str(tmp_path) not in str(error.value)


def _text(path):
    path.write_text("not pixels")
    return path


def _cut(folder):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "cut.png")
    data = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    return folder / "cut.png"


def _large(folder, side=4001):
    Image.new("1", (side, 20)).save(folder / "large.png")
    return folder / "large.png"


def test_shrunk_pictures_keep_their_shape():
    picture = np.zeros((60, 100, 3), np.uint8)
    assert shrunk(picture, 50).shape == (30, 50, 3)
    assert shrunk(picture, 500) is picture


def test_principal_components_show_the_parts_of_a_map():
    features = np.random.default_rng(0).normal(0, 0.01, (16, 8, 8))
    features[:8, :, 4:] += 1
    shown = pictures.pca_picture(features, 64).astype(int)
    left, right = shown[:, 8:24, 0].mean(), shown[:, 40:56, 0].mean()
    assert abs(left - right) > 200
    assert np.array_equal(shown, pictures.pca_picture(features, 64))


def test_an_overlay_mixes_where_there_is_a_class():
    picture = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[0, 1], [255, 255]], np.uint8)
    mixed = pictures.overlay(picture, mask, [(200, 0, 0), (0, 0, 0)], 0.5)
    assert mixed[0, 0].tolist() == [150, 50, 50] and mixed[0, 1].tolist() == [50, 50, 50]
    assert (mixed[1] == 100).all()
