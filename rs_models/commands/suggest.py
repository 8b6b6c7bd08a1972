"""`rs-models suggest`: which tiles of a table to label next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..settings import Count, Options, Seed

_EPILOG = """examples:
  rs-models suggest embeddings -n 20 --output labels.csv --sheet next.png
  rs-models suggest embeddings -n 20 --labels labels.csv --output more.csv --sheet next.png

Write the class of each tile behind its name (tile,label), then ask again. The first suggestions are
typical of what there is, the later ones what a classifier doubts most. No file with labels in it
is ever overwritten.
Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models suggest",
        description="Name the tiles whose labels would help most.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("table", help="output of rs-models embed")
    options.add_argument(
        "-n", type=Count, default=20, help="tiles to suggest (default %(default)s)"
    )
    options.add_argument(
        "--labels", action="append", default=[], help="CSV file with tile and label; repeat"
    )
    options.add_argument(
        "--seed", type=Seed, default=0, help="of the clusters (default %(default)s)"
    )
    options.add_argument(
        "--output", help="file of the tiles: .csv, .gpkg, .fgb, .parquet, .geojson, .shp"
    )
    options.add_argument("--sheet", help="PNG file with the tiles' pictures, in the order printed")
    options.add_argument(
        "--images", help="where the images are, if not where they were embedded from"
    )
    return options


def main(argv: Sequence[str]) -> int:
    """Suggests from the command line; the exit code.

    Raises:
        UserError: No such table, labels that are not of it, or an output with anything to lose.
    """
    options = parser().parse_args(argv)
    from ..errors import UserError
    from ..labelling import Index, Labels, suggest
    from ..labelling.answers import (
        check_output,
        check_sheet,
        write_rows,
        write_sheet,
        writes_vectors,
    )

    theirs = [Path(file).resolve() for file in options.labels]
    if options.output and Path(options.output).resolve() in theirs:
        raise UserError(f"{options.output} holds the labels: write the suggestions elsewhere.")
    index = Index.open(options.table)
    if options.output:
        check_output(options.output, index)
    if options.sheet:
        check_sheet(options.sheet)
    # A file that is still to be written is no mistake at the start.
    started = [file for file in options.labels if Path(file).exists()]
    labels = Labels.read(started[0], index, *started[1:]) if started else None
    if labels is not None and labels.blank:
        print(f"{labels.blank} lines have no class yet and are left out", file=sys.stderr)
    rows = suggest(index, options.n, labels=labels, seed=options.seed)
    for row in rows:
        print(index.names[row])
    if options.output:
        write_rows(options.output, index, rows, {"label": [""] * len(rows)})
        print(f"{options.output}: {len(rows)} tiles")
    if options.sheet:
        write_sheet(options.sheet, index.pictures(rows, options.images))
        print(f"{options.sheet}: their pictures")
    print(_next(options, writes_vectors(index)), file=sys.stderr)  # names alone go to a pipe
    return 0


def _next(options: argparse.Namespace, placed: bool) -> str:
    """What one goes on with; `placed` where answers may be written as a map."""
    file = options.output or (options.labels[-1] if options.labels else "labels.csv")
    named = [*options.labels, *([file] if file not in options.labels else [])]
    given = " ".join(f"--labels {name}" for name in named)
    return (
        f"Next: write the class of each behind its name in {file} (tile,label), then rs-models "
        f"classify {options.table} {given} --output answers.{'gpkg' if placed else 'csv'}"
    )
