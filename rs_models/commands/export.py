"""`rs-models export`: a method's checkpoint becomes the native repository that users load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..settings import Options
from ..zoo import pinned_revision, resolve

_EPILOG = """examples:
  rs-models export outputs/quickstart/pretraining outputs/tov
  rs-models export rs/tov-resnet50-pretraining outputs/tov --no-timm

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
    return options


def main(argv: Sequence[str]) -> int:
    """Exports a checkpoint; the exit code.

    Raises:
        UserError: No method there, no provenance, an output that exists.
    """
    options = parser().parse_args(argv)
    from transformers import AutoModelForPreTraining

    from ..backbones.loading import load_weights, read_config
    from ..export import export

    if Path(options.output).exists():
        raise UserError(f"{options.output} exists: choose another folder.")
    source = resolve(options.source)
    revision = options.revision or pinned_revision(source)
    if Path(source, "pretraining").is_dir():
        source = str(Path(source, "pretraining"))
    model_type = read_config(source, revision).get("model_type")
    if not str(model_type).startswith("rs_"):
        raise UserError(f"There is no method's checkpoint at {source}: it is a {model_type}.")
    method, _ = load_weights(
        AutoModelForPreTraining,
        source,
        revision,
        lacking="it is no whole checkpoint of a method",
    )
    said = getattr(method.config, "rs_models", None)
    if not said:
        raise UserError(
            f"{source} does not say where its weights come from (rs_models in config.json): it was "
            "written by hand or by an older version; run the training's last step again."
        )
    export(method, options.output, provenance=said, timm=not options.no_timm)
    print(f"{options.output}: {type(method).__name__}'s backbone, ready for AutoModel")
    return 0
