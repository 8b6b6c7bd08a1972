"""Models side by side on the same labelled images, by the protocols and tables of the results."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..assets import asset
from ..data.cache import ImageCache
from ..errors import UserError
from ..evaluation.baselines import PREFIX
from ..evaluation.protocols import run
from ..evaluation.results import Result, is_yardstick, protocol_order, read_all
from ..publish.figures import few_labels
from .explorer import cached
from .models import encoder

SHOTS = (1, 2, 5, 10, 20)
"""Labels a class, as far as the data has them."""

# 97.5 % quantiles of Student's t by degrees of freedom, for differences of few draws.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}

__all__ = [
    "SHOTS",
    "SORTING",
    "board",
    "few_labels",
    "leaderboard",
    "measure",
    "measured",
    "verdict",
]


@lru_cache(maxsize=32)
def measure(name: str, data: str) -> tuple[Result, ...]:
    """Few-label accuracy and retrieval of a model: learned from `train`, asked for on `test`.

    Args:
        name: Name of the encoder.
        data: Labelled images.

    Raises:
        UserError: No such model or data, or too few images a class.
    """
    frozen = encoder(name)
    train, test = (cached(data, split, frozen.train_size) for split in ("train", "test"))
    protocols = [f"linear-n{n}" for n in SHOTS if n <= _fewest(train)]
    if not protocols:
        raise UserError(f"{data} has a class without images: there is nothing to compare with.")
    protocols.append("retrieval20")
    title = data.partition(":")[0].rstrip("/").rpartition("/")[2]
    measured = run(frozen, train, test, protocols=protocols, data=title, progress=False)
    return tuple(dataclasses.replace(result, model=frozen.name) for result in measured)


def _fewest(train: ImageCache) -> int:
    """Images of the class that has the fewest."""
    assert train.labels is not None and train.classes is not None
    return int(np.bincount(train.labels.numpy(), minlength=len(train.classes)).min())


def verdict(results: Sequence[Result]) -> str:
    """Who is ahead with the most labels, and whether the draws of labels tell so, as Markdown.

    All models learn from the same draws, so that the differences of the draws are compared: a mean
    difference within their 95 % interval is none.

    Args:
        results: Results of one data set, as `measure` gives them, for one model or several.
    """
    most = max(int(r.protocol[8:]) for r in results if r.protocol.startswith("linear-n"))
    ranked = sorted(
        (result for result in results if result.protocol == f"linear-n{most}"),
        key=lambda result: -result.mean,
    )
    first = ranked[0]
    said = f"With {most} labels a class"
    if len(ranked) == 1:
        return f"{said} **{first.model}** reaches {first.mean:.1f} %: choose another beside it."
    close: list[Result] = []
    clear: list[Result] = []
    for other in ranked[1:]:
        gaps = np.subtract(first.values, other.values)
        noise = _T95[len(gaps) - 1] * gaps.std(ddof=1) / np.sqrt(len(gaps))
        (close if gaps.mean() <= noise else clear).append(other)
    if close:
        names = ", ".join(f"**{one.model}**" for one in (first, *close))
        said += f" {names} are too close to tell apart"
    else:
        said += f" **{first.model}** is ahead"
    gap = first.mean - (clear or close)[0].mean
    against = f"of {clear[0].model} by {gap:.1f} points" if clear else f"({gap:.1f} points)"
    said += f"{', and ahead' if close and clear else ''} {against}"
    return f"{said}, in {len(first.values)} draws of labels that all models share."


@lru_cache(maxsize=1)
def measured() -> dict[str, list[Result]]:
    """Results by data set, those of the protocols that many models have."""
    folder = asset("results")
    results = read_all(folder) if folder.is_dir() else []
    by_data: dict[str, list[Result]] = {}
    for result in results:
        by_data.setdefault(result.data, []).append(result)
    return dict(sorted(by_data.items(), key=lambda item: -len(item[1])))


def leaderboard(data: str) -> str:
    """What was measured on a data set, as HTML."""
    return board(measured().get(data, []))


def board(results: Sequence[Result]) -> str:
    """Results of one data set as a table that can be sorted, as HTML.

    Our models by their mean, what they are compared with below and in grey; the best of ours is
    marked in each column. A cell is the mean with the deviation over draws, or a 95 % interval.

    Args:
        results: Results of any models and protocols.
    """
    if not results:
        return "<p class='quiet'>Nothing was measured here yet.</p>"
    protocols = sorted({result.protocol for result in results}, key=protocol_order)
    cells = {(result.model, result.protocol): result for result in results}
    names = sorted({result.model for result in results}, key=lambda name: _rank(name, results))
    best = {
        protocol: max(
            (r.mean for r in results if r.protocol == protocol and not is_yardstick(r.model)),
            default=0.0,
        )
        for protocol in protocols
    }
    head = "".join(
        f"<th scope='col'><button type='button'>{html.escape(name)}</button></th>"
        for name in ("model", *protocols)
    )
    rows = []
    for name in names:
        row = [f"<th scope='row'>{html.escape(_title(name))}</th>"]
        row += [_cell(cells.get((name, protocol)), best[protocol]) for protocol in protocols]
        kind = " class='yardstick'" if is_yardstick(name) else ""
        rows.append(f"<tr{kind}>{''.join(row)}</tr>")
    return (
        f"<div class='board' tabindex='0'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


SORTING = """
element.addEventListener('click', event => {
  const button = event.target.closest('thead button');
  if (!button) return;
  const head = button.parentElement, at = [...head.parentElement.children].indexOf(head);
  const up = head.getAttribute('aria-sort') === 'descending';
  const value = row => row.children[at].dataset.value ?? row.children[at].textContent;
  const rows = [...element.querySelectorAll('tbody tr')];
  rows.sort((a, b) => {
    const [one, two] = [value(a), value(b)];
    if (one === '' || two === '') return (one === '') - (two === '');
    const order = isNaN(one) || isNaN(two) ? two.localeCompare(one) : two - one;
    return up ? -order : order;
  });
  element.querySelectorAll('th').forEach(th => th.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  element.querySelector('tbody').append(...rows);
});
"""
"""Sorts a board by the column whose head is clicked, and the other way when it is again."""


def _rank(name: str, results: Sequence[Result]) -> tuple[bool, float]:
    means = [result.mean for result in results if result.model == name]
    return is_yardstick(name), -sum(means) / len(means)


def _title(name: str) -> str:
    """What a reader calls a row."""
    if name.startswith(PREFIX):
        return f"{name.removeprefix(PREFIX).replace('-', ' ').replace('_', ' ')} (free)"
    return f"{name} (labels of ImageNet)" if name.startswith("imagenet-") else name


def _cell(result: Result | None, best: float) -> str:
    if result is None:
        return "<td data-value=''></td>"
    low, high = result.interval
    spread = f"± {result.std:.1f}" if len(result.values) > 1 else f"{low:.1f} to {high:.1f}"
    is_best = result.mean == best and not is_yardstick(result.model)
    kind = " class='best'" if is_best else ""
    return f"<td{kind} data-value='{result.mean:.3f}'>{result.mean:.1f}<small>{spread}</small></td>"
