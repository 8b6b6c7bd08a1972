"""The report of a study: every number in it is read from the collected results."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cards import claim_difference, claims_table, markdown_table, over_random, span
from ..evaluation.results import Result, protocol_order, read_all
from ..files import write_bytes, write_text
from ..papers import PAPERS
from .claims import FINISHED, SEEDS, by_seed, measured
from .config import StudyConfig
from .figures import figures
from .verdicts import HOLDS, MISSING, NOT_TESTED, REVERSED, UNKNOWN

Key = tuple[str, str, str]


def write_report(collected: Path, report: str | os.PathLike[str]) -> None:
    """Writes the Markdown file and, in `figures/` beside it, the pictures.

    Args:
        collected: Folder with `results/`, `claims.json` and `study.json`.
        report: Markdown file.
    """
    path = Path(report)
    results = _results(collected)
    about, claims = read(collected, "study.json"), read(collected, "claims.json")
    drawn = figures(about, claims, results)
    for name, content in drawn.items():
        write_bytes(path.parent / "figures" / f"{path.stem}_{name}", content)
    text = report_text(collected, [f"figures/{path.stem}_{name}" for name in drawn])
    write_text(path, text)


def read(collected: Path, name: str) -> Any:
    """One of the study's own files."""
    return json.loads((collected / name).read_text(encoding="utf-8"))


def report_text(collected: Path, pictures: Sequence[str]) -> str:
    """The report as Markdown, from the results alone.

    Args:
        collected: Folder with `results/`, `claims.json` and `study.json`.
        pictures: Paths to show, relative to the report; their stems end in what they show.
    """
    about, claims = read(collected, "study.json"), read(collected, "claims.json")
    results = _results(collected)
    base = about["base"]
    ran = [len(found) for cell in about["trained"] if (found := _seeds_of(cell, results))]
    lines = [
        f"# {about.get('title', StudyConfig.title)}",  # earlier studies have none
        "",
        "*Written by `training/study.py` from the study's results; do not edit it by hand.*",
        "",
        _verdicts_line(claims),
        "",
        f"- {sum(ran)} pretraining runs of a `{base.get('backbone')}` at {base.get('image_size')} "
        f"pixels, {base.get('epochs')} epochs, {span(ran)} seeds a cell: {about['minutes']:.0f} "
        "minutes of training in all. Short runs say which idea helps early, not where long "
        "training ends.",
        *(f"- {line}" for line in about["note"].split("\n") if line),
        *_budget_lines(about, results),
        "",
        "```bash",
        about["command"],
        "```",
        "",
        "## Claims",
        "",
        claims_table(claims),
        "",
        "- *Difference*: of two cells with the same seed, so with the same labels and test images "
        "and, where the networks are alike, the same start and order (but where a side is a "
        "finished model, or is asked something else), in points, with Student's 95% interval over "
        "the seeds, for this claim alone.",
        "- *Over random weights*: how far the two sides are above random weights of their own "
        "backbone, in points; in brackets what a one-sided paired t-test cannot tell from them at "
        "5 %. A claim with such a side is *not tested*.",
        "- A claim *holds* where the paired t-test says so after Holm's correction for all that "
        f"were tested, at a level of {about.get('level', StudyConfig.level):g} for all together; "
        "*visible* is the smallest difference that would have been decided, at the claim's place "
        "in that order and with its spread over the seeds."
        + (" Verdicts may change until all are measured." if _unmeasured(claims) else ""),
        *(
            ["- *Asked afterwards*: when both sides were known. Judged alone, and not counted."]
            if any(claim.get("afterwards") for claim in claims)
            else []
        ),
        "",
    ]
    behind = _behind_random(about, results)
    if behind:
        lines += [
            f"Worse than random weights of their backbone at 20 labels a class: {'; '.join(behind)}"
            ". What they were trained for at this budget taught their features nothing of use.",
            "",
        ]
    for picture in pictures:
        lines += [f"![{_ALT[_shown(picture)]}]({picture})", ""]
    lines += ["## Paper by paper", ""]
    for key, paper in PAPERS.items():
        mine = [claim for claim in claims if claim["paper"] == key]
        if mine:
            lines += [f"### {paper.label}", "", *_sentences(mine, results, about["cells"]), ""]
            lines += _dose_lines(mine, about)
    lines += _side_by_side(about, results)
    lines += ["## All cells", "", *_cells_tables(about["cells"], results)]
    if about["failed"]:
        lines += ["## Not there", ""]
        lines += [f"- {cell}: {why}" for cell, why in sorted(about["failed"].items())]
        lines += [""]
    return "\n".join(lines)


_ALT = {
    "claims": "Paired differences of all claims with their intervals",
    "few_labels": "Accuracy against labels a class",
    "amount": "Accuracy against pretraining images, and against epochs",
    "geometry": "Alignment against uniformity, and effective rank",
}


def _verdicts_line(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims came to which verdict."""
    counts = Counter(claim["verdict"] for claim in claims if not claim.get("afterwards"))
    words = (HOLDS, REVERSED, UNKNOWN, NOT_TESTED, MISSING)
    why = {NOT_TESTED: " (a side is not told from random weights of its own backbone)"}
    told = ", ".join(f"{word} {counts[word]}{why.get(word, '')}" for word in words if counts[word])
    afterwards = sum(bool(claim.get("afterwards")) for claim in claims)
    more = f" {afterwards} more were asked afterwards." if afterwards else ""
    return f"Of {counts.total()} claims at this small scale: {told}.{more}"


def _unmeasured(claims: Sequence[Mapping[str, Any]]) -> bool:
    return any(claim["verdict"] == MISSING for claim in claims)


def _budget_lines(about: Mapping[str, Any], results: Mapping[Key, Result]) -> list[str]:
    """Which cells had another budget than most, where a study tells it."""
    cells: dict[str, list[str]] = {}
    for cell, words in about.get("budgets", {}).items():
        if _seeds_of(cell, results):
            cells.setdefault(", ".join(words), []).append(about["cells"][cell] or cell)
    return [f"- {words}: {'; '.join(named)}." for words, named in cells.items()]


def _behind_random(about: Mapping[str, Any], results: Mapping[Key, Result]) -> list[str]:
    """Cells that the untrained network beats wherever both are measured with 20 labels a class."""
    found = []
    for cell in about["trained"]:
        floor = about.get("floors", {}).get(cell, "random")  # earlier studies have none
        pairs = [
            (result.mean, results[floor, data, protocol].mean)
            for (name, data, protocol), result in results.items()
            if name == cell and protocol == "linear-n20" and (floor, data, protocol) in results
        ]
        if pairs and all(mine < random for mine, random in pairs):
            found.append(about["cells"][cell] or cell)
    return found


def _shown(picture: str) -> str:
    return next(name for name in _ALT if Path(picture).stem.endswith(name))


def _sentences(
    claims: Sequence[Mapping[str, Any]],
    results: Mapping[Key, Result],
    cells: Mapping[str, str],
) -> list[str]:
    lines = []
    for claim in claims:
        if claim["verdict"] == MISSING and not any(claim["differences"]):
            lines.append(f"- *{claim['says']}* {_VERDICTS[MISSING]}.")
            continue
        told = []
        for measure, found in zip(claim["measures"], claim["differences"], strict=True):
            better, worse = measured((claim["better"], claim["worse"]), measure, results)
            if found is None or better is None or worse is None:
                told.append(f"{measure} was not measured")
                continue
            sides, kappa = (better, worse), ""
            means = [_mean(side, side.values, found["seeds"]) for side in sides]
            if all(side.scores.get("kappa") for side in sides):
                kappas = [_mean(side, side.scores["kappa"], found["seeds"]) for side in sides]
                kappa = f", kappa {kappas[0]:.3f} against {kappas[1]:.3f}"
            above = over_random(found)
            told.append(
                f"{measure} {means[0]:.1f} against {means[1]:.1f} "
                f"({claim_difference(found)}){kappa}"
                + (f", over random weights {above}" if above else "")
            )
        lines.append(
            f"- *{claim['says']}* {cells[claim['better']]} against {cells[claim['worse']]}: "
            f"{'; '.join(told)}. {_VERDICTS[claim['verdict']]}"
            + (" (asked afterwards)." if claim.get("afterwards") else ".")
        )
    return lines


def _mean(result: Result, values: Sequence[float], seeds: Sequence[int]) -> float:
    """Mean over the seeds that a comparison has, of a result's values, one a seed."""
    if FINISHED in result.settings:
        return values[0]
    found = by_seed(result, values)
    return float(np.mean([found[seed] for seed in seeds]))


def _dose_lines(claims: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[str]:
    """How many pairs the cells of these claims took for false negatives, and how rightly."""
    named = {claim[side] for claim in claims for side in ("better", "worse")}
    told = []
    for cell, dose in about.get("doses", {}).items():  # earlier studies have none
        if cell in named:
            true = f", {dose['true']:.0%} of them of one class" if "true" in dose else ""
            pairs = dose["pairs"]
            shown = f"{pairs:.3f}" if 0 < pairs < 0.05 else f"{pairs:.1f}"
            told.append(f"{about['cells'][cell]}: {shown}{true}")
    if not told:
        return []
    return [f"Pairs of images recalibrated in a step, by cell. {'; '.join(told)}.", ""]


_VERDICTS = {
    HOLDS: "**Holds**",
    REVERSED: "**The reverse holds**",
    UNKNOWN: "Cannot be told at this scale",
    NOT_TESTED: "Not tested: a side is not above random weights, or these were not measured",
    MISSING: "Not measured",
}


# What is asked of features: to tell classes apart, to know a place again, not to collapse.
_ASKED = (
    *("linear-n5", "linear-n20", "finetune-1.5%", "finetune-10%", "silhouette"),
    *("invariance-rotation", "invariance-colour", "invariance-scale", "effective-rank"),
)


def _side_by_side(about: Mapping[str, Any], results: Mapping[Key, Result]) -> list[str]:
    """Cells with a family, kind by kind, on the data set that most of them were measured on."""
    families = about.get("families", {})  # earlier studies have none
    of_data: dict[str, set[str]] = {}
    for cell, data, protocol in sorted(results):
        if cell in families and protocol in _ASKED:
            of_data.setdefault(data, set()).add(cell)
    if not of_data:
        return []
    data = max(of_data, key=lambda name: len(of_data[name]))
    protocols = [p for p in _ASKED if any((cell, data, p) in results for cell in families)]
    rows = []
    for family in dict.fromkeys(families.values()):
        for cell in (cell for cell, its in families.items() if its == family):
            values = [results.get((cell, data, protocol)) for protocol in protocols]
            if any(values):
                shown = ["" if v is None else f"{v.mean:.1f}" for v in values]
                rows.append([family, about["cells"][cell] or cell, *shown])
    return [
        "## Kinds of learning side by side",
        "",
        f"On {data}, means over the seeds. Few labels tell what features know: by a logistic "
        "regression on them (`linear`), or with all weights tuned (`finetune`), which from random "
        "weights is supervised learning from scratch. Silhouettes tell how far classes lie apart "
        "(times 100), invariances how many of 100 images are found again after a turn, in warm "
        "light (gains of 1.25 for the first band to 0.75 for the last, a cast that no method's "
        "views have), at another scale, the effective rank how many directions the features use.",
        "",
        markdown_table(["kind", "cell", *protocols], rows),
        "",
    ]


def _cells_tables(cells: Mapping[str, str], results: Mapping[Key, Result]) -> list[str]:
    """A table a data set: a row a cell that was measured there, a column a protocol."""
    lines = [
        "Mean and standard deviation over the seeds, one number where a single seed was run; "
        "accuracy and invariance in %, segmentation mIoU, silhouette times 100.",
        "",
    ]
    for data in sorted({data for _, data, _ in results}):
        protocols = sorted({key[2] for key in results if key[1] == data}, key=protocol_order)
        rows = []
        for cell, what in cells.items():
            values = [results.get((cell, data, protocol)) for protocol in protocols]
            if any(values):
                shown = [
                    "" if value is None else _value(value, protocol)
                    for value, protocol in zip(values, protocols, strict=True)
                ]
                rows.append([what, *shown])
        lines += [f"### On {data}", "", markdown_table(["cell", *protocols], rows), ""]
    return lines


def _value(result: Result, protocol: str) -> str:
    digits = 2 if protocol in ("alignment", "uniformity") else 1
    if len(result.values) < 2:
        return f"{result.mean:.{digits}f}"
    return f"{result.mean:.{digits}f} ± {result.std:.{digits}f}"


def _seeds_of(cell: str, results: Mapping[Key, Result]) -> list[int]:
    found: set[int] = set()
    for (name, _, _), result in results.items():
        if name == cell:
            found |= set(result.settings[SEEDS])
    return sorted(found)


def _results(collected: Path) -> dict[Key, Result]:
    return {result.key: result for result in read_all(collected / "results")}
