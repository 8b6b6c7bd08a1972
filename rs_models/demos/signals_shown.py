"""The learning signal of each method on an image: the training code itself, looked at.

Every picture is made by the recipe, the `ViewMaker` and the functions that training calls, with the
method's defaults; nothing here draws its own views.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import backbones
from ..bands import SENSORS
from ..errors import UserError
from ..evaluation.features import Encoder
from ..methods import method_classes
from ..methods.rsisc import central_mask
from ..plots import sheet
from ..signals.losses import suspected_false_negatives
from ..signals.transport import transfer_batch, transfer_scene
from ..signals.views import Recipe, ViewMaker
from .attention import attention
from .models import batch as squares
from .pictures import COLOURS, draw_boxes, numbered

SIDE = 224
"""Pixels of the views, those of the papers."""
_SOURCE = 384  # pixels of the square that views are cut from
_ORANGE, _GREEN = COLOURS[1], COLOURS[2]


@dataclass
class Shown:
    """A method's signal in pictures.

    Attributes:
        pictures: (H, W, 3) uint8 arrays with captions, in reading order.
        said: What is to be seen, in a sentence or two.
        facts: Numbers behind the pictures.
    """

    pictures: list[tuple[np.ndarray, str]]
    said: str
    facts: dict[str, Any] = field(default_factory=dict)


def rsisc(image: np.ndarray, seed: int = 0) -> Shown:
    """The three pretexts of the 2020 paradigm.

    Args:
        image: (H, W, 3) uint8.
        seed: Seed of the draw.
    """
    source = squares([image], _SOURCE)
    method = _method("rsisc")
    boxed, views = _two_views(_maker(method), source, seed)
    shown = [(boxed, "The crops of both views"), *views]

    method = _method("rsisc", signal="inpainting")
    maker = _maker(method)
    view = _pixels(maker(source, seed).crops[0], maker)[0]
    mask = central_mask(torch.zeros(1, 3, SIDE, SIDE))[0, 0].bool().numpy()
    hidden = view.copy()
    hidden[mask] = 128
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    centre = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shown += [(hidden, "Inpainting: what the network sees"), (centre, "and what it should paint")]

    method = _method("rsisc", signal="relative_position")
    maker = _maker(method)
    made = maker(source, seed)
    cells = _pixels(made.crops[0], maker)
    assert made.targets is not None
    grid, order = method.config.puzzle_grid, int(made.targets[0])
    shown.append(
        (
            sheet(list(cells), grid, gap=8),
            f"Relative position: shuffled cells; this is order {order + 1} of "
            f"{method.config.permutations}",
        )
    )
    said = (
        "Instance discrimination: two views of one image should have like features, views of "
        "different images unlike ones. Inpainting: the hidden centre is to be painted. Relative "
        "position: the order of the shuffled cells is to be told."
    )
    return Shown(shown, said, {"order": order})


def tov(image: np.ndarray, seed: int = 0) -> Shown:
    """TOV's views, drawn twice.

    Args:
        image: (H, W, 3) uint8.
        seed: Seed of the draw.
    """
    source = squares([image], _SOURCE)
    maker = _maker(_method("tov"))
    first, views = _two_views(maker, source, seed)
    second, again = _two_views(maker, source, seed + 1)
    shown = [(first, "The crops of both views"), *views, (second, "Drawn again"), *again]
    said = (
        "Two views of one image are a pair, all other images of the batch are not. What sets TOV "
        "apart is the order and balance of the data: general images first, then remote sensing "
        "images with as many of each land cover."
    )
    return Shown(shown, said)


def false(
    images: list[np.ndarray],
    encoder: Encoder,
    seed: int = 0,
    *,
    scope: str | None = None,
    threshold: float | None = None,
) -> Shown:
    """FALSE's suspected false negatives in a small batch.

    Args:
        images: 3 to 24 pictures (H, W, 3) uint8.
        encoder: Whose pooled features stand for the embeddings (training has a projector between).
        seed: Seed of the views.
        scope: `batch` or `row`; None is the method's default.
        threshold: Least cosine of an anchor with its own positive; None is the default.

    Raises:
        UserError: Too few or too many pictures.
    """
    if not 3 <= len(images) <= 24:
        raise UserError(f"A batch of 3 to 24 images can be shown, not of {len(images)}.")
    method = _method("false")
    scope = scope or method.config.scope
    threshold = method.config.threshold if threshold is None else threshold
    source = squares(images, _SOURCE)
    side = encoder.train_size
    maker = ViewMaker(
        _method("false", size=side).recipe,
        bands=encoder.bands,
        image_mean=encoder.preprocessing.image_mean,
        image_std=encoder.preprocessing.image_std,
        value_range=encoder.value_range,
    )
    crops = maker(source, seed).crops[0]
    with torch.inference_mode():
        z = encoder.forward(crops).float().flatten(1)
    z = torch.nn.functional.normalize(z, dim=1)
    z1, z2 = z.chunk(2)
    suspects = suspected_false_negatives(
        z1, z2, temperature=method.config.temperature, threshold=threshold, scope=scope
    )
    count = len(images)
    pairs: dict[tuple[int, int], float] = {}
    cosine = (z @ z.T).numpy()
    for i, j in suspects.nonzero().tolist():
        a, b = sorted((i % count, j % count))
        if a != b:
            pairs[(a, b)] = max(pairs.get((a, b), -1.0), float(cosine[i, j]))
    ranked = sorted(pairs.items(), key=lambda pair: -pair[1])
    thumbs = squares(images, 112).permute(0, 2, 3, 1).numpy()
    numbered = [
        draw_boxes(thumb, [(1, 1, 110, 110)], labels=[str(n + 1)], colours=[COLOURS[0]], width=1)
        for n, thumb in enumerate(thumbs)
    ]
    shown = [
        (sheet(numbered, columns=min(6, count)), f"The batch, {count} images"),
        (_matrix(cosine[:count, count:], ranked), _matrix_caption(cosine[:count, count:])),
    ]
    for (a, b), value in ranked[:6]:
        pair = sheet([numbered[a], numbered[b]], columns=2)
        shown.append((pair, f"Suspected: {a + 1} and {b + 1}, cosine {value:.2f}"))
    own = float(np.diag(cosine[:count, count:]).mean())
    said = (
        f"{len(ranked)} of {count * (count - 1) // 2} pairs of different images are suspected to "
        f"show the same thing (scope {scope}, threshold {threshold:g}): FALSE pulls them together "
        f"where plain contrast pushes them apart. Two views of one image have a mean cosine of "
        f"{own:.2f}."
    )
    if not ranked:
        said += " Lower the threshold or take another model to see some."
    return Shown(shown, said, {"pairs": [(a + 1, b + 1) for (a, b), _ in ranked]})


def sticl(image: np.ndarray, scene: np.ndarray, seed: int = 0) -> Shown:
    """STICL's scene transfer: one image in the colours of another.

    Args:
        image: (H, W, 3) uint8.
        scene: (H', W', 3) uint8, another place or season.
        seed: Seed of the sampled colours and of the views.
    """
    method = _method("sticl")
    both = squares([image, scene], 256)  # the released code's size
    content, other = both[:1], both[1:]
    exact = transfer_scene(
        content[0].permute(1, 2, 0).numpy(),
        other[0].permute(1, 2, 0).numpy(),
        num_samples=method.config.transfer_samples,
        seed=seed,
    )
    shown = [
        (_image(content), "The image"),
        (_image(other), "The scene that lends its colours"),
        (exact, "Transferred, exact transport (emd)"),
    ]
    for solver in ("gaussian", "sliced"):
        moved = transfer_batch(
            content, other, solver=solver, num_samples=method.config.transfer_samples, seed=seed
        )
        shown.append((_image(moved), f"Transferred, {solver} (fast)"))
    # As in training: the query sees the image, the key sees what the transfer made of it.
    moved_source = torch.from_numpy(exact).permute(2, 0, 1)[None]
    maker = _maker(_method("sticl", transfer_probability=0.0))
    query = maker(content, seed).crops[0][:1]
    key = maker(moved_source, seed).crops[0][1:]
    views = _pixels(torch.cat([query, key]), maker)
    shown += [(views[0], "The query's view"), (views[1], "The key's view, transferred")]
    said = (
        "A share of the keys' images "
        f"({method.config.transfer_probability:.0%} by default) takes the colours of another place "
        "by optimal transport, and query and key should still agree: what the ground is should "
        "not depend on where or when it was seen."
    )
    return Shown(shown, said)


def glcnet(image: np.ndarray, seed: int = 0) -> Shown:
    """GLCNet's two views with the regions that show the same ground.

    Args:
        image: (H, W, 3) uint8.
        seed: Seed of the draw.
    """
    method = _method("glcnet")
    source = squares([image], _SOURCE)
    maker = _maker(method)
    made = maker(source, seed)
    views = _pixels(made.crops[0], maker)
    assert made.boxes is not None
    both = made.boxes[:, 0].tolist()  # a list of boxes a view
    numbers = [str(n + 1) for n in range(method.config.patches)]
    shown = [(_both_crops(maker, source, seed), "The crops of both views")]
    for view, boxes, name in zip(views, both, ("First", "Second"), strict=True):
        shown.append((draw_boxes(view, boxes, labels=numbers), f"{name} view, matched regions"))
    for n, (first, second) in enumerate(zip(*both, strict=True)):
        pair = sheet([_cut(views[0], first), _cut(views[1], second)], columns=2, gap=2)
        shown.append((pair, f"Region {n + 1} in both views"))
    said = (
        f"The {method.config.patches} numbered regions show the same ground in both views. Their "
        "mean features after the decoder should agree (local contrast), as should mean and "
        "variance of the whole views' features (global contrast)."
    )
    return Shown(shown, said, {"boxes": both})


def last(image: np.ndarray, encoder: Encoder, seed: int = 0) -> Shown:
    """LaST's global and local crops, and where a model looks.

    Args:
        image: (H, W, 3) uint8.
        encoder: A ViT's attention is shown; of others how like each place is to the whole.
        seed: Seed of the draw.
    """
    method = _method("last")
    source = squares([image], _SOURCE)
    maker = _maker(method)
    params, _ = maker.draw(1, _SOURCE, _SOURCE, seed)
    made = maker(source, seed)
    boxes = [_corners(drawn.box[0].tolist()) for drawn in params]
    picture = _image(source)
    local = draw_boxes(picture, boxes[2:], colours=[COLOURS[4]], width=2)
    both = draw_boxes(local, boxes[:2], labels=["1", "2"], colours=[_ORANGE, _GREEN])
    large, small = made.crops
    views, locals_ = _pixels(large, maker), _pixels(small, maker)
    shown = [
        (both, f"Two global crops and {len(locals_)} local ones"),
        (views[0], "Global view 1: student and teacher see it"),
        (views[1], "Global view 2"),
        (sheet(list(locals_), columns=4), "Local views: only the student sees them"),
        *attention(picture, encoder),
    ]
    said = (
        "The student sees all views, the teacher, its slow average, only the global ones. From a "
        "small part the student should say what the teacher says of the whole; there are no "
        "negatives."
    )
    return Shown(shown, said)


@lru_cache(maxsize=16)
def _method(name: str, size: int = SIDE, **settings: Any) -> Any:
    """A method with its defaults: only its recipe and settings are used, so it has no weights."""
    config_class, model_class = method_classes(name)
    config = config_class(
        backbone_config=backbones.backbone_config("resnet_mini", bands="rgb", image_size=size),
        bands=list(SENSORS["rgb"]),
        image_size=size,
        **settings,
    )
    with torch.device("meta"):
        return model_class(config)


def _maker(method: Any) -> ViewMaker:
    """As the trainer makes it."""
    config, recipe = method.config, method.recipe
    assert isinstance(recipe, Recipe)
    return ViewMaker(
        recipe,
        bands=config.bands,
        image_mean=config.image_mean,
        image_std=config.image_std,
        value_range=tuple(config.value_range),
    )


def _two_views(
    maker: ViewMaker, source: Tensor, seed: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, str]]]:
    """The image with both crops, and the views."""
    views = _pixels(maker(source, seed).crops[0], maker)
    return _both_crops(maker, source, seed), [(views[0], "View 1"), (views[1], "View 2")]


def _both_crops(maker: ViewMaker, source: Tensor, seed: int) -> np.ndarray:
    """The image with the crops of both views."""
    params, _ = maker.draw(1, source.shape[-2], source.shape[-1], seed)
    boxes = [_corners(drawn.box[0].tolist()) for drawn in params]
    return draw_boxes(_image(source), boxes, labels=["1", "2"], colours=[_ORANGE, _GREEN])


def _pixels(views: Tensor, maker: ViewMaker) -> np.ndarray:
    """Normalised views (B, 3, S, S) back as (B, S, S, 3) uint8."""
    std = torch.tensor(maker.image_std)[:, None, None]
    mean = torch.tensor(maker.image_mean)[:, None, None]
    share = (views * std + mean).clamp(0, 1)
    return (share * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _image(images: Tensor) -> np.ndarray:
    return images[0].permute(1, 2, 0).numpy()


def _corners(box: list[int]) -> tuple[int, int, int, int]:
    top, left, height, width = box
    return left, top, left + width - 1, top + height - 1


def _cut(view: np.ndarray, box: list[int]) -> np.ndarray:
    from PIL import Image

    x0, y0, x1, y1 = box
    part = Image.fromarray(view[y0 : y1 + 1, x0 : x1 + 1])
    return np.asarray(part.resize((110, 110), Image.Resampling.BICUBIC))


def _matrix_caption(cosine: np.ndarray) -> str:
    low, high = float(cosine.min()), float(cosine.max())
    return (
        f"Cosine of first views (rows) and second ones, from {low:.2f} (dark) to {high:.2f} "
        "(bright); suspected pairs are outlined"
    )


def _matrix(cosine: np.ndarray, ranked: list[tuple[tuple[int, int], float]]) -> np.ndarray:
    """The cosines as a picture, suspected pairs outlined."""
    import matplotlib

    count = len(cosine)
    cell = max(14, 420 // count)
    low, high = float(cosine.min()), max(float(cosine.max()), float(cosine.min()) + 1e-6)
    colours = matplotlib.colormaps["viridis"]((cosine - low) / (high - low))[..., :3] * 255
    picture = colours.astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
    boxes = [
        (x * cell + 1, y * cell + 1, (x + 1) * cell - 2, (y + 1) * cell - 2)
        for (a, b), _ in ranked
        for x, y in ((a, b), (b, a))
    ]
    if boxes:
        picture = draw_boxes(picture, boxes, colours=[COLOURS[3]], width=2)
    return numbered(picture, cell)
