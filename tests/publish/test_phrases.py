"""What a card says of a run is what the run did."""

from __future__ import annotations

import pytest

from rs_models.papers import PAPERS
from rs_models.publish.facts import Facts
from rs_models.publish.phrases import beside_free, course, learned, protocols
from tests.publish.test_card import result


@pytest.mark.parametrize(
    ("method", "run", "says", "not_says"),
    [
        ("rsisc", {}, "two views", "hidden centre"),
        ("rsisc", {"method": {"signal": "inpainting"}}, "hidden centre", "two views"),
        ("tov", {"data": {"name": "aid96"}}, "two views", "general images"),
        ("tov", {"stages": [{"image_size": 32}, {"image_size": 64}]}, "two views", "then"),
        (
            "tov",
            {"data": {"name": "photos"}, "stages": [{}, {"data": {"name": "aid96"}}]},
            "photos, then aid96",
            "balanced",
        ),
        (
            "tov",
            {"stages": [{}, {"method": {"teachers": ["rs/a", "rs/b"]}}]},
            "what rs/a and rs/b see",
            "then",
        ),
        ("tov", {"stages": [{}, {"data": {"sampling": "class_balanced"}}]}, "balanced", "then"),
        ("tov", {"data": {"sampling": "class_balanced"}}, "balanced", "then"),
        ("tov", {"method": {"teachers": ["rs/a", "rs/b"]}}, "what rs/a and rs/b see", "stages"),
        (
            "false",
            {"method": {"teachers": ["rs/a"], "teacher_readout": "stages"}},
            "and what rs/a sees in an image in all its stages",
            "then",
        ),
        ("false", {}, "counts as the same one", "queue"),
        ("false", {"method": {"confidence": 0}}, "two views", "counts as the same one"),
        ("sticl", {"method": {"transfer_probability": 0.0}}, "queue", "colours"),
        ("glcnet", {"method": {"global_weight": 0}}, "same ground", "mean and variance"),
    ],
)
def test_a_run_is_told_by_its_own_settings(method, run, says, not_says):
    told = learned(method, run)
    assert says in told and not_says not in told


def test_every_method_has_a_sentence():
    for method in PAPERS:
        assert learned(method, {})


@pytest.mark.parametrize(
    ("run", "start", "own", "before"),
    [
        ({"epochs": 5}, "", None, None),
        ({"epochs": 5, "init_from": "rs/a"}, "rs/a", 5, 7),
        ({"init_from": "rs/a", "stages": [{"epochs": 4}, {"epochs": 1}]}, "rs/a", 5, 7),
        ({"stages": [{"epochs": 9}, {"epochs": 2, "init_from": "rs/b"}]}, "rs/b", 2, 10),
        ({"epochs": 12, "init_from": "timm/resnet50"}, "timm/resnet50", 12, None),
        ({"epochs": 5, "max_steps": 30, "init_from": "rs/a"}, "rs/a", None, None),
    ],
)
def test_epochs_of_other_weights_are_not_those_of_the_run(run, start, own, before):
    """A card said that STICL had run for the 77 epochs of the weights that it started from."""
    said = {"method": "tov", "bands": ["red"], "value_range": [0, 255], "image_mean": [0.5]}
    said |= {"image_std": [0.5], "train_size": 64, "output_stride": 32, "data": "aid96:train"}
    said |= {"data_revision": None, "epochs": 12.0, "version": "0.1.0", "commit": None}
    found = course(Facts({"rs_models": said}, run=run))
    assert (found.start, found.own, found.before) == (start, own, before)


def test_a_card_names_where_what_costs_nothing_is_ahead():
    mine = [result("own", "linear-n5", 40.0), result("own", "linear", 60.0)]
    free = [result("baseline:a", "linear-n5", 30.0), result("baseline:b", "linear", 70.0)]
    told = beside_free(mine, [*free, *mine])
    assert "in 1 of 2 measures, and not by `linear` on aid96: there" in told
    assert "by every measure" in beside_free(mine[:1], [*free, *mine])
    assert not beside_free(mine, mine)


def test_a_read_out_of_all_stages_has_words_of_its_own():
    one = result("own", "linear-n5@stages", 40.0)
    one.settings.update(readout="means of all stages", sides=[96, 144], whitened_by="the images")
    (told,) = protocols([one])
    assert "over means of all stages at 96 and 144 pixels, whitened by the images" in told


def test_another_size_is_told():
    one = result("own", "linear-n5@192", 40.0)
    one.settings.update(image_size=192)
    (told,) = protocols([one])
    assert told.endswith("on images brought to 192 pixels")
