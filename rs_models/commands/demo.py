"""`rs-models demo`: one of our Spaces on this machine."""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
from collections.abc import Sequence
from pathlib import Path

from ..assets import asset
from ..errors import UserError
from ..settings import Options, Port

_EPILOG = """examples:
  rs-models demo scene-explorer --model outputs/quickstart/export
  rs-models demo compare --model outputs/a/export --model timm/resnet18.a1_in1k

Opens on http://127.0.0.1:7860 and runs without a network. Exit codes: 0 stopped, 2 bad input."""


def spaces() -> list[str]:
    """Names of the Spaces that there are."""
    return sorted(folder.parent.name for folder in asset("spaces").glob("*/app.py"))


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models demo",
        description=f"Start a demo here: {', '.join(spaces())}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("name", help=", ".join(spaces()))
    options.add_argument(
        "--model", action="append", default=[], help="folder or Hub id, several times for several"
    )
    options.add_argument("--data", help="labelled images to search: folder, Hub id or synthetic")
    options.add_argument("--port", type=Port, help="the first free one from 7860 on if left out")
    return options


def main(argv: Sequence[str]) -> int:
    """Starts a Space and waits until it is stopped.

    Raises:
        UserError: No Space of that name, or gradio is not installed.
    """
    options = parser().parse_args(argv)
    if options.name not in spaces():
        raise UserError(f"{options.name!r} is no demo: there are {', '.join(spaces())}.")
    if importlib.util.find_spec("gradio") is None:
        raise UserError('Demos need gradio: pip install "rs-models[demo]" first.')
    if options.model:
        os.environ["RS_MODELS_DEMO_MODELS"] = ",".join(options.model)
    if options.data:
        os.environ["RS_MODELS_DEMO_DATA"] = options.data
    if options.port:
        os.environ["GRADIO_SERVER_PORT"] = str(options.port)
    app = asset("spaces") / options.name / "app.py"
    print(f"{options.name}: starting; stop it with Ctrl-C", flush=True)
    runpy.run_path(str(Path(app)), run_name="__main__")
    return 0
