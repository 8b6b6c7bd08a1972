"""`rs-models onnx`: a backbone, classifier or segmentation network as an ONNX file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import UserError
from ..settings import Options, Side

_EPILOG = """examples:
  rs-models onnx rs/rsisc-resnet18 --output model.onnx
  rs-models onnx outputs/finetune/model --output roads.onnx

The file takes normalised images and says in its metadata how they are normalised. It is compared
with torch by onnxruntime before it is kept. Exit codes: 0 done, 1 failed, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models onnx",
        description="Write a backbone, classifier or segmentation network as ONNX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("source", help="folder, Hub id or timm name")
    options.add_argument("--output", required=True, help="file to write, .onnx")
    options.add_argument(
        "--size", type=Side, help="pixels; a Swin's or UperNet's file is for one size"
    )
    options.add_argument("--revision", help="commit or tag of a model on the Hub")
    return options


def main(argv: Sequence[str]) -> int:
    """Exports from the command line; the exit code.

    Raises:
        UserError: As `export_onnx`, and an output that is no .onnx file.
    """
    options = parser().parse_args(argv)
    from ..export.onnx import export_onnx

    if not options.output.endswith(".onnx"):
        raise UserError(f"--output {options.output} should end in .onnx.")
    done = export_onnx(options.source, options.output, size=options.size, revision=options.revision)
    size = f"images of {done.size[0]} x {done.size[1]} pixels" if done.size else "any image size"
    print(
        f"{done.path}: {', '.join(done.outputs)}, any batch, {size}; within {done.difference:.1g} "
        "of torch"
    )
    return 0
