"""Paired differences and what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rs_models.evaluation.results import Result
from rs_models.study.claims import FINISHED, SEEDS, Claim, difference, measured, t_interval
from rs_models.study.verdicts import compare as compare_claims
from rs_models.study.verdicts import visible

CLAIM = Claim("rsisc", "says", "new", "old", ["aid96/knn20"])


def result(cell, values, seeds, protocol="knn20"):
    return Result.now(
        model=cell,
        model_revision="r",
        data="aid96",
        data_revision="d",
        protocol=protocol,
        metric="accuracy",
        settings={SEEDS: seeds},
        values=values,
        interval=[0.0, 100.0],
        command="study",
    )


def compare(new, old, seeds=(0, 1, 2), old_seeds=(0, 1, 2)):
    sides = [result("new", new, list(seeds)), result("old", old, list(old_seeds))]
    return difference(CLAIM, "aid96/knn20", {side.key: side for side in sides})


def test_the_interval_is_that_of_a_paired_t_test():
    new, old = [41.0, 44.0, 39.5], [40.0, 42.5, 39.0]
    found = compare(new, old)
    expected = stats.ttest_rel(new, old).confidence_interval(0.95)
    assert (found.low, found.high) == (
        pytest.approx(expected.low, abs=1e-3),
        pytest.approx(expected.high, abs=1e-3),
    )
    assert found.mean == pytest.approx(1.0)
    assert t_interval([1.0]) == (-np.inf, np.inf)


def test_seeds_are_paired_by_number_and_not_by_place():
    found = compare([10.0, 20.0, 30.0], [30.0, 10.0, 21.0], old_seeds=(2, 0, 1))
    assert found.values == [0.0, -1.0, 0.0]
    assert compare([10.0], [9.0], seeds=(0,), old_seeds=(0,)) is None


def judged(*pairs, floor=0.0, floors=None):
    """Verdicts of claims whose sides have these values, random weights reaching `floor`."""
    results, claims = [], []
    for i, (new, old) in enumerate(pairs):
        results += [result(f"new{i}", new, [0, 1, 2]), result(f"old{i}", old, [0, 1, 2])]
        claims.append(Claim("rsisc", "says", f"new{i}", f"old{i}", ["aid96/knn20"]))
    results.append(result("random", [floor] * 3, [0, 1, 2]))
    if floors is None:
        floors = {one.model: "random" for one in results}
    by_key = {one.key: one for one in results}
    return [told["verdict"] for told in compare_claims(claims, by_key, floors)]


AHEAD, BEHIND = [50.0, 51.0, 52.0], [40.0, 41.1, 42.2]
UNSURE = ([50.0, 45.0, 52.0], [48.0, 47.0, 51.0])
CLOSE = ([50.0, 51.0, 52.0], [48.0, 48.0, 50.2])  # p is between 0.05 / 3 and 0.05


@pytest.mark.parametrize(
    ("new", "old", "word"),
    [(AHEAD, BEHIND, "holds"), (BEHIND, AHEAD, "the reverse"), (*UNSURE, "cannot be told")],
)
def test_verdicts(new, old, word):
    assert judged((new, old)) == [word]


def test_a_side_that_does_not_pass_random_weights_is_no_test():
    assert judged((AHEAD, BEHIND), floor=41.2) == ["not tested"]
    assert judged((AHEAD, BEHIND), floor=39.0) == ["holds"]
    assert judged((AHEAD, BEHIND), floors={"new0": "random"}) == ["not tested"]


def test_a_network_from_scratch_may_be_the_worse_side_at_a_measure_of_its_own():
    measure = "aid96/finetune-1.5% against aid96/finetune-10%"
    asked = Claim("last", "few labels beat many from scratch", "new", "random", [measure])
    few, many = "finetune-1.5%", "finetune-10%"
    found = [
        result("new", [40.0, 41.0, 42.1], [0, 1, 2], few),
        result("random", [30.0, 31.0, 32.0], [0, 1, 2], few),
        result("random", [50.0, 51.0, 52.0], [0, 1, 2], many),
    ]
    by_key = {one.key: one for one in found}
    (told,) = compare_claims([asked], by_key, {"new": "random"})
    assert told["verdict"] == "the reverse"
    assert told["differences"][0]["values"] == [-10.0, -10.0, -9.9]
    asked.measures[:] = ["aid96/finetune-1.5% against "]
    assert compare_claims([asked], by_key, {"new": "random"})[0]["verdict"] == "not measured"
    asked.measures[:] = [measure]
    # Few labels must have taught it more than they teach random weights.
    as_good = result("random", [40.0, 41.0, 43.0], [0, 1, 2], few)
    by_key[as_good.key] = as_good
    assert compare_claims([asked], by_key, {"new": "random"})[0]["verdict"] == "not tested"


def test_whether_it_beats_random_weights_is_a_claim_with_two_answers():
    asked = Claim("last", "better than chance", "new", "random", ["aid96/knn20"])
    for new, word in (([50.0, 51.0, 52.0], "holds"), ([30.0, 31.0, 32.1], "the reverse")):
        found = [result("new", new, [0, 1, 2]), result("random", [40.0, 41.0, 42.0], [0, 1, 2])]
        by_key = {one.key: one for one in found}
        assert compare_claims([asked], by_key, {"new": "random"})[0]["verdict"] == word


def test_a_finished_model_stands_beside_every_seed():
    found = [result("new", [50.0, 51.0, 52.0], [0, 1, 2]), result("given", [60.0], [0])]
    found[1] = replace(found[1], settings={**found[1].settings, FINISHED: True})
    by_key = {one.key: one for one in found}
    asked = Claim("rsisc", "ours is better", "new", "given", ["aid96/knn20"])
    assert difference(asked, "aid96/knn20", by_key).values == [-10.0, -9.0, -8.0]
    turned = Claim("rsisc", "theirs is better", "given", "new", ["aid96/knn20"])
    assert difference(turned, "aid96/knn20", by_key).values == [10.0, 9.0, 8.0]


def test_verdicts_are_corrected_for_the_claims_that_were_tested():
    p = compare(*CLOSE).p
    assert p == pytest.approx(stats.ttest_rel(*CLOSE).pvalue)
    assert 0.05 / 3 < p < 0.05
    assert judged(CLOSE) == ["holds"]
    assert judged(CLOSE, UNSURE, UNSURE)[0] == "cannot be told"
    assert judged(CLOSE, (AHEAD, BEHIND)) == ["holds", "holds"]  # the clearer one goes first


def test_a_second_look_wants_a_clearer_answer():
    p = compare(*CLOSE).p
    results = {
        one.key: one for one in (result("a", CLOSE[0], [0, 1, 2]), result("b", CLOSE[1], [0, 1, 2]))
    }
    results |= {one.key: one for one in [result("random", [0.0] * 3, [0, 1, 2])]}
    asked = [Claim("rsisc", "says", "a", "b", ["aid96/knn20"])]
    floors = {"a": "random", "b": "random"}
    for level, word in ((p * 1.01, "holds"), (p * 0.99, "cannot be told")):
        assert compare_claims(asked, results, floors, level)[0]["verdict"] == word


def told_of(sides, floor, asked, floors=None, level=0.05):
    results = [*sides, result("random", floor, [0, 1, 2])]
    by_key = {one.key: one for one in results}
    floors = floors or {one.model: "random" for one in sides}
    return compare_claims(asked, by_key, floors, level)


def test_a_side_has_to_be_told_from_random_weights_and_not_only_be_above_them():
    new = [50.0, 44.0, 41.0]
    sides = [result("new", new, [0, 1, 2]), result("old", BEHIND, [0, 1, 2])]
    for floor, above in (([40.0, 34.0, 31.5], True), ([49.0, 38.0, 42.0], False)):
        assert np.mean(new) > np.mean(floor)
        p = stats.ttest_rel(new, floor, alternative="greater").pvalue
        assert (p < 0.05) == above
        (told,) = told_of(sides, floor, [CLAIM], floors={"new": "random", "old": "low"})
        assert told["verdict"] == "not tested"  # the other side's were not measured
        better, worse = told["differences"][0]["over_random"]
        assert (better["above"], better["p"], worse) == (above, pytest.approx(p, abs=1e-5), None)
        assert better["mean"] == pytest.approx(np.mean(new) - np.mean(floor), abs=1e-3)
        low = result("low", [10.0, 11.0, 12.0], [0, 1, 2])
        (told,) = told_of([*sides, low], floor, [CLAIM], floors={"new": "random", "old": "low"})
        assert (told["verdict"] != "not tested") == above


def test_each_measure_says_whether_its_sides_passed_random_weights():
    asked = replace(CLAIM, measures=["aid96/knn20", "aid96/knn5"])
    sides = [
        result(cell, values, [0, 1, 2], protocol)
        for protocol in ("knn20", "knn5")
        for cell, values in (("new", AHEAD), ("old", BEHIND))
    ]
    floor = result("random", [60.0, 61.0, 62.0], [0, 1, 2], "knn5")
    (told,) = told_of([*sides, floor], [10.0, 11.0, 12.1], [asked])
    assert told["verdict"] == "holds"
    assert [one["tested"] for one in told["differences"]] == [True, False]
    assert told["differences"][1]["visible"] is None


def test_a_finished_model_is_above_finished_random_weights_by_what_they_differ():
    def given(cell, value):
        one = result(cell, [value], [0])
        return replace(one, settings={**one.settings, FINISHED: True})

    for floor, word in ((30.0, "the reverse"), (61.0, "not tested")):
        sides = [result("new", [50.0, 51.0, 52.1], [0, 1, 2]), given("old", 60.0)]
        sides.append(given("theirs", floor))
        floors = {"new": "random", "old": "theirs"}
        (told,) = told_of(sides, [10.0, 11.0, 12.1], [CLAIM], floors)
        assert told["verdict"] == word


def test_the_visible_difference_is_the_smallest_that_would_have_been_decided():
    values = np.array([1.0, 1.5, 0.5])
    for level in (0.05, 0.05 / 16):
        least = visible(values, level)
        for factor, decided in ((1.001, True), (0.999, False)):
            moved = values - values.mean() + least * factor
            assert (stats.ttest_1samp(moved, 0).pvalue < level) == decided
    # In a table each claim's is at its own place among those that were tested.
    sides, claims = [], []
    for i, (new, old) in enumerate([CLOSE, UNSURE, UNSURE]):
        sides += [result(f"new{i}", new, [0, 1, 2]), result(f"old{i}", old, [0, 1, 2])]
        claims.append(Claim("rsisc", "says", f"new{i}", f"old{i}", ["aid96/knn20"]))
    told = told_of(sides, [10.0, 11.0, 12.1], claims)
    first = told[0]["differences"][0]
    assert first["visible"] == visible(first["values"], 0.05 / 3)
    assert first["visible"] > abs(first["mean"])  # and so it is not decided
    assert told[0]["verdict"] == "cannot be told"


def test_what_was_asked_afterwards_is_shown_and_changes_nothing_for_the_others():
    p = compare(*CLOSE).p
    sides = [result("new", CLOSE[0], [0, 1, 2]), result("old", CLOSE[1], [0, 1, 2])]
    later = replace(CLAIM, afterwards=True)
    told = told_of(sides, [10.0, 11.0, 12.1], [CLAIM, later, later], level=p * 1.01)
    assert [one["verdict"] for one in told] == ["holds"] * 3
    assert [one["afterwards"] for one in told] == [False, True, True]


def test_a_data_set_of_the_hub_is_found_by_its_name():
    one = replace(result("new", AHEAD, [0, 1, 2]), data="timm/eurosat-rgb")
    assert measured(("new", "old"), "timm/eurosat-rgb/knn20", {one.key: one})[0] is one


def test_nothing_is_said_of_what_was_not_measured():
    assert difference(CLAIM, "aid96/knn20", {}) is None
    assert [told["verdict"] for told in compare_claims([CLAIM], {}, {})] == ["not measured"]
