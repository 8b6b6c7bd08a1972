"""`rs-models search`: the tiles of a table that look like the ones shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..settings import Count, Options

_EPILOG = """examples:
  rs-models search embeddings --like tile_0042.tif -k 50
  rs-models search embeddings --like a.tif --like b.tif --unlike c.tif --output hits.csv
  rs-models search embeddings --like a.tif --output hits.gpkg --sheet hits.png

A tile is named as in the table, or it is an image file, which is embedded by the table's model.
Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models search",
        description="Find the tiles most like the ones shown, and unlike others.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("table", help="output of rs-models embed")
    options.add_argument(
        "--like", action="append", required=True, help="a tile to look like; repeat"
    )
    options.add_argument(
        "--unlike", action="append", default=[], help="a tile to differ from; repeat"
    )
    options.add_argument("-k", type=Count, default=50, help="tiles to find (default %(default)s)")
    options.add_argument("--output", help="file of the hits: .csv, .gpkg, .fgb, .parquet, .geojson")
    options.add_argument("--sheet", help="PNG file with the hits' pictures")
    options.add_argument(
        "--images", help="where the images are, if not where they were embedded from"
    )
    return options


def main(argv: Sequence[str]) -> int:
    """Searches from the command line; the exit code.

    Raises:
        UserError: No such table or tile, or an output that cannot be written.
    """
    options = parser().parse_args(argv)
    from ..labelling import Index
    from ..labelling.answers import check_output, check_sheet, write_rows, write_sheet
    from ..labelling.search import search

    index = Index.open(options.table)
    if options.output:
        check_output(options.output, index)
    if options.sheet:
        check_sheet(options.sheet)
    rows, scores = search(index, options.like, options.unlike, k=options.k)
    for row, score in zip(rows, scores, strict=True):
        print(f"{score:8.4f}  {index.names[row]}")
    if options.output:
        write_rows(options.output, index, rows, {"score": scores.round(6)})
        print(f"{options.output}: {len(rows)} tiles")
    if options.sheet:
        write_sheet(options.sheet, index.pictures(rows, options.images))
        print(f"{options.sheet}: their pictures")
    else:
        print("Next: the same command with --sheet hits.png shows them", file=sys.stderr)
    return 0
