"""The `rs-models` command: one name for what the package does from the shell."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .errors import UserError
from .settings import run_script


@dataclass(frozen=True)
class Command:
    """One command; its module in `commands` has its name, `main(argv)` and `parser()`.

    Attributes:
        what: What it does, in a few words.
        example: One call.
    """

    what: str
    example: str


# Group -> name -> command, in the order of the help.
GROUPS: dict[str, dict[str, Command]] = {
    "find": {
        "list": Command("models of the zoo", "list --method tov"),
        "info": Command("what a model is", "info outputs/quickstart/export"),
    },
    "make and measure": {
        "pretrain": Command("learn from unlabelled images", "pretrain --config quickstart"),
        "evaluate": Command("k-NN and few-label accuracy", "evaluate --model DIR --data.name DIR"),
        "finetune": Command(
            "a task from few labels",
            "finetune --task segmentation --model DIR --data.name DIR --labels 20",
        ),
        "study": Command("what each idea adds", "study --config study_small"),
        "predict": Command(
            "maps of whole scenes",
            "predict SCENE.tif --model DIR --output MAP.tif",
        ),
        "embed": Command(
            "features of many images as Parquet", "embed IMAGES --model DIR --output OUT"
        ),
        "export": Command("a method's backbone for AutoModel", "export RUN/pretraining OUT"),
        "onnx": Command("a model as ONNX", "onnx DIR --output MODEL.onnx"),
    },
    "label": {
        "search": Command("tiles that look alike", "search EMBEDDINGS --like TILE.tif"),
        "suggest": Command("which tiles to label next", "suggest EMBEDDINGS -n 20"),
        "classify": Command(
            "all tiles from a few labels",
            "classify EMBEDDINGS --labels LABELS.csv --output ANSWERS.csv",
        ),
    },
    "show": {
        "demo": Command("a Space on this machine", "demo scene-explorer --model DIR"),
    },
    "collect and convert": {
        "check": Command("what we see in data or a scene", "check DATA_OR_SCENE"),
        "windows": Command(
            "scenes and polygons for finetune",
            "windows SCENE.tif LABELS.gpkg --classes FIELD --output DIR",
        ),
        "collect": Command(
            "tiles from large scenes",
            "collect --scenes DIR --guide MAP.tif --n 2000 --output DIR",
        ),
        "resample": Command(
            "a balanced subset by features",
            "resample --data DIR --model DIR --n 5000 --output DIR",
        ),
        "convert-upstream": Command(
            "an authors' checkpoint",
            "convert-upstream FILE --method tov --output DIR",
        ),
        "convert-dataset": Command(
            "a data set as its owners give it",
            "convert-dataset aid AID.zip --output DIR",
        ),
    },
    "publish": {
        "card": Command("a model's card", "card RUN --output DIR"),
        "push": Command("a model, data set or Space to the Hub", "push RUN --dry-run"),
        "render": Command("tables of a page", "render README.md"),
    },
    "shell": {
        "completion": Command("complete commands", 'eval "$(rs-models completion bash)"'),
    },
}
COMMANDS: dict[str, Command] = {
    name: command for group in GROUPS.values() for name, command in group.items()
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code: 0 done, 1 failed, 2 bad input.

    Args:
        argv: The command and its arguments; None takes the process's.
    """
    return run_script(_run, list(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if argv else 2
    if argv[0] == "--version":
        from .version import __version__

        print(f"rs-models {__version__}")
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"Unknown command {name!r}{hint}; there are: {', '.join(COMMANDS)}.")
    return _module(name).main(arguments)


def help_text() -> str:
    """The commands, a line each, with an example."""
    width = max(map(len, COMMANDS))
    said = max(len(command.what) for command in COMMANDS.values())
    lines = ["usage: rs-models COMMAND ...   (rs-models COMMAND --help tells the rest)"]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        for name, command in commands.items():
            example = command.example
            shown = example if example.startswith('eval "') else f"rs-models {example}"
            lines.append(f"  {name:<{width}}  {command.what:<{said}}  {shown}")
    lines += ["", "Exit codes: 0 done, 1 failed (network, server, a dead run), 2 bad input."]
    return "\n".join(lines)


def whole_parser() -> argparse.ArgumentParser:
    """All commands with their options as one parser, for completion."""
    parser = argparse.ArgumentParser("rs-models", add_help=False)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--help", action="store_true")
    subparsers = parser.add_subparsers()
    for name, command in COMMANDS.items():
        module = _module(name)
        subparsers.add_parser(name, help=command.what, parents=[module.parser()], add_help=False)
    return parser


def _module(name: str) -> Any:
    return import_module(f".commands.{name.replace('-', '_')}", __package__)


if __name__ == "__main__":
    sys.exit(main())
