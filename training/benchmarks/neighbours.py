"""What each signal takes for alike: the nearest images of a few, by one model a row.

python training/benchmarks/neighbours.py --output docs/figures/neighbours.webp

Queries are test images of UC Merced, neighbours its training images, by cosine similarity of the
features that the models are measured by; neither side's labels are used. Orange frames show another
class. The number is the share of three neighbours with the query's class, over all test images.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rs_models.data import build_cache, load
from rs_models.evaluation.features import extract
from rs_models.evaluation.loading import load_encoder
from rs_models.files import write_bytes
from rs_models.plots import COLOURS, new_figure

DATA = "rs/ucmerced"
QUERIES = ("harbor", "river", "sparseresidential", "intersection", "golfcourse")
MODELS = {
    "baseline:random-resnet18": "nothing:\nrandom weights",
    "baseline:image-statistics": "nothing:\nmeans and spreads\nof the bands",
    "baseline:kmeans-convolutions": "no signal: k-means\nof patches",
    "rs/rsisc-resnet18": "contrastive, RSISC\nResNet-18, taught,\nfive sets",
    "rs/rsisc-resnet18-open": "contrastive, RSISC\nResNet-18, open images",
    "rs/rsisc-resnet-mini-aid": "contrastive, RSISC\nsmall ResNet, AID",
    "rs/tov-resnet50": "contrastive, TOV\nResNet-50, taught,\nphotographs first",
    "rs/false-resnet18": "contrastive, FALSE\nResNet-18, taught,\nfive sets",
    "rs/glcnet-resnet-mini-aid": "contrastive, GLCNet\nsmall ResNet, AID",
    "rs/sticl-resnet18": "contrastive, STICL\nResNet-18, five sets",
    "rs/last-vit-mini": "distillation, LaST\nsmall ViT, taught,\nfive sets",
    "rs/last-vit-mini-aid": "distillation, LaST\nsmall ViT, AID",
}
_NEAREST = 3


@dataclass(frozen=True)
class Found:
    """Neighbours by one model.

    Attributes:
        nearest: (queries, 3) rows of the gallery, best first.
        right: Share of neighbours with the query's class, over all test images.
    """

    nearest: np.ndarray
    right: float


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the picture; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", required=True, help="picture to write, .webp")
    options = parser.parse_args(argv)
    gallery, test = (build_cache(load(DATA, split), progress=False) for split in ("train", "test"))
    names = load(DATA, "test").features["label"].names
    labels = np.asarray(test.labels)
    # The first test image of each class: none is chosen by what comes of it.
    queries = [int(np.flatnonzero(labels == names.index(name))[0]) for name in QUERIES]
    found = {}
    for model in MODELS:
        found[model] = neighbours(model, gallery, test, queries)
        print(f"{model}: {found[model].right:.1%}", flush=True)
    write_bytes(options.output, picture(gallery, test, queries, found))
    return 0


def neighbours(model: str, gallery: Any, test: Any, queries: Sequence[int]) -> Found:
    """The nearest gallery images of each query."""
    encoder = load_encoder(model).fit(gallery)
    known, asked = (
        torch.nn.functional.normalize(torch.as_tensor(extract(encoder, cache, progress=False)))
        for cache in (gallery, test)
    )
    nearest = (asked @ known.T).topk(_NEAREST, dim=1).indices.numpy()  # (M, 3)
    right = np.asarray(gallery.labels)[nearest] == np.asarray(test.labels)[:, None]
    return Found(nearest[list(queries)], float(right.mean()))


def picture(gallery: Any, test: Any, queries: Sequence[int], found: dict[str, Found]) -> bytes:
    """The picture as WebP."""
    from PIL import Image

    columns = len(queries) * _NEAREST
    widths = [2.4, *([1.0] * columns)]
    figure = new_figure(0.62 * sum(widths) + 0.3, 0.68 * (len(found) + 1.3))
    grid = figure.add_gridspec(
        len(found) + 1, len(widths), width_ratios=widths, height_ratios=[1.3, *[1] * len(found)]
    )
    for place, query in enumerate(queries):
        middle = 1 + place * _NEAREST + _NEAREST // 2
        axis = figure.add_subplot(grid[0, middle])
        axis.imshow(_pixels(test, query))
        axis.set_title(QUERIES[place], fontsize=7, pad=2)
        axis.set_axis_off()
    for line, (model, of) in enumerate(found.items(), 1):
        axis = figure.add_subplot(grid[line, 0])
        axis.text(0, 0.5, MODELS[model], fontsize=6.5, va="center", transform=axis.transAxes)
        axis.text(1.05, 0.5, f"{of.right:.0%}", fontsize=8, va="center", ha="right")
        axis.set_axis_off()
        for place, query in enumerate(queries):
            for rank, row in enumerate(of.nearest[place]):
                axis = figure.add_subplot(grid[line, 1 + place * _NEAREST + rank])
                axis.imshow(_pixels(gallery, row))
                axis.set_xticks([]), axis.set_yticks([])
                wrong = gallery.labels[row] != test.labels[query]
                for spine in axis.spines.values():
                    spine.set(color=COLOURS[1] if wrong else "white", linewidth=2.0)
    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=120)
    Image.open(raw).convert("RGB").save(small, format="webp", quality=75, method=6)
    return small.getvalue()


def _pixels(cache: Any, row: int) -> np.ndarray:
    return np.asarray(cache.images[int(row)]).transpose(1, 2, 0)  # (H, W, 3)


if __name__ == "__main__":
    sys.exit(main())
