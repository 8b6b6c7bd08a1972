"""Pages rendered from results files: the tables of the README."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError
from .evaluation.results import read_all, table

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RESULTS = Path("model_cards") / "results"


def render_tables(page: str | os.PathLike[str], results: str | os.PathLike[str]) -> bool:
    """Puts the tables of a folder of results between the markers of a page.

    Args:
        page: Markdown file with the two markers, each once.
        results: Folder of results files.

    Returns:
        Whether the page changed.

    Raises:
        UserError: A marker is missing or doubled, or a results file breaks the schema.
    """
    path = Path(page)
    old = path.read_text(encoding="utf-8")
    new = _with_tables(old, path, Path(results))
    if new != old:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(new, encoding="utf-8")
        partial.replace(path)
    return new != old


def check_tables(page: str | os.PathLike[str], results: str | os.PathLike[str]) -> None:
    """Compares the tables of a page with the results.

    Raises:
        UserError: They differ, or what `render_tables` raises.
    """
    path = Path(page)
    old = path.read_text(encoding="utf-8")
    if _with_tables(old, path, Path(results)) != old:
        raise UserError(
            f"The tables in {path} are not those of {results}: render them with "
            f"rs_models.cards.render_tables('{path}', '{results}') and do not edit them by hand."
        )


def _with_tables(text: str, path: Path, results: Path) -> str:
    for marker in (BEGIN, END):
        if text.count(marker) != 1:
            raise UserError(
                f"{path} must hold the line {marker} once, not {text.count(marker)} times."
            )
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise UserError(f"{path} has {END} before {BEGIN}: swap them.")
    tables = table(read_all(results))
    middle = f"\n{tables}\n" if tables else "\n"
    return f"{before}{BEGIN}{middle}{END}{after}"
