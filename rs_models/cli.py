"""The `rs-models` command: one name for what the package does from the shell."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from .errors import UserError
from .settings import run_script

# Command -> (module whose `main(argv)` runs it, what it does). Modules are imported when they run.
COMMANDS: dict[str, tuple[str, str]] = {
    "convert-upstream": ("convert_upstream", "an authors' checkpoint becomes a native repository"),
    "render": ("pages", "render the results, methods and citations of a page"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 bad input.

    Args:
        argv: The command and its arguments; None takes the process's.
    """
    return run_script(_run, list(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0 if argv else 2
    name, *arguments = argv
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"unknown command {name!r}{hint}; there are: {', '.join(COMMANDS)}")
    module = import_module(f".{COMMANDS[name][0]}", __package__)
    return module.main(arguments)


def help_text() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rs-models COMMAND ...   (rs-models COMMAND --help tells its arguments)",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
