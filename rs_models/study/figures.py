"""The pictures of a study."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cards import claim_verdict
from ..evaluation.results import Result
from ..papers import PAPERS
from ..plots import COLOURS, axes_row, new_figure, png, style
from .verdicts import HOLDS, NOT_TESTED, REVERSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#8a8a8a"
_LINEAR = 5.0  # points up to which the axis of differences is even
_RANDOM = "random"  # the cell that reports compare all others with
Key = tuple[str, str, str]


def figures(
    about: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], results: Mapping[Key, Result]
) -> dict[str, bytes]:
    """All pictures that the results allow: file name -> PNG, the same for the same input."""
    drawn = {
        "claims.png": _claims(claims),
        "few_labels.png": _few_labels(about, results),
        "amount.png": _amount(about, results),
        "geometry.png": _geometry(about, results),
    }
    return {name: png(figure, 128) for name, figure in drawn.items() if figure is not None}


def _looks(about: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Cell -> its colour and marker, the same in all pictures; those of `curves` differ most."""
    cells = list(dict.fromkeys([*about["curves"], *about["cells"]]))
    cells = [cell for cell in cells if cell != _RANDOM]
    pale = len(COLOURS) - 1  # yellow, which thin lines on white lose
    return {
        cell: {**style(number + number // pale), "ls": "-" if number < pale else ":"}
        for number, cell in enumerate(cells)
    }


def _claims(claims: Sequence[Mapping[str, Any]]) -> Figure | None:
    """A line a claim: the paired difference that decides, with its interval."""
    shown = [claim for claim in claims if claim["differences"][0]]
    if not shown:
        return None
    names = [_title(claim) for claim in shown]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = new_figure(9.6, 0.15 * lines + 0.1 * len(shown) + 0.9)
    (axis,) = axes_row(figure, 1)
    axis.axvline(0, color="#555555", lw=1)
    ends = []
    for place, claim in enumerate(shown):
        found = claim["differences"][0]
        colour = {HOLDS: COLOURS[0], REVERSED: COLOURS[1]}.get(claim["verdict"], _GREY)
        axis.plot([found["low"], found["high"]], [place, place], color=colour, lw=2)
        axis.plot(found["values"], [place] * len(found["values"]), "|", color=colour, ms=9)
        inside = "white" if claim["verdict"] == NOT_TESTED else colour
        axis.plot(found["mean"], place, "o", color=colour, mfc=inside, ms=6)
        ends += found["values"]
    # Ones of a point and of thirty stand in one picture.
    axis.set_xscale("symlog", linthresh=_LINEAR, linscale=1)
    reach = 1.6 * max(_LINEAR, *map(abs, ends))
    axis.set_xlim(-reach, reach)  # intervals of few seeds may reach far beyond
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50) if tick < reach]
    ticks = [*(-tick for tick in reversed(ticks)), 0, *ticks]
    axis.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(shown)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(
        "points, beyond 5 by their logarithm; bar: 95%, ticks: seeds\n"
        "blue: holds, orange: the reverse, hollow: not tested"
    )
    return figure


def _title(claim: Mapping[str, Any]) -> str:
    """The claim in its own words, what decides it, and the verdict."""
    said = claim["says"].replace(" %", "\N{NO-BREAK SPACE}%")
    width = -(-len(said) // -(-len(said) // 72)) + 6  # lines of about one length
    said = textwrap.fill(said, min(width, 72))
    verdict = claim_verdict(claim)
    return f"{said}\n{PAPERS[claim['paper']].label}, {claim['measures'][0]}: {verdict}"


def _what(about: Mapping[str, Any], cell: str) -> str:
    """What a cell is, for a legend."""
    return textwrap.fill(about["cells"].get(cell) or cell, 30)


def _few_labels(about: Mapping[str, Any], results: Mapping[Key, Result]) -> Figure | None:
    cells = about["curves"] or list(about["cells"])
    curves: dict[str, dict[str, list[tuple[int, Result]]]] = {}
    for (cell, data, protocol), result in results.items():
        shots = protocol.removeprefix("linear-n")
        if cell in cells and protocol != shots and shots.isdigit():
            curves.setdefault(data, {}).setdefault(cell, []).append((int(shots), result))
    curves = {
        data: {cell: points for cell, points in found.items() if len(points) > 1}
        for data, found in curves.items()
    }
    curves = {data: found for data, found in curves.items() if found}
    if not curves:
        return None
    figure = new_figure(3.6 * len(curves) + 3.0, 4.4)
    axes = axes_row(figure, len(curves))
    shown = [cell for cell in cells if any(cell in found for found in curves.values())]
    looks, legend = _looks(about), dict[str, Any]()
    for axis, (data, found) in zip(axes, sorted(curves.items()), strict=True):
        ticks: set[int] = set()
        for number, cell in enumerate(shown):
            if cell not in found:
                continue
            points = sorted(found[cell], key=lambda point: point[0])
            labels = [shots for shots, _ in points]
            ticks |= set(labels)
            means = [result.mean for _, result in points]
            below = [max(0.0, result.mean - result.interval[0]) for _, result in points]
            above = [max(0.0, result.interval[1] - result.mean) for _, result in points]
            nudged = [shots * 1.012 ** (number - 4) for shots in labels]
            if cell == _RANDOM:
                axis.plot(labels, means, color=_GREY, ls="--", lw=1.6, label="random weights")
                continue
            axis.errorbar(
                nudged,
                means,
                yerr=[below, above],
                **looks[cell],
                ms=5,
                lw=1.4,
                capsize=2,
                label=_what(about, cell),
            )
        axis.set_xscale("log")
        axis.set_xticks(sorted(ticks), [str(n) for n in sorted(ticks)])
        axis.minorticks_off()
        axis.set_title(f"{data}: logistic regression", fontsize=10)
        axis.set_xlabel("labels a class")
        handles, names = axis.get_legend_handles_labels()
        legend |= dict(zip(names, handles, strict=True))
    axes[0].set_ylabel("accuracy, %; bars: 95%")
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes[-1].legend(legend.values(), legend.keys(), fontsize=8, frameon=False, **place)
    return figure


def _amount(about: Mapping[str, Any], results: Mapping[Key, Result]) -> Figure | None:
    amounts = about["amounts"]
    by_data: dict[str, list[tuple[int, Result]]] = {}
    for cell, images in amounts.items():
        for name, data, protocol in results:
            if (name, protocol) == (cell, "linear-n20"):
                by_data.setdefault(data, []).append((int(images), results[cell, data, protocol]))
    by_data = {data: points for data, points in sorted(by_data.items()) if len(points) > 1}
    epochs = {cell: points for cell, points in about["epochs"].items() if len(points) > 1}
    if not by_data and not epochs:
        return None
    figure = new_figure(11.0, 4.2)
    left, right = axes_row(figure, 2)
    for number, (data, found) in enumerate(by_data.items()):
        points = sorted(found, key=lambda point: point[0])
        left.errorbar(
            [images for images, _ in points],
            [result.mean for _, result in points],
            yerr=[result.std for _, result in points],
            **style(number),
            capsize=3,
            label=data,
        )
        floor = results.get((_RANDOM, data, "linear-n20"))
        if floor is not None:
            left.axhline(floor.mean, color=style(number)["color"], ls="--", lw=1)
    left.set_xscale("log")
    ticks = sorted(int(images) for images in amounts.values())
    left.set_xticks(ticks, [f"{images:,}" for images in ticks])
    left.minorticks_off()
    left.set_xlabel("pretraining images, equal steps; dashed: random weights")
    left.set_ylabel("linear, 20 labels a class, %")
    left.legend(fontsize=8, frameon=False)
    looks = _looks(about)
    shown = [cell for cell in about["curves"] if cell in epochs] or sorted(epochs)[:8]
    for cell in shown:
        at, values = zip(*epochs[cell], strict=True)
        right.plot(at, values, **looks[cell], ms=4, label=_what(about, cell))
    right.set_xscale("log")
    first = min((epochs[cell][0][0] for cell in shown), default=1)
    longest = max((epochs[cell][-1][0] for cell in shown), default=1)
    ticks = [tick for tick in (1, 3, 6, 12, 20, 60, 100, 200) if first <= tick <= longest]
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    right.set_xlabel("epochs")
    right.set_ylabel("k-NN on validation, %")
    right.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _geometry(about: Mapping[str, Any], results: Mapping[Key, Result]) -> Figure | None:
    cells = sorted({cell for cell, _, protocol in results if protocol == "alignment"})
    if not cells:
        return None
    data = next(key[1] for key in results if key[2] == "alignment")
    random = results.get((_RANDOM, data, "linear-n20"))
    figure = new_figure(11.4, 4.4)
    left, right = axes_row(figure, 2)
    looks = {**_looks(about), _RANDOM: {"color": _GREY, "marker": "s"}}
    for cell in cells:
        drawn: dict[str, Any] = {**looks[cell], "ms": 7, "ls": "", "label": _what(about, cell)}
        at = [results[cell, data, key].mean for key in ("uniformity", "alignment")]
        left.plot(*at, **drawn)
        accuracy = results.get((cell, data, "linear-n20"))
        if accuracy is not None:
            right.plot(results[cell, data, "effective-rank"].mean, accuracy.mean, **drawn)
    if random is not None:
        right.axhline(random.mean, color=_GREY, ls="--", lw=1)
    left.set_xlabel("uniformity (lower: more even)")
    left.set_ylabel("alignment (lower: closer views)")
    right.set_xlabel("effective rank of the features; dashed: random weights")
    right.set_ylabel("linear, 20 labels a class, %")
    # The left plot has every cell; the right one lacks those without an accuracy.
    shown = left.get_legend_handles_labels()
    right.legend(*shown, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
