"""`rs-models check`: what the product sees in data or a scene."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from ..errors import UserError
from ..settings import Options
from ..settings.reading import plain, yaml_value

_EPILOG = """examples:
  rs-models check my_images/
  rs-models check masks.parquet --mask-values '{0: 0, 255: 1}'
  rs-models check scene.tif
  rs-models check labels.gpkg

Nothing is written. Exit codes: 0 nothing is amiss, 1 network or server, 2 problems."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models check",
        description="Say what is in data or a scene: splits, classes, bands, values, what is left "
        "out and why.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("data", help="folder, Parquet file, Hub id, a raster, or a vector file")
    options.add_argument("--revision", help="commit, tag or branch of a Hub data set")
    options.add_argument("--bands", help="names of the bands, where the data does not tell")
    options.add_argument("--columns", help="our column names to the data's: '{label: class}'")
    options.add_argument("--mask-values", help="stored values to class numbers: '{0: 0, 255: 1}'")
    options.add_argument(
        "--box-format", choices=("xywh", "xyxy"), default="xywh", help="of four numbers of a box"
    )
    options.add_argument("--json", action="store_true", help="print the report as JSON")
    return options


def main(argv: Sequence[str]) -> int:
    """Looks from the command line; the exit code.

    Raises:
        UserError: Nothing that could be looked at.
        ServiceError: Network and server troubles.
    """
    options = parser().parse_args(argv)
    from ..data.check import check

    report = check(
        options.data,
        revision=options.revision,
        bands=options.bands,
        columns=_mapping(options.columns, "--columns"),
        mask_values=_mapping(options.mask_values, "--mask-values"),
        box_format=options.box_format,
    )
    print(json.dumps(dataclasses.asdict(report), indent=2) if options.json else report.text())
    return 2 if report.problems else 0


def _mapping(text: str | None, option: str) -> dict | None:
    if text is None:
        return None
    value = plain(yaml_value(option, text))
    if not isinstance(value, dict):
        raise UserError(f"{option} {text} should be a mapping, as in '{{0: 0, 255: 1}}'.")
    return value
