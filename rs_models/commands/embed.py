"""`rs-models embed`: the features of many images as a Parquet data set."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence

from ..errors import UserError
from ..evaluation.embed import SHARD_ROWS, embed
from ..evaluation.shards import DTYPES
from ..settings import Count, Options, Side, duration

_EPILOG = """examples:
  rs-models embed path/to/tiles --model rs/rsisc-resnet18 --output embeddings
  rs-models embed timm/eurosat-rgb --split test --model outputs/run/export --output embeddings
  accelerate launch --num_processes 4 -m rs_models.cli embed path/to/tiles --model DIR --output OUT

Started again after a stop, it goes on where it was; files that were added to the folder since are
embedded behind the others. Open the result with datasets.load_dataset("embeddings").

Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models embed",
        description="Write the features of every image of a data set to Parquet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "source", help="folder of images, Parquet, GeoTIFF tiles, a scene, or a Hub id"
    )
    options.add_argument("--model", required=True, help="folder, Hub id, zoo or timm name")
    options.add_argument("--output", required=True, help="folder to write")
    options.add_argument("--split", default="train")
    options.add_argument("--revision", help="commit or tag of the data set")
    options.add_argument("--batch-size", type=Count, default=64)
    options.add_argument("--size", type=Side, help="pixels (default: the model's training size)")
    options.add_argument("--dtype", choices=DTYPES, default="float32")
    options.add_argument("--columns", nargs="*", help="to copy (default: all that hold no pixels)")
    options.add_argument("--shard-rows", type=Count, default=SHARD_ROWS)
    options.add_argument(
        "--stages",
        action="store_true",
        help="features of all stages at two sizes, which tell more with few labels",
    )
    options.add_argument("--strict", action="store_true", help="stop at a corrupt image")
    options.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return options


def main(argv: Sequence[str]) -> int:
    """Embeds from the command line; the exit code.

    Raises:
        UserError: As `embed`, and counts that are not above 0.
    """
    options = parser().parse_args(argv)
    for name in ("batch_size", "size", "shard_rows"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} should be 1 or more.")
    settings = {k: v for k, v in vars(options).items() if k not in ("source", "model", "output")}
    as_json = settings.pop("json")
    started = time.monotonic()
    done = embed(options.source, options.model, options.output, **settings)
    from ..evaluation.processes import processes

    if processes().is_main_process:
        if as_json:
            print(json.dumps(dataclasses.asdict(done), indent=2))
        else:
            left = f", {done.skipped} left out" if done.skipped else ""
            took = duration(time.monotonic() - started)
            shards = f"{done.shards} shard{'' if done.shards == 1 else 's'}"
            print(f"{done.output}: {done.rows} embeddings in {shards}, {took}{left}")
            print(
                f"Next: rs-models suggest {done.output} -n 20 --output labels.csv --sheet next.png"
            )
    return 0
