"""Models side by side on the same labelled images: few labels, retrieval, and measured results."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..assets import asset
from ..errors import UserError
from ..evaluation.fewshot import few_shot
from ..evaluation.results import Result, protocol_order, read_all
from ..evaluation.retrieval import average_precision
from .explorer import index
from .models import labelled

SHOTS = (1, 2, 5, 10, 20)
"""Labels a class of the curve, as far as the data has them."""
NEIGHBOURS = 10
COLUMNS = ["model", *(f"{n} labels a class" for n in SHOTS), f"mAP@{NEIGHBOURS}"]
_SEEDS = 5
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Measured:
    """A model on the page's data.

    Attributes:
        label: Short name.
        few_labels: Labels a class -> mean accuracy over the draws, in %.
        deviation: Likewise, the standard deviation.
        retrieval: mAP of the nearest images, in %.
    """

    label: str
    few_labels: dict[int, float]
    deviation: dict[int, float]
    retrieval: float


def label(name: str) -> str:
    """Short name of a model."""
    return labelled([name])[0][0]


@lru_cache(maxsize=32)
def measure(name: str, data: str) -> Measured:
    """Few-label accuracy and retrieval of a model; every second image is for testing.

    Args:
        name: Of the encoder.
        data: Labelled images.

    Raises:
        UserError: No such model or data, or too few images a class.
    """
    known = index(name, data)
    # Alternating within each class, so that both halves have all classes.
    rank = np.zeros(len(known.labels), int)
    for number in range(len(known.names)):
        rows = known.labels == number
        rank[rows] = np.arange(rows.sum())
    test = rank % 2 == 1
    train_x, train_y = known.features[~test], known.labels[~test]
    test_x, test_y = known.features[test], known.labels[test]
    least = int(np.bincount(train_y, minlength=len(known.names)).min())
    if least < 1 or not len(test_y):
        raise UserError(f"{data} has too few images a class to compare models with.")
    means, deviations = {}, {}
    for n in (n for n in SHOTS if n <= least):
        scores = few_shot(train_x, train_y, test_x, test_y, n=n, seeds=_SEEDS)
        draws = 100 * scores.correct.mean(1)
        means[n], deviations[n] = float(draws.mean()), float(draws.std(ddof=1))
    found = average_precision(train_x, train_y, test_x, test_y, k=NEIGHBOURS)
    return Measured(label(name), means, deviations, 100 * float(found.mean()))


def curves(measured: list[Measured]) -> Any:
    """Accuracy against labels a class as a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(measured):
        axes.errorbar(
            list(one.few_labels),
            list(one.few_labels.values()),
            yerr=list(one.deviation.values()),
            marker="osD^vP"[number % 6],
            color=LINES[number % 6],
            capsize=3,
            label=one.label,
        )
    shown = sorted({n for one in measured for n in one.few_labels})
    axes.set_xscale("log")
    axes.set_xticks(shown, [str(n) for n in shown])
    axes.minorticks_off()
    axes.set_xlabel("labels a class")
    axes.set_ylabel("accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def table(measured: list[Measured]) -> str:
    """The curves' numbers as an HTML table of `COLUMNS`."""
    rows = [
        [
            one.label,
            *(
                f"{one.few_labels[n]:.1f} ± {one.deviation[n]:.1f}" if n in one.few_labels else ""
                for n in SHOTS
            ),
            f"{one.retrieval:.1f}",
        ]
        for one in measured
    ]
    return _html("Accuracy in %, mean and deviation of five draws, and retrieval", COLUMNS, rows)


@lru_cache(maxsize=1)
def leaderboards() -> dict[str, list[Result]]:
    """Measured results by data set; empty where there are none."""
    folder = Path(asset("results"))
    results = read_all(folder) if folder.is_dir() else []
    data = sorted({result.data for result in results})
    return {name: [result for result in results if result.data == name] for name in data}


def board(data: str | None) -> str:
    """A data set's results as an HTML table, the best of the first column first."""
    results = leaderboards().get(data or "", [])
    protocols = sorted({result.protocol for result in results}, key=protocol_order)
    cells = {(result.model, result.protocol): f"{result.mean:.1f}" for result in results}
    ranks = {result.model: 0.0 for result in results}
    ranks |= {r.model: -r.mean for r in results if r.protocol == protocols[0]}
    rows = [
        [model, *(cells.get((model, protocol), "") for protocol in protocols)]
        for model in sorted(ranks, key=lambda model: (ranks[model], model))
    ]
    return _html(f"Results on {data}, in %", ["model", *protocols], rows)


def _html(caption: str, headers: list[str], rows: list[list[str]]) -> str:
    """A table that scrolls within itself, so that a phone's page does not."""

    def line(cells: list[str], scope: str) -> str:
        first = f"<th scope='{scope}'>{html.escape(cells[0])}</th>"
        tag, end = ("th scope='col'", "th") if scope == "col" else ("td", "td")
        rest = (f"<{tag} class='number'>{html.escape(cell)}</{end}>" for cell in cells[1:])
        return f"<tr>{first}{''.join(rest)}</tr>"

    body = "".join(line(row, "row") for row in rows)
    return (
        "<div class='scrolled' tabindex='0'><table class='legend'>"
        f"<caption>{html.escape(caption)}</caption><thead>{line(headers, 'col')}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
