"""Learned in one data set, asked in another; places never seen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rs_models.errors import UserError
from rs_models.evaluation.loading import load_encoder
from rs_models.evaluation.protocols import Elsewhere, run
from rs_models.evaluation.transfer import CLASS_MAPS, class_map, leave_one_out, relabel, transfer
from tests.evaluation.helpers import DATA, cache_of


def blobs(counts, shift=0.0, seed=0):
    """Classes around corners of a cube, moved by a shift; (N, 6) and (N,)."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    return rng.normal(size=(len(y), 6)) + 2.5 * np.eye(6)[y] + shift, y


def test_classes_are_brought_over_by_the_map_and_others_left_out():
    labels = np.asarray([0, 1, 2, 3, 1])
    rows, new = relabel(
        labels,
        ["pond", "river", "road", "wood"],
        ["forest", "water"],
        {"pond": "water", "river": "water", "wood": "forest"},
    )
    np.testing.assert_array_equal(rows, [0, 1, 3, 4])
    np.testing.assert_array_equal(new, [1, 1, 0, 1])
    with pytest.raises(UserError, match="'lake', which the source"):
        relabel(labels, ["pond"], ["water"], {"lake": "water"})
    with pytest.raises(UserError, match="'sea', which the target"):
        relabel(labels, ["pond"], ["water"], {"pond": "sea"})


def test_maps_have_names():
    assert class_map("aid-rsscn7")["Pond"] == "RiverLake"
    assert len(set(CLASS_MAPS["aid-rsscn7"].values())) == 7
    assert class_map({"a": "b"}) == {"a": "b"}
    with pytest.raises(UserError, match="Unknown class map 'x'"):
        class_map("x")
    with pytest.raises(UserError, match="is empty"):
        class_map({})


def test_the_probe_is_trained_on_the_source_alone():
    x, y = blobs([40, 40, 40])
    target_x, target_y = blobs([30, 30, 30], shift=0.8, seed=1)
    answers = transfer(x, y, target_x, target_y)
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=answers.settings["c"], max_iter=2000)
    reference.fit(scaler.transform(x), y)
    wanted = reference.predict(scaler.transform(target_x)) == target_y
    assert abs(answers.correct[0].mean() - wanted.mean()) < 0.03
    few = transfer(x, y, target_x, target_y, n=5, seeds=3)
    assert len(few.correct) == 3 and few.settings["images_per_class"] == 5


def test_each_place_is_tested_by_what_the_others_taught():
    """A place whose labels are turned round is told by others' rules: all wrong there."""
    x, y = blobs([60, 60])
    places = np.tile(["a", "b", "c"], 40)
    turned = np.where(places == "b", 1 - y, y)
    answers = leave_one_out(x, turned, places)
    assert answers.settings["places"] == ["a", "b", "c"]
    assert answers.settings["images"] == [40, 40, 40]
    b = answers.correct[1].mean()
    assert b < 0.2
    honest = leave_one_out(x, y, places)
    assert all(correct.mean() > 0.8 for correct in honest.correct)
    with pytest.raises(UserError, match="one place"):
        leave_one_out(x, y, ["a"] * 120)


def test_the_protocols_give_results_by_name():
    train, test = cache_of("synthetic:num=96,size=32"), cache_of(DATA, "test")
    names = {name: name for name in train.classes[:6]}
    results = run(
        load_encoder("baseline:image-statistics"),
        train,
        test,
        source=Elsewhere("scenes", train, names),
        places=[str(i % 3) for i in range(len(train))],
        protocols=["retrieval20", "transfer", "transfer-n2", "leave-one-out"],
        seeds=2,
        progress=False,
        device="cpu",
    )
    found = {result.protocol: result for result in results}
    assert list(found) == ["retrieval20", "transfer-scenes", "transfer-scenes-n2", "leave-one-out"]
    assert found["retrieval20"].metric == "mAP" and found["transfer-scenes"].metric == "accuracy"
    assert found["transfer-scenes"].settings["class_map"] == names
    assert len(found["transfer-scenes-n2"].values) == 2
    assert len(found["leave-one-out"].values) == 3
    for result in results:
        assert result.interval[0] <= result.mean <= result.interval[1]


@pytest.mark.parametrize(
    ("protocol", "message"),
    [("transfer", r"source\.name"), ("leave-one-out", r"data\.place"), ("knn7", "20 neighbours")],
)
def test_protocols_without_what_they_need_are_refused(protocol, message):
    cache = cache_of(DATA, "test")
    with pytest.raises(UserError, match=message):
        run(load_encoder("baseline:image-statistics"), cache, cache, protocols=[protocol])
