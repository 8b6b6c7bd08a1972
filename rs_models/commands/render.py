"""`rs-models render`: results, methods and citations between the markers of pages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..publish.pages import PAGE, RESULTS, check, pages_here, render
from ..settings import Options


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models render",
        description="Render the results, methods and citations between the markers of pages.",
    )
    options.add_argument(
        "pages",
        nargs="*",
        type=Path,
        help=f"Markdown files (default {PAGE}, and the pages of docs/ that have such markers)",
    )
    options.add_argument("--results", default=RESULTS, help=f"folder (default {RESULTS})")
    options.add_argument("--check", action="store_true", help="only say whether it is up to date")
    return options


def main(argv: Sequence[str]) -> int:
    """Renders or checks pages from the command line; the exit code.

    Raises:
        UserError: As `render` and `check`, and for a folder of results that does not exist.
    """
    options = parser().parse_args(argv)
    if not Path(options.results).is_dir():
        raise UserError(f"There is no folder {options.results}: name that of the results files.")
    for page in options.pages or pages_here():
        if options.check:
            check(page, options.results)
            print(f"{page}: up to date")
        else:
            changed = render(page, options.results)
            print(f"{page}: {'rendered' if changed else 'up to date already'}")
    return 0
