"""Protocols by name, from an encoder to results."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from rs_models.errors import UserError
from rs_models.evaluation.features import extract
from rs_models.evaluation.kinds import bench_split, protocol
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import Elsewhere, content_hash, run
from rs_models.evaluation.readout import Whitening, at_all_stages
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
    for name in ("knn7", "linear-n0", "linear-n5@", "kNN20", "linear-n5@0"):
        with pytest.raises(UserError, match=f"Unknown protocol '{name}'"):
            run(encoder, train, test, protocols=[name], **QUIET)
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


class Counted:
    """An encoder that keeps which images it has seen."""

    def __init__(self, train):
        self.inner = load_encoder("baseline:image-statistics").fit(train)
        self.seen = []

    def fit(self, cache):
        def forward(x):
            self.seen.append(len(x))
            return self.inner.model(x)

        return dataclasses.replace(self.inner, forward=forward)


def test_only_what_a_protocol_needs_is_computed_and_recorded(splits):
    train, test, _ = splits
    encoder = Counted(train)
    names = {name: name for name in test.classes[:6]}
    [result] = run(
        encoder,
        None,
        test,
        protocols=["transfer"],
        source=Elsewhere("scenes", train, names),
        **QUIET,
    )
    assert sum(encoder.seen) == len(train) + len(test)
    learned = result.settings["source_images"]
    assert result.settings["train_images"] == learned < len(train)
    assert result.settings["test_images"] == len(test)
    places = [str(i % 3) for i in range(len(train))]
    [result] = run(encoder, train, None, protocols=["leave-one-out"], places=places, **QUIET)
    assert result.settings["train_images"] == [64, 64, 64]
    with pytest.raises(UserError, match="needs the test split"):
        run(encoder, train, None, protocols=["knn5"], **QUIET)


def test_what_the_data_is_too_small_for_is_skipped_before_anything_is_computed(splits):
    train, test, _ = splits
    encoder, notes = Counted(train), []
    [result] = run(
        encoder, train, test, protocols=["linear-n50", "knn5"], note=notes.append, **QUIET
    )
    assert result.protocol == "knn5"
    [note] = notes
    assert note.startswith("linear-n50 is skipped: class ") and "50 per class" in note
    encoder.seen.clear()
    with pytest.raises(UserError, match="The data is too small: linear-n50 is skipped"):
        run(encoder, train, test, protocols=["linear-n50"], **QUIET)
    assert not encoder.seen


def test_features_of_all_stages_are_their_own_protocol(splits):
    train, test, _ = splits
    for name, width in (("resnet_nano", 240), ("vit_nano", 128)):
        encoder = load_encoder(f"baseline:random-{name}").fit(train)
        whole = at_all_stages(encoder)
        assert extract(whole, test, **QUIET).shape == (len(test), width)
        pooled, staged = run(
            encoder, train, test, protocols=["linear-n3", "linear-n3@stages"], seeds=2, **QUIET
        )
        assert staged.protocol == "linear-n3@stages"
        assert staged.settings["sides"] == [32, 48]
        assert pooled.settings["draws"] == staged.settings["draws"]
        assert pooled.values != staged.values
    assert protocol("linear-n20@stages@64").pixels == 64
    for wrong in ("linear@64@stages", "linear@stages@stages", "leave-one-out@stages"):
        with pytest.raises(UserError, match="Unknown protocol"):
            protocol(wrong)


def test_whitened_features_are_uncorrelated_and_of_one_variance():
    x = np.random.default_rng(0).normal(size=(4000, 5)) @ np.diag([1, 10, 0.1, 3, 0])
    white = Whitening.fit(x)(x)
    covariance = np.cov(white.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.02
    assert np.sort(np.diag(covariance))[1:] == pytest.approx(1 / 1.08, abs=0.05)


def test_torchgeo_benchs_split_is_by_sorted_names_and_seed_zero(splits):
    names = [f"a/river_{i}.jpg" for i in range(1, 12)]
    order = sorted(f"river_{i}.jpg" for i in range(1, 12))
    random.Random(0).shuffle(order)
    rows = bench_split(names[::-1], np.zeros(11, int))
    found = [{names[::-1][row].removeprefix("a/") for row in part} for part in rows]
    assert found == [set(order[:7]), set(order[7:9]), set(order[9:])]
    train = splits[0]
    files = [f"{i}.png" for i in range(len(train))]
    results = run(
        load_encoder("baseline:image-statistics"),
        train,
        None,
        files=files,
        protocols=["torchgeo-bench-knn5", "torchgeo-bench-linear"],
        **QUIET,
    )
    counts = [len(part) for part in bench_split(files, train.labels.numpy())]
    assert [result.settings["test_images"] for result in results] == [counts[2]] * 2
    assert [result.settings["train_images"] for result in results] == [counts[0], sum(counts[:2])]
    with pytest.raises(UserError, match="file names"):
        run(Counted(train), train, None, protocols=["torchgeo-bench-knn5"], **QUIET)


def test_probes_also_give_calibration_and_kappa(splits):
    train, test, _ = splits
    results = run(
        load_encoder("baseline:image-statistics"),
        train,
        test,
        protocols=["knn5", "linear-n3", "retrieval5"],
        seeds=2,
        **QUIET,
    )
    knn, few, retrieval = (result.scores for result in results)
    assert set(knn) == {"kappa", "average_accuracy"} and retrieval == {}
    assert set(few) == {"ece", "kappa", "average_accuracy"}
    assert len(few["ece"]) == 2 and all(0 <= value <= 1 for value in few["ece"])
    # The same number of test images a class: average accuracy is accuracy.
    counts = np.bincount(test.labels.numpy())
    if len(set(counts)) == 1:
        assert 100 * few["average_accuracy"][0] == pytest.approx(results[1].values[0], abs=0.01)
