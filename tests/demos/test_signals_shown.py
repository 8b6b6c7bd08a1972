"""What the pictures of the learning signals say is what training does."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from rs_models.data.synthetic import CLASSES, draw_scene
from rs_models.demos import figures, models, signals_shown
from rs_models.errors import UserError
from rs_models.evaluation.features import Encoder
from rs_models.methods import METHODS
from rs_models.signals.regions import index_map
from tests.support.models import nano


def encoder(name="resnet_mini", size=64, model=None):
    return Encoder.from_model(
        model or nano(name, image_size=size),
        bands=("red", "green", "blue"),
        value_range=(0, 255),
        image_mean=(0.4, 0.4, 0.4),
        image_std=(0.2, 0.2, 0.2),
        train_size=size,
    )


def scene(number, seed=0, size=256):
    return draw_scene(number % len(CLASSES), (seed, number), size)[0][..., :3]


def _of_one_image() -> list[str]:
    """The methods whose signal needs neither a second image nor a model."""
    return [
        name
        for name in METHODS
        if list(inspect.signature(getattr(signals_shown, name)).parameters) == ["image", "seed"]
    ]


@pytest.mark.parametrize("method", _of_one_image())
def test_views_of_one_image(method):
    function = getattr(signals_shown, method)
    shown, again, other = function(scene(1), 3), function(scene(1), 3), function(scene(1), 4)
    assert len(shown.pictures) >= 6 and shown.said
    for (picture, caption), (same, _) in zip(shown.pictures, again.pictures, strict=True):
        assert caption and picture.dtype == np.uint8 and np.array_equal(picture, same)
    pairs = zip(shown.pictures, other.pictures, strict=True)
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in pairs)


def test_glcnets_regions_show_the_same_ground():
    shown = signals_shown.glcnet(scene(1), 5)
    method = signals_shown._method("glcnet")
    maker = signals_shown._maker(method)
    params, boxes = maker.draw(1, signals_shown._SOURCE, signals_shown._SOURCE, 5)
    assert boxes[:, 0].tolist() == shown.facts["boxes"]
    side, source = signals_shown.SIDE, signals_shown._SOURCE
    maps = [index_map(drawn, 0, side, source, source) for drawn in params]
    for first, second in zip(*shown.facts["boxes"], strict=True):
        ground = [
            set(view[box[1] : box[3] + 1, box[0] : box[2] + 1].flatten().tolist())
            for view, box in zip(maps, (first, second), strict=True)
        ]
        assert ground[0] & ground[1]


def test_false_suspects_images_of_the_same_kind():
    rng = np.random.default_rng(0)
    flat = [np.full((64, 64, 3), level, np.uint8) for level in (60, 120, 180)]
    rough = [rng.integers(0, 255, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in "123"]
    knows = encoder()

    def texture(x):  # what tells the two kinds apart, whatever the views do to colour
        is_rough = (x.mean(1).flatten(1).std(1) > 0.2).float()
        return torch.stack([is_rough, 1 - is_rough], 1)

    knows.forward = texture
    shown = signals_shown.false(flat + rough, knows, 0, scope="row", threshold=0.5)
    assert shown.facts["pairs"]
    assert all((a <= 3) == (b <= 3) for a, b in shown.facts["pairs"])
    none = signals_shown.false(flat + rough, knows, 0, scope="row", threshold=1.1)
    assert none.facts["pairs"] == [] and "Lower the threshold" in none.said
    with pytest.raises(ValueError, match="3 to 24"):
        signals_shown.false(flat[:2], knows)


def test_sticl_lends_the_colours_of_the_scene():
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = np.random.default_rng(0).integers(100, 255, (64, 64))
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[..., 2] = np.random.default_rng(1).integers(100, 255, (64, 64))
    shown = {caption: picture for picture, caption in signals_shown.sticl(red, blue).pictures}
    for caption in ("Transferred, exact transport (emd)", "Transferred, gaussian (fast)"):
        assert shown[caption][..., 2].mean() > 120 > 40 > shown[caption][..., 0].mean()


@pytest.mark.parametrize("name", ["vit_mini_patch8", "resnet_mini"])
def test_last_shows_crops_and_where_a_model_looks(name):
    shown = signals_shown.last(scene(0), encoder(name), 0)
    captions = [caption for _, caption in shown.pictures]
    assert captions[0] == "Two global crops and 8 local ones"
    assert ("Attention" in captions[4]) == name.startswith("vit")


def test_one_figure_is_drawn_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(models.VARIABLE, ",".join(models.choices()))  # `main` sets it
    assert figures.main(["signal_tov", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "signal_tov.webp")]
    assert [path.name for path in tmp_path.iterdir()] == ["signal_tov.webp"]
    with pytest.raises(UserError, match="'signal_tow' is no figure: name one of signal_rsisc"):
        figures.main(["signal_tow"])
