"""Protocols by name, from an encoder to results."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from rs_models.errors import UserError
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import content_hash, run
from tests.evaluation.helpers import DATA, cache_of

TRAIN = "synthetic:num=96,size=32"


@pytest.fixture(scope="module")
def splits():
    return cache_of(TRAIN), cache_of(DATA, "test"), cache_of(DATA, "validation")


QUIET = {"progress": False, "device": "cpu"}


def test_each_protocol_gives_a_result_that_says_how(splits):
    train, test, validation = splits
    protocols = ("knn20", "knn5", "linear", "linear-n3", "linear-n5", "knn20@48")
    results = run(
        load_encoder("baseline:image-statistics"),
        train,
        test,
        validation=validation,
        protocols=protocols,
        seeds=3,
        data="scenes",
        command="probe",
        **QUIET,
    )
    found = {result.protocol: result for result in results}
    assert tuple(found) == protocols
    assert {result.data for result in results} == {"scenes"}
    assert found["linear"].settings["c_chosen_on"] == "validation"
    assert len(found["linear-n5"].values) == len(found["linear-n5"].settings["draws"]) == 3
    assert found["knn20"].settings["image_size"] == 32
    assert found["knn20@48"].settings["image_size"] == 48
    assert found["knn20"].settings["temperature"] == 0.07
    x, z = (
        extract(load_encoder("baseline:image-statistics").fit(train), cache, **QUIET)
        for cache in (train, test)
    )
    reference = KNeighborsClassifier(5, metric="cosine").fit(x, train.labels.numpy())
    assert found["knn5"].mean == pytest.approx(100 * reference.score(z, test.labels), abs=1e-3)
    assert all(low <= r.mean <= high for r in results for low, high in [r.interval])


def test_the_same_call_gives_the_same_numbers_and_a_tenth_stands_in_for_validation(splits):
    train, test, _ = splits
    once, again = (
        run(load_encoder("baseline:random-resnet_nano"), train, test, protocols=["linear"], **QUIET)
        for _ in range(2)
    )
    assert once[0].settings["c_chosen_on"] == "a tenth of train"
    assert (once[0].values, once[0].interval) == (again[0].values, again[0].interval)
    assert once[0].data_revision == content_hash(test) != content_hash(train)


def test_what_no_protocol_can_use_is_refused(splits):
    train, test, _ = splits
    encoder = load_encoder("baseline:image-statistics")
    for protocol in ("knn7", "linear-n0", "linear-n5@", "kNN20", "linear-n5@0"):
        with pytest.raises(UserError, match=f"Unknown protocol '{protocol}'"):
            run(encoder, train, test, protocols=[protocol], **QUIET)
    with pytest.raises(UserError, match="has 8 labelled rows"):
        run(encoder, train, test, protocols=["linear-n50"], **QUIET)
    other = cache_of(DATA, "test")
    other.classes = [*reversed(other.classes)]
    with pytest.raises(UserError, match="The test split has the classes"):
        run(encoder, train, other, protocols=["knn20"], **QUIET)
    unlabelled = cache_of(DATA, "test")
    unlabelled.labels = None
    with pytest.raises(UserError, match="The test split has no 'label' column"):
        run(encoder, train, unlabelled, protocols=["knn20"], **QUIET)


@pytest.mark.slow
def test_image_statistics_on_real_images(shared_data):
    train, test = (cache_of(str(shared_data / "aid96"), split) for split in ("train", "test"))
    results = run(
        load_encoder("baseline:image-statistics"),
        train,
        test,
        protocols=["knn20", "linear-n5", "linear-n20", "linear-n50"],
        **QUIET,
    )
    # Measured independently on the same images with scikit-learn; draws differ.
    np.testing.assert_allclose([r.mean for r in results], [36.6, 21.4, 29.4, 33.2], atol=1.5)
