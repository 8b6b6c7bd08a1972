"""`rs-models convert-upstream`: an authors' checkpoint becomes a native repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..convert_upstream.layouts import UPSTREAM
from ..settings import Count, Finite, Options, Side, one_line


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models convert-upstream",
        description="The authors' released checkpoint -> a native transformers and timm model.",
    )
    options.add_argument("file", help="torch.save file (any suffix) or .safetensors")
    options.add_argument("--output", required=True, help="folder to write")
    options.add_argument("--method", choices=UPSTREAM, help="where the keys do not tell it")
    options.add_argument("--bands", help="of the first convolution (default rgb, GLCNet's 4: rgbn)")
    options.add_argument("--data", help="training set, where you know it")
    options.add_argument("--epochs", type=Count, help="of the training (default: the papers')")
    options.add_argument(
        "--train-size", type=Side, help="side of the training images (default 224)"
    )
    options.add_argument(
        "--value-range",
        nargs=2,
        type=Finite,
        metavar=("LOW", "HIGH"),
        help="stored values of black and full scale (default 0 255)",
    )
    options.add_argument("--heads", type=Count, help="attention heads of a ViT of unusual width")
    options.add_argument("--strict", action="store_true", help="refuse keys that are not expected")
    return options


def main(argv: Sequence[str]) -> int:
    """Converts from the command line; the exit code (1: the written files failed their check).

    Raises:
        UserError: As `convert`.
    """
    options = vars(parser().parse_args(argv))
    from ..convert_upstream import convert

    options["value_range"] = tuple(options["value_range"]) if options["value_range"] else None
    try:
        print(convert(options.pop("file"), options.pop("output"), **options).report())
    except RuntimeError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0
