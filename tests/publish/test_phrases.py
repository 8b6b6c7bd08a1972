"""What a card says of a run is what the run did."""

from __future__ import annotations

import pytest

from rs_models.papers import PAPERS
from rs_models.publish.phrases import learned


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
        ("tov", {"data": {"sampling": "class_balanced"}}, "balanced", "then"),
        ("tov", {"method": {"teachers": ["rs/a", "rs/b"]}}, "what rs/a and rs/b see", "then"),
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
