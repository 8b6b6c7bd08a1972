"""Pages rendered from data: results, methods and citations between the markers of a page.

`rs-models render [PAGE ...] [--results model_cards/results] [--check]` does it.

The blocks of `BLOCKS` are for the README and for pages that may link to files of the repository;
those of `DOCS_BLOCKS` for pages of the documentation too, which link to nothing outside `docs/`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..assets import clone
from ..cards import DECIDED, TESTED, claim_difference, markdown_table, span
from ..errors import UserError
from ..evaluation.results import Result, read_all, table
from ..files import write_text
from ..papers import PAPERS, REVIEWS, Paper, bibtex
from ..zoo import ZOO, method_of
from .sheets import datasets, models
from .tables import headline, plain, readouts, starts

PAGE = Path("README.md")
_ROOT = clone()
CONFIGS = "training/configs"
RESULTS = Path("model_cards") / "results"
STUDY = Path("model_cards") / "studies" / "claims"
# What the methods' table shows of the results.
_SHOWN_DATA, _SHOWN_PROTOCOLS = "aid96", {"knn20": "k-NN (k = 20)", "linear": "linear"}


def render(page: str | os.PathLike[str], results: str | os.PathLike[str]) -> bool:
    """Writes each block of `BLOCKS` and `DOCS_BLOCKS` that a page has markers for.

    Args:
        page: Markdown file with `<!-- NAME:begin -->` and `<!-- NAME:end -->` of one block or more.
        results: Folder of results files.

    Returns:
        Whether the page changed.

    Raises:
        UserError: No page, no marker, one that is missing or doubled, or a results file that breaks
            the schema.
    """
    path = Path(page)
    text, stale = _rendered(path, Path(results))
    if stale:
        write_text(path, text)
    return bool(stale)


def check(page: str | os.PathLike[str], results: str | os.PathLike[str]) -> None:
    """Compares the blocks of a page with the data.

    Raises:
        UserError: They differ, or what `render` raises.
    """
    _, stale = _rendered(Path(page), Path(results))
    if stale:
        raise UserError(
            f"{page} does not show what the data say ({', '.join(stale)}): render it with "
            f"'rs-models render {page} --results {results}' and do not edit it by hand."
        )


def pages_here() -> list[Path]:
    """The README of the current folder and the pages below its `docs` with a place for a block."""
    places = [markers(name)[0] for name in (*BLOCKS, *DOCS_BLOCKS)]
    pages = sorted(Path("docs").rglob("*.md"))
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    return [PAGE, *(page for page in pages if any(place in texts[page] for place in places))]


def markers(name: str) -> tuple[str, str]:
    """The lines that a block stands between."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def _rendered(path: Path, results: Path) -> tuple[str, list[str]]:
    """The page as it should be, and which of its blocks were not so."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read the page {path}: {error.strerror}.") from error
    blocks = {**BLOCKS, **DOCS_BLOCKS}
    names = [name for name in blocks if any(marker in text for marker in markers(name))]
    if not names:
        raise UserError(
            f"{path} has no place for {' or '.join(BLOCKS)}: add the lines "
            f"{' and '.join(markers(next(iter(BLOCKS))))}."
        )
    measured = read_all(results)
    stale = []
    for name in names:
        begin, end = markers(name)
        for marker in (begin, end):
            if text.count(marker) != 1:
                raise UserError(
                    f"{path} must hold the line {marker} once, not {text.count(marker)} times."
                )
        before, _, rest = text.partition(begin)
        old, found, after = rest.partition(end)
        if not found:
            raise UserError(f"{path} has {end} before {begin}: swap them.")
        content = blocks[name](measured)
        new = f"\n{content}\n" if content else "\n"
        if new != old:
            stale.append(name)
        text = f"{before}{begin}{new}{end}{after}"
    return text, stale


# --- blocks --------------------------------------------------------------------------------------


def methods(results: Sequence[Result]) -> str:
    """Markdown tables of the methods, their recipes, and the baselines that are their settings.

    Args:
        results: In any order; those of our own models are shown, by their names' first part.
    """
    shown = " and ".join(_SHOWN_PROTOCOLS.values())
    rows = [
        (
            f"**{paper.label}**<br>`method.name={name}`",
            _source(paper),
            paper.learns_from,
            "<br>".join(f"`{key}={_yaml(value)}`" for key, value in paper.settings.items()),
            _measured(name, results),
        )
        for name, paper in PAPERS.items()
    ]
    recipes = [
        (paper.label, *(f"[`{path}`]({path})" for path in (paper.recipe, paper.small_recipe)))
        for paper in PAPERS.values()
    ]
    baselines = [row for paper in PAPERS.values() for row in _baselines(paper)]
    results_head = f"our models on {_SHOWN_DATA}: {shown}, accuracy in %"
    head = ("method", "paper", "learns from", "settings and defaults", results_head)
    return "\n\n".join(
        [
            markdown_table(head, rows),
            markdown_table(("method", "recipe for GPUs", "small recipe for CPU cores"), recipes),
            markdown_table(("baseline", "is a setting"), baselines),
        ]
    )


def citations(results: Sequence[Result] = ()) -> str:
    """BibTeX of all methods and of the reviews in one Markdown code block."""
    entries = map(bibtex, (*PAPERS, *REVIEWS))
    return "\n".join(["```bibtex", "\n\n".join(entries), "```"])


def zoo(results: Sequence[Result]) -> str:
    """Markdown table of the zoo: what each model is, where it is, what it reaches.

    Args:
        results: In any order.
    """
    shown = f"k-NN and linear on {_SHOWN_DATA}, %"
    head = ("model", "method", "backbone", "pretraining data", "recipe", "weights", shown)
    means = _means(results)
    rows = []
    for model in ZOO:
        # What made the weights travels with them; a recipe may have been changed since.
        run = f"hub/rs/{model.name}/run.yaml"
        here = (_ROOT / run).is_file()
        name_and_path = ("run.yaml", run) if here else (model.recipe, f"{CONFIGS}/{model.recipe}")
        recipe = "[`{}`]({})".format(*name_and_path)
        where = f"`{model.repo_id}@{model.revision}`" if model.published else "not published yet"
        if not model.published and (_ROOT / "hub" / "rs" / model.name).is_dir():
            where = f"`hub/rs/{model.name}` here"
        card = f"model_cards/rendered/{model.name}/README.md"
        name = f"[{model.name}]({card})" if (_ROOT / card).is_file() else model.name
        measured = [means.get((model.name, key)) for key in _SHOWN_PROTOCOLS]
        rows.append(
            (
                name,
                PAPERS[model.method].label,
                model.backbone,
                model.data,
                recipe,
                where,
                ", ".join(m or "-" for m in measured) if any(measured) else "-",
            )
        )
    return markdown_table(head, rows)


def claims(results: Sequence[Result] = ()) -> str:
    """What the study of the papers' claims has decided so far, its budget in a line above.

    Args:
        results: Not looked at: a study keeps its own.
    """
    folder = _ROOT / STUDY
    if not folder.is_dir():
        return ""
    claimed, about = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("claims.json", "study.json")
    )
    claimed = [claim for claim in claimed if not claim.get("afterwards")]
    decided = [claim for claim in claimed if claim["verdict"] in DECIDED]
    tested = sum(claim["verdict"] in TESTED for claim in claimed)
    base = about["base"]
    found = [claim["differences"][0] for claim in claimed if claim["differences"][0]]
    seeds = span(len(one["seeds"]) for one in found)
    so_far = "" if all(claim["differences"][0] for claim in claimed) else " so far"
    usual = Counter(claim["measures"][0] for claim in decided).most_common(1)
    budget = (
        f"`{base['backbone']}` at {base['image_size']} pixels, {base['epochs']} epochs, "
        f"{seeds} seeds, or as said; of {len(claimed)} claims {tested} tested (both sides are "
        f"told from random weights), {len(decided)} decided{so_far}"
        + (f", by {usual[0][0]}:" if usual else ".")
    )
    rows = []
    for claim in decided:
        measure = claim["measures"][0]
        short = measure.replace(usual[0][0].partition("/")[0] + "/", "")
        said = [] if measure == usual[0][0] else [short]
        own = (about.get("budgets", {}).get(claim[side], ()) for side in ("better", "worse"))
        said += dict.fromkeys(word for words in own for word in words)
        by = f" ({', '.join(said)})" if said else ""
        points = claim_difference(claim["differences"][0])
        rows.append((claim["says"] + by, points, claim["verdict"]))
    return f"{budget}\n\n{markdown_table(('claim', 'points', 'verdict'), rows)}" if rows else budget


def results_tables(results: Sequence[Result]) -> str:
    """Markdown tables of all results at the models' own size, one a data set."""
    return table(plain(results))


# Name in the markers -> the text for all results.
BLOCKS: dict[str, Callable[[Sequence[Result]], str]] = {
    "results": results_tables,
    "methods": methods,
    "citations": citations,
    "zoo": zoo,
    "claims": claims,
}


# --- blocks of the documentation -----------------------------------------------------------------


def method_settings(results: Sequence[Result] = (), *, method: str) -> str:
    """Markdown table of what users of a method turn first, and of the baselines among its settings.

    Args:
        results: Not looked at.
        method: A key of `PAPERS`.
    """
    paper = PAPERS[method]
    rows = [(f"`{key}`", f"`{_yaml(value)}`") for key, value in paper.settings.items()]
    parts = [markdown_table(("setting", "default"), rows)]
    if paper.baselines:
        parts.append(markdown_table(("baseline", "is a setting"), _baselines(paper)))
    return "\n\n".join(parts)


def method_recipes(results: Sequence[Result] = (), *, method: str) -> str:
    """The commands that run a method's recipes, as one Markdown code block.

    Args:
        results: Not looked at.
        method: A key of `PAPERS`.
    """
    paper = PAPERS[method]
    recipes = (("the paper's scale, GPUs", paper.recipe), ("small, CPU cores", paper.small_recipe))
    lines = [
        f"# {what}\naccelerate launch training/pretrain.py --config {path} \\\n"
        "  data.name=path/to/tiles"
        for what, path in recipes
    ]
    return "\n".join(["```bash", *lines, "```"])


def method_results(results: Sequence[Result], *, method: str) -> str:
    """Markdown tables of what was measured of a method's models, one a data set.

    Args:
        results: In any order; those of our own models are shown, by their names' first part.
        method: A key of `PAPERS`.
    """
    own = [result for result in plain(results) if method_of(result.model) == method]
    return table(own) or "None of its models was measured yet."


def method_citation(results: Sequence[Result] = (), *, method: str) -> str:
    """A method's paper, code and BibTeX.

    Args:
        results: Not looked at.
        method: A key of `PAPERS`.
    """
    return f"{_source(PAPERS[method])}.\n\n```bibtex\n{bibtex(method)}\n```"


def _without_files(block: Callable[[Sequence[Result]], str], results: Sequence[Result]) -> str:
    """A block whose links to files of the repository are their texts only."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", block(results))


# As `BLOCKS`, for the pages in docs/: `settings-tov` and so on, and the README's tables unlinked.
DOCS_BLOCKS: dict[str, Callable[[Sequence[Result]], str]] = {
    "headline": headline,
    "readouts": readouts,
    "starts": starts,
    "models": models,
    "datasets": datasets,
    **{f"docs-{name}": partial(_without_files, BLOCKS[name]) for name in ("methods", "zoo")},
    **{
        f"{name}-{method}": partial(block, method=method)
        for name, block in (
            ("settings", method_settings),
            ("recipes", method_recipes),
            ("results", method_results),
            ("citation", method_citation),
        )
        for method in PAPERS
    },
}


def _baselines(paper: Paper) -> list[tuple[str, str]]:
    return [
        (f"{base.name} ([arXiv](https://arxiv.org/abs/{base.arxiv}))", f"`{base.arguments}`")
        for base in paper.baselines
    ]


def _source(paper: Paper) -> str:
    first = paper.authors[0].partition(",")[0]
    code = f"[code]({paper.code})" if paper.code else "no code published"
    return f"[{first} et al., {paper.venue[0]} {paper.year}]({paper.link}), {code}"


def _yaml(value: Any) -> str:
    """A value as one writes it behind `key=`."""
    return value if isinstance(value, str) else json.dumps(value)


def _means(results: Sequence[Result]) -> dict[tuple[str, str], str]:
    """(model, protocol) -> mean of what the tables show."""
    return {
        (result.model, result.protocol): f"{result.mean:.1f}"
        for result in results
        if result.data == _SHOWN_DATA and result.protocol in _SHOWN_PROTOCOLS
    }


def _measured(method: str, results: Sequence[Result]) -> str:
    """`model`: one number a shown protocol, a line a model; "-" for what was not measured."""
    means = _means(results)
    models = sorted({model for model, _ in means if method_of(model) == method})
    lines = [
        f"{model}: {', '.join(means.get((model, key), '-') for key in _SHOWN_PROTOCOLS)}"
        for model in models
    ]
    return "<br>".join(lines) or "-"


# --- command -------------------------------------------------------------------------------------
