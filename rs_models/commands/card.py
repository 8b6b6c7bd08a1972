"""`rs-models card`: a model's card from its facts and results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..publish.card import MODELS, RENDERED, WEIGHTS, check, collect, render
from ..publish.facts import LOOK
from ..publish.pages import RESULTS
from ..publish.staging import find_results
from ..settings import Options
from ..zoo import local_repository, namespace, run_name


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models card",
        description="Render a model's card from its facts and results.",
        epilog="""examples:
  rs-models card outputs/tov-resnet18 --output card
  rs-models card outputs/tov-resnet18 --collect --data ../data/rsscn7
  rs-models card --all
  rs-models card --all --check

Exit codes: 0 done, 1 network or server, 2 bad input or a stale card.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("folder", nargs="?", help="a run's folder, a model's, or one of facts")
    options.add_argument("--output", help="folder of the card (default: model_cards/rendered/NAME)")
    options.add_argument("--repo-id", help="default: the namespace and the folder's name")
    options.add_argument("--results", help=f"folder (default: the run's own and {RESULTS})")
    options.add_argument(
        "--all",
        action="store_true",
        help=f"every folder of {MODELS}, beside the weights of {WEIGHTS} too",
    )
    options.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options.add_argument(
        "--collect", action="store_true", help=f"keep the run's facts in {MODELS}/NAME first"
    )
    options.add_argument("--data", help="with --collect: labelled set to draw features of")
    options.add_argument("--recipe", help="with --collect: settings of a run that left none")
    return options


def main(argv: Sequence[str]) -> int:
    """Renders or checks cards from the command line; the exit code.

    Raises:
        UserError: Bad input, or a stale card with `--check`.
    """
    options = parser().parse_args(argv)
    if options.all == bool(options.folder):
        raise UserError("Name a folder, or say --all.")
    given = options.results or (RESULTS if options.all else None)
    results = find_results(options.folder or MODELS, given)
    if options.collect and not options.all:
        name = _name(Path(options.folder), options.repo_id)
        collect(options.folder, MODELS / name, data=options.data, recipe=options.recipe)
        if local_repository("rs/ucmerced", datasets=True):  # a clone has it
            from ..demos.figures import write_look

            part = Path(options.folder) / "export"
            write_look(str(part if part.is_dir() else options.folder), MODELS / name / LOOK)
        options.folder = str(MODELS / name)
    folders = sorted(MODELS.glob("*/")) if options.all else [Path(options.folder)]
    for folder in folders:
        name = _name(folder, options.repo_id)
        repo_id = options.repo_id or f"{namespace()}/{name}"
        for output in [Path(options.output)] if options.output else _places(name, options.all):
            if options.check:
                check(folder, output, results, repo_id)
                print(f"{output}: up to date")
            else:
                changed = render(folder, output, results, repo_id)
                print(f"{output}: {'rendered' if changed else 'up to date already'}")
    return 0


def _places(name: str, weights: bool) -> list[Path]:
    """Where a model's card lies: among the cards, and beside the weights that a clone has of it."""
    beside = WEIGHTS / name
    return [RENDERED / name, *([beside] if weights and beside.is_dir() else [])]


def _name(folder: Path, repo_id: str | None) -> str:
    if repo_id:
        return repo_id.rpartition("/")[2]
    return run_name(folder)
