"""The pictures of README and documentation: `python -m rs_models.demos.figures [NAME ...]`.

All, or those that are named (`signal_tov`), are made here from the synthetic scenes, UC Merced's
tiles, the training code and the results files. FALSE's and LaST's need a model's features;
`features` compares the models that are named.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..assets import asset
from ..data.synthetic import CLASSES, draw_scene
from ..errors import UserError
from ..evaluation.baselines import PREFIX
from ..evaluation.results import read_all
from ..papers import PAPERS
from ..publish import figures as card_figures
from ..settings import run_script
from . import models, signals_shown
from .pictures import pca_picture

SIZE = 384
# Class and seed of the scene that shows each method, chosen by looking at them.
SCENES = {
    "rsisc": ("harbor", 42),
    "tov": ("farmland", 42),
    "sticl": ("residential", 41),
    "glcnet": ("harbor", 42),
    "last": ("airport", 44),
}
# Classes of the banner's tiles, chosen by looking at them, and the side that they are enlarged to.
BANNER = ("harbor", "airplane", "freeway", "storagetanks", "baseballdiamond", "overpass")
BANNER_SIDE, BANNER_CELLS = 512, 48


def scene(name: str, seed: int) -> np.ndarray:
    """A synthetic scene (384, 384, 3) uint8."""
    return draw_scene(CLASSES.index(name), seed, SIZE)[0][..., :3]


def signal(method: str, model: str, seed: int = 3) -> signals_shown.Shown:
    """The learning signal of a method on its scene.

    Args:
        method: A key of `papers.PAPERS`.
        model: For FALSE's embeddings and LaST's attention.
        seed: Seed of the draw.
    """
    if method == "false":
        batch = [scene(CLASSES[n % 6], 50 + n) for n in range(12)]
        encoder = models.encoder(model)
        return signals_shown.false(batch, encoder, seed, scope="row", threshold=0.5)
    image = scene(*SCENES[method])
    if method == "sticl":
        return signals_shown.sticl(image, scene("beach", 43), seed)
    if method == "last":
        return signals_shown.last(image, models.encoder(model), seed)
    return getattr(signals_shown, method)(image, seed)


def panel(shown: Sequence[tuple[np.ndarray, str]], columns: int = 4) -> Any:
    """Pictures with captions as one figure."""
    from matplotlib.figure import Figure

    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (picture, caption) in zip(grid.flat, shown, strict=False):
        axes.imshow(picture, interpolation="nearest" if len(picture) < 200 else "antialiased")
        axes.set_title(_wrapped(caption), fontsize=9)
    return figure


def features(names: Sequence[str]) -> Any:
    """Scenes above, principal components of each model's features below."""
    shown = [("harbor", 42), ("residential", 41), ("farmland", 42), ("river", 45)]
    pictures = [(scene(*one), one[0]) for one in shown]
    for name in names:
        encoder = models.encoder(name)
        for number, (picture, _) in enumerate(pictures[: len(shown)]):
            view = pca_picture(models.dense(encoder, picture), SIZE)
            pictures.append((view, encoder.name if number == 0 else ""))
    return panel(pictures, columns=len(shown))


def banner(name: str) -> Any:
    """Real images (UC Merced's, of the clone) above a model's features of them.

    The three strongest principal components over all of the images, so that one colour is one thing
    to the model.

    Args:
        name: Model; a ViT of small patches draws finely.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    from ..data import load
    from ..evaluation.features import Encoder
    from ..evaluation.loading import load_encoder

    rows = load("rs/ucmerced", "test")
    labels = [rows.features["label"].names[label] for label in rows["label"]]
    pictures = [rows[labels.index(shown)]["image"].convert("RGB") for shown in BANNER]
    large = [picture.resize((BANNER_SIDE,) * 2, Image.Resampling.BICUBIC) for picture in pictures]
    encoder = load_encoder(name)
    assert isinstance(encoder, Encoder)  # a name or folder is never a baseline
    # A network of large strides is shown the tiles larger, so that its map has cells enough.
    cells = models.dense(encoder, np.asarray(large[0]), side=BANNER_SIDE).shape[1]
    side = BANNER_SIDE * max(1, round(BANNER_CELLS / cells))
    maps = [models.dense(encoder, np.asarray(picture), side=side) for picture in large]
    # One picture of all, side by side, is cut again into one of each.
    whole = np.concatenate(maps, axis=2)
    cells = maps[0].shape[1]
    coloured = np.asarray(pca_picture(whole, None))
    figure = Figure(figsize=(12, 4))
    grid = figure.subplots(2, len(BANNER))
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.03, hspace=0.03)
    for column, picture in enumerate(large):
        view = coloured[:, column * cells : (column + 1) * cells]
        for axes, shown in zip(grid[:, column], (picture, view), strict=True):
            axes.imshow(shown, interpolation="bicubic", aspect="auto")
            axes.axis("off")
    return figure


def write_look(name: str, path: Path) -> None:
    """Draws the banner of a model into a file, small, for its card."""
    path.parent.mkdir(parents=True, exist_ok=True)
    banner(name).savefig(path, dpi=80, facecolor="white", pil_kwargs={"quality": 80, "method": 6})


def few_labels(data: str, leading: int = 3) -> Any | None:
    """Accuracy against labels a class: our best models, ImageNet's network, and free baselines."""
    results = [
        result
        for result in read_all(asset("results"))
        if result.data == data
        and result.protocol.startswith("linear-n")
        and "@" not in result.protocol  # one read-out, at each model's own size
    ]
    best: dict[str, float] = {}
    for result in results:
        best[result.model] = max(best.get(result.model, 0.0), result.mean)
    ranked = sorted((m for m in best if not m.startswith(PREFIX)), key=lambda m: -best[m])
    supervised = [model for model in ranked if model.startswith("imagenet-")]
    ours = [model for model in ranked if model not in supervised][:leading]
    free = (f"{PREFIX}random-convolutions", f"{PREFIX}image-statistics")
    shown = {*ours, *supervised[:1], *free}
    return card_figures.few_labels(ours[0], [r for r in results if r.model in shown])


def main(argv: Sequence[str]) -> int:
    """Writes the figures.

    Raises:
        UserError: A name that is none of them.
    """
    parser = argparse.ArgumentParser(prog="python -m rs_models.demos.figures", description=__doc__)
    parser.add_argument("names", nargs="*", help="figures to draw (default: all)")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--false", default=models.choices()[0], help="model of FALSE's embeddings")
    parser.add_argument("--last", default=models.choices()[0], help="model of LaST's attention")
    parser.add_argument("--banner", default="rs/last-vit-mini-aid", help="model of the banner")
    parser.add_argument("--models", default=",".join(models.choices()[:3]), help="compared")
    options = parser.parse_args(argv)
    drawings: dict[str, Callable[[], Any]] = {
        f"signal_{method}": partial(
            _signal_panel, method, options.last if method == "last" else options.false
        )
        for method in PAPERS
    }
    compared = options.models.split(",")
    os.environ[models.VARIABLE] = ",".join([options.false, options.last, *compared])
    drawings["features"] = partial(features, compared)
    drawings["banner"] = partial(banner, options.banner)
    drawings["few_labels_aid96"] = partial(few_labels, "aid96")
    for name in options.names:
        if name not in drawings:
            raise UserError(f"{name!r} is no figure: name one of {', '.join(drawings)}.")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or drawings:
        figure = drawings[name]()
        if figure is None:
            continue
        path = options.output / f"{name}.webp"
        figure.savefig(path, dpi=110, facecolor="white", pil_kwargs={"quality": 82, "method": 6})
        print(path)
    return 0


def _signal_panel(method: str, model: str) -> Any:
    """The first pictures of a method's signal as one figure."""
    return panel(signal(method, model).pictures[:8])


def _wrapped(caption: str, width: int = 34) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(caption, width)[:2])


if __name__ == "__main__":
    sys.exit(run_script(main, sys.argv[1:]))
