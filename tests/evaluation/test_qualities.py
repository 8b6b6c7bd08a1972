"""What features keep and lose: invariance and the silhouette of classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_samples

from rs_models.evaluation.kinds import protocol
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import run
from rs_models.evaluation.qualities import VIEWS, silhouettes, viewed
from tests.evaluation.helpers import DATA, cache_of

QUIET = {"progress": False, "device": "cpu"}
ALL = ("invariance-rotation", "invariance-colour", "invariance-scale", "silhouette")


def test_silhouettes_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y = np.array([3] * 20 + [5] * 15 + [9])  # one class has one image
    x = rng.normal(size=(36, 8)) + 2 * rng.normal(size=(10, 8))[y]
    np.testing.assert_allclose(
        silhouettes(x, y), silhouette_samples(x, y, metric="cosine"), atol=1e-12
    )


def test_views_change_the_pixels_that_they_name_and_nothing_else():
    images = cache_of(DATA, "test")
    turned, recoloured, enlarged = (viewed(images, view).images for view in VIEWS)
    assert torch.equal(turned.rot90(3, (2, 3)), images.images)
    assert enlarged.shape[2] == round(0.75 * images.image_size[0])
    first = images.images[:, 0].float()
    assert torch.equal(recoloured[:, 0], (first * 1.25).round().clamp(0, 255).to(torch.uint8))
    assert torch.equal(recoloured[:, 1], images.images[:, 1])
    assert len({viewed(images, view).fingerprint for view in VIEWS} | {images.fingerprint}) == 4


def test_features_that_do_not_see_a_change_find_every_image_again():
    test = cache_of(DATA, "test")
    statistics = load_encoder("baseline:image-statistics").fit(test)  # blind to where pixels are
    found = {
        result.protocol: result for result in run(statistics, None, test, protocols=ALL, **QUIET)
    }
    assert found["invariance-rotation"].mean == 100
    assert found["invariance-colour"].mean < 100
    assert found["invariance-rotation"].metric == "recall@1"
    assert found["invariance-scale"].settings["view"] == "scale"
    assert -100 <= found["silhouette"].mean <= 100

    def alike(x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), 4)

    blind = dataclasses.replace(statistics, forward=alike, readout="alike")
    (nothing,) = run(blind, None, test, protocols=["invariance-rotation"], **QUIET)
    assert nothing.mean <= 100 / len(test)


def test_kept_features_of_a_view_are_not_taken_for_those_of_the_images(tmp_path):
    test = cache_of(DATA, "test")
    encoder = load_encoder("baseline:image-statistics").fit(test)
    again = [
        [
            result.mean
            for result in run(encoder, None, test, protocols=ALL, cache_dir=tmp_path, **QUIET)
        ]
        for _ in range(2)
    ]
    assert again[0] == again[1]
    assert len(list(tmp_path.glob("*.npy"))) == 4  # the images and three views


def test_sizes_and_stages_go_with_them():
    assert protocol("invariance-scale@stages@48").pixels == 48
    assert protocol("invariance-colour@64").view == "colour"
    with pytest.raises(Exception, match="invariance-rotation"):
        protocol("invariance-season")
