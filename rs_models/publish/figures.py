"""The pictures of a card: how training went, what few labels give, how classes lie apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..evaluation.results import Result
from ..plots import COLOURS, axes_row, new_figure, png, style
from .facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#8a8a8a"
_LETTER, _HANDLE = 0.075, 0.5  # inches of a letter in a legend, and of what stands before a name


def figures(facts: Facts, name: str, results: Sequence[Result]) -> dict[str, bytes]:
    """All pictures that the facts and results allow.

    Args:
        facts: Facts of the model.
        name: Name of the model in the results.
        results: Results of the model and of baselines.

    Returns:
        File name -> PNG, the same bytes for the same input.
    """
    drawn = {
        "training.png": training(facts),
        "few_labels.png": few_labels(name, results),
        "features.png": features(facts),
    }
    return {key: png(figure) for key, figure in drawn.items() if figure is not None}


def training(facts: Facts) -> Figure | None:
    """Loss, effective rank and k-NN accuracy over the epochs of all stages."""
    if not facts.metrics:
        return None
    rows = _timeline(facts.metrics, facts.metrics)
    drawn = [("loss", rows, "loss"), ("effective rank", rows, "effective_rank")]
    if facts.knn:
        knn = _timeline(facts.knn, facts.metrics)
        drawn.append(("k-NN on validation, %", knn, "knn20"))
    figure = new_figure(3.1 * len(drawn), 2.7)
    for axis, (title, lines, key) in zip(axes_row(figure, len(drawn)), drawn, strict=True):
        points = [(line["at"], line[key]) for line in lines if line.get(key) is not None]
        few = len(points) < 30
        axis.plot(*zip(*points, strict=True), color=COLOURS[0], marker="o" if few else None, ms=4)
        for start in _stage_starts(facts.metrics):
            axis.axvline(start, color=_GREY, ls=":", lw=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epochs")
    return figure


def few_labels(name: str, results: Sequence[Result]) -> Figure | None:
    """Accuracy against labels a class, one panel a data set, next to the free baselines."""
    curves: dict[str, dict[str, list[tuple[int, float, float]]]] = {}
    for result in results:
        shots = result.protocol.removeprefix("linear-n")
        if result.protocol.startswith("linear-n") and shots.isdigit():
            points = curves.setdefault(result.data, {}).setdefault(result.model, [])
            points.append((int(shots), result.mean, result.std))
    curves = {data: models for data, models in curves.items() if name in models}
    if not curves:
        return None
    width = 3.8 * len(curves)
    figure = new_figure(width, 3.4)
    # A model looks alike in all panels, also where some of the others were not measured.
    every = sorted({m for models in curves.values() for m in models}, key=lambda m: (m != name, m))
    handles = {}
    for axis, (data, models) in zip(
        axes_row(figure, len(curves)), sorted(curves.items()), strict=True
    ):
        for model in models:
            labels, means, stds = zip(*sorted(models[model]), strict=True)
            own, number = model == name, every.index(model)
            handles[model] = axis.errorbar(
                labels,
                means,
                yerr=stds,
                **style(number),
                ls="-" if own else "--",
                lw=2 if own else 1.2,
                ms=5,
                capsize=3,
            )
        axis.set_xscale("log")
        axis.set_xticks(labels, [str(n) for n in labels])
        axis.minorticks_off()
        axis.set_title(f"{data}: logistic regression", fontsize=10)
        axis.set_xlabel("labels a class")
        axis.set_ylabel("accuracy, %")
    names = [model.removeprefix("baseline:") for model in every]
    figure.legend(
        [handles[model] for model in every],
        names,
        loc="outside lower center",
        ncols=max(1, int(width / (_LETTER * max(map(len, names)) + _HANDLE))),
        fontsize=8,
        frameon=False,
    )
    return figure


def features(facts: Facts) -> Figure | None:
    """Test images at two principal components of their features; up to eight classes coloured."""
    found = facts.features
    if not found:
        return None
    counts = Counter(found["labels"])
    shown = sorted(counts, key=lambda label: (-counts[label], label))[: len(COLOURS)]
    figure = new_figure(5.2, 3.6)
    (axis,) = axes_row(figure, 1)
    others = [
        p for p, y in zip(found["points"], found["labels"], strict=True) if y not in set(shown)
    ]
    if others:
        axis.scatter(*zip(*others, strict=True), s=8, color="#c8c8c8", lw=0, label="other classes")
    for number, label in enumerate(sorted(shown)):
        points = [p for p, y in zip(found["points"], found["labels"], strict=True) if y == label]
        axis.scatter(
            *zip(*points, strict=True),
            s=14,
            **style(number),
            lw=0,
            alpha=0.8,
            label=found["classes"][label],
        )
    one, two = found["explained"]
    axis.set_title(f"{found['data']}: test images", fontsize=10)
    axis.set_xlabel(f"first component, {one:.0%} of the variance")
    axis.set_ylabel(f"second, {two:.0%}")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _epochs(metrics: Sequence[dict[str, Any]]) -> dict[int, tuple[float, int]]:
    """Stage -> (epochs, steps) at its end."""
    ends: dict[int, tuple[float, int]] = {}
    for line in metrics:
        ends[line["stage"]] = (line["epoch"], line["step"])
    return ends


def _stage_starts(metrics: Sequence[dict[str, Any]]) -> list[float]:
    """Where the second and later stages begin, in epochs of the whole run."""
    total, starts = 0.0, []
    for epochs, _ in _epochs(metrics).values():
        total += epochs
        starts.append(total)
    return starts[:-1]


def _timeline(
    lines: Sequence[dict[str, Any]], metrics: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Lines with `at`: epochs since the start of the first stage."""
    ends = _epochs(metrics)
    starts = dict(zip(ends, [0.0, *_stage_starts(metrics)], strict=True))
    placed = []
    for line in lines:
        if line["stage"] in ends:
            epochs, steps = ends[line["stage"]]
            at = starts[line["stage"]] + epochs * line["step"] / steps
            placed.append({**line, "at": at})
    assert all(a["at"] <= b["at"] for a, b in pairwise(placed))
    return placed
