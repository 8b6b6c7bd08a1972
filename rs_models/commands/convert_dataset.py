"""`rs-models convert-dataset`: a data set as its owners give it becomes a Hub repository."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..settings import Count, Options, Seed, Side

_EPILOG = """examples:
  rs-models convert-dataset --list
  rs-models convert-dataset aid AID.zip --output converted/aid
  rs-models convert-dataset potsdam 4_Ortho_RGBIR.zip 5_Labels_all.zip --output converted/potsdam
  rs-models convert-dataset uc-merced UCMerced_LandUse --output converted/ucm --strict --push

Nothing is downloaded: give the archives or folders that you got from the owners, and mind their
terms before you push. Exit codes: 0 done, 1 network or server, 2 bad input, or with --strict
anything amiss."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models convert-dataset",
        description="Make a Parquet data set with card, splits and checksums.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("name", nargs="?", help="data set, see --list")
    options.add_argument("sources", nargs="*", help="archives or folders")
    options.add_argument("--output", help="folder to write")
    options.add_argument("--strict", action="store_true", help="fail when anything is amiss")
    options.add_argument("--seed", type=Seed, default=0, help="of a drawn split (default 0)")
    options.add_argument("--splits", help="splits.json of an earlier conversion to follow")
    options.add_argument("--window", type=Side, help="side that images with masks are cut to")
    options.add_argument("--per-class", type=Count, help="keep this many scenes of each class")
    options.add_argument("--note", default="", help="a sentence for the card, on these files")
    options.add_argument(
        "--push", action="store_true", help="publish the result, see rs-models push"
    )
    options.add_argument("--repo-id", help="with --push: where to")
    options.add_argument("--private", action="store_true", help="with --push")
    options.add_argument("--yes", action="store_true", help="with --push: do not ask")
    options.add_argument("--list", action="store_true", help="list the data sets")
    options.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return options


def main(argv: Sequence[str]) -> int:
    """Converts from the command line; the exit code.

    Raises:
        UserError: Bad input, or with `--strict` anything amiss.
        ServiceError: With `--push`, network and server troubles.
    """
    options = parser().parse_args(argv)
    from ..data.convert import LAYOUTS, convert

    if options.list:
        rows = [
            {"name": x.name, "title": x.title, "task": x.task, "archives": list(x.archives)}
            for x in LAYOUTS.values()
        ]
        if options.json:
            print(json.dumps(rows, indent=2))
        else:
            for row in rows:
                print(f"{row['name']:<22}{row['task']:<14}{row['title']}")
        return 0
    if not options.name or not options.sources or not options.output:
        raise UserError(
            "Name a data set, its files, and a folder to write: NAME FILES --output DIR."
        )
    done = convert(
        options.name,
        options.sources,
        options.output,
        strict=options.strict,
        seed=options.seed,
        splits=options.splits,
        window=options.window,
        per_class=options.per_class,
        note=options.note,
    )
    for problem in done.problems[:20]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(done.problems) > 20:
        print(f"... {len(done.problems) - 20} more in report.json", file=sys.stderr)
    if options.json:
        told: dict[str, Any] = {**vars(done), "problems": [str(p) for p in done.problems]}
        print(json.dumps(told, indent=2))
    else:
        rows_told = ", ".join(f"{split} {count}" for split, count in done.rows.items())
        expected = f" of {done.expected}" if done.expected else ""
        print(f"{done.output}: {done.images}{expected} images; rows: {rows_told}")
        if not options.push:
            print(f"Next: rs-models check {done.output}")
    if options.push:
        from .push import main as push

        target = [options.output, "--repo-type", "dataset"]
        target += ["--repo-id", options.repo_id or Path(options.output).name]
        target += ["--private"] * options.private + ["--yes"] * options.yes
        return push(target)
    return 0
