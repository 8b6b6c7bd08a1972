"""`rs-models export`: a method's checkpoint becomes the native repository that users load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..settings import Options
from ..zoo import resolve, revision_of

_EPILOG = """examples:
  rs-models export outputs/quickstart/pretraining outputs/tov
  rs-models export outputs/quickstart/pretraining outputs/tov --no-timm
  rs-models export outputs/quickstart/export outputs/small --half

A run does this by itself. Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models export",
        description="Take the backbone out of a method's checkpoint, as a plain transformers and "
        "timm repository with its image processor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("source", help="folder or Hub id of a method's checkpoint")
    options.add_argument("output", help="folder to write")
    options.add_argument("--revision", help="commit or tag on the Hub")
    options.add_argument("--no-timm", action="store_true", help="leave timm's weights out")
    options.add_argument(
        "--half",
        action="store_true",
        help="float16 files that load in float32, without timm's weights; SOURCE may be an "
        "exported backbone too",
    )
    return options


def main(argv: Sequence[str]) -> int:
    """Exports a checkpoint; the exit code.

    Raises:
        UserError: No method there, no provenance, an output that exists.
    """
    options = parser().parse_args(argv)
    if Path(options.output).exists():
        raise UserError(f"{options.output} exists: choose another folder.")
    source = resolve(options.source)
    if Path(source, "pretraining").is_dir():
        source = str(Path(source, "pretraining"))
    if not options.half:
        return _export(source, options.output, options.revision, timm=not options.no_timm)
    from ..export.slim import slim
    from ..files import scratch

    if (Path(source) / "config.json").is_file() and not _is_method(source, options.revision):
        slim(source, options.output)
    else:
        with scratch("export") as folder:
            _export(source, str(folder / "whole"), options.revision, timm=False)
            slim(folder / "whole", options.output)
    print(f"{options.output}: float16 files that load in float32")
    return 0


def _is_method(source: str, revision: str | None) -> bool:
    from ..backbones.loading import read_config

    return str(read_config(source, revision).get("model_type")).startswith("rs_")


def _export(source: str, output: str, revision: str | None, *, timm: bool) -> int:
    from transformers import AutoModelForPreTraining

    from ..backbones.loading import load_weights, read_config
    from ..export import export

    revision = revision_of(source, revision)
    model_type = read_config(source, revision).get("model_type")
    if not str(model_type).startswith("rs_"):
        raise UserError(f"There is no method's checkpoint at {source}: it is a {model_type}.")
    method, _ = load_weights(
        AutoModelForPreTraining,
        source,
        revision,
        lacking="it is no whole checkpoint of a method",
    )
    record = getattr(method.config, "rs_models", None)
    if not record:
        raise UserError(
            f"{source} does not say where its weights come from (rs_models in config.json): it was "
            "written by hand or by an older version; run the training's last step again."
        )
    export(method, output, provenance=record, timm=timm)
    print(f"{output}: {type(method).__name__}'s backbone, ready for AutoModel")
    return 0
