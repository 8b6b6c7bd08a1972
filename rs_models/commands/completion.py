"""`rs-models completion`: a script that lets the shell complete commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..settings import Options

_EPILOG = """examples:
  eval "$(rs-models completion bash)"           # this shell; put the line into ~/.bashrc to keep it
  rs-models completion zsh > ~/.zfunc/_rs-models"""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models completion",
        description="Print a completion script for a shell.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return options


def main(argv: Sequence[str]) -> int:
    """Prints the script; the exit code."""
    import shtab

    from ..cli import whole_parser

    shell = parser().parse_args(argv).shell
    print(shtab.complete(whole_parser(), shell))
    return 0
