"""`rs-models list`: the models of the zoo and those in the local hub folder."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..papers import PAPERS
from ..settings import Options
from ..zoo import ZOO, list_models, local_repository

_EPILOG = """examples:
  rs-models list
  rs-models list "tov*"
  rs-models list --method tov --task detection
  rs-models list --bands red,green,blue,nir --json

Weights that lie in the clone's hub/ or in RS_MODELS_HUB_DIR are listed with their folder.
Exit codes: 0 done, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models list",
        description="List the models of the zoo: name, method, backbone, data, where they are.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("name", nargs="?", help="of the models, * and ? stand for any: 'tov*'")
    options.add_argument("--method", help=", ".join(PAPERS))
    options.add_argument(
        "--task", help="feature-extraction, classification, segmentation, detection"
    )
    options.add_argument("--bands", help="bands that you have: a sensor, or names with commas")
    options.add_argument("--published", action="store_true", help="only those on the Hub")
    options.add_argument("--json", action="store_true", help="print JSON")
    return options


def main(argv: Sequence[str]) -> int:
    """Lists models; the exit code.

    Raises:
        UserError: A method, task or band that is none.
    """
    options = parser().parse_args(argv)
    bands = options.bands.split(",") if options.bands and "," in options.bands else options.bands
    models = list_models(
        options.method, options.task, bands, published=True if options.published else None
    )
    rows = [
        {**dataclasses.asdict(model), "repo_id": model.repo_id, "tasks": model.tasks}
        for model in models
    ]
    for row in rows:
        folder = local_repository(str(row["repo_id"]))
        train = f"train it: --config {row['recipe'][:-5]}"
        row["where"] = "Hub" if row["revision"] else str(_shown(folder)) if folder else train
    if not (options.published or options.task or options.bands):
        listed = {row["repo_id"] for row in rows}
        rows += [row for row in _local(options.method) if row["repo_id"] not in listed]
    if options.name:
        rows = _named(options.name, rows)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    head = ("name", "method", "backbone", "data", "where")
    lines = [head, *([str(row[key]) for key in head] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    return 0


def _named(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The models whose name or id fits a pattern.

    Raises:
        UserError: None does; the sentence says which was perhaps meant.
    """
    fitting = [
        row for row in rows if fnmatch(row["name"], name) or fnmatch(str(row["repo_id"]), name)
    ]
    if not fitting:
        close = difflib.get_close_matches(name, [row["name"] for row in rows], n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"No model is called {name}{meant}; rs-models list shows all.")
    return fitting


def _shown(folder: Path) -> Path:
    """A folder as a command would name it here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _local(method: str | None) -> list[dict[str, Any]]:
    """Models in `RS_MODELS_HUB_DIR` by what their config.json says."""
    root = os.environ.get("RS_MODELS_HUB_DIR")
    rows = []
    models = {model.repo_id: model for model in ZOO}
    for path in sorted(Path(root).expanduser().glob("*/*/config.json")) if root else ():
        repo_id = "/".join(path.parent.parts[-2:])
        config = json.loads(path.read_text(encoding="utf-8"))
        record = config.get("rs_models", {})
        if path.parts[-3] == "datasets" or method not in (None, record.get("method")):
            continue
        data = record.get("data") or "-"
        rows.append(
            {
                "name": repo_id,
                "repo_id": repo_id,
                "method": record.get("method") or "-",
                "backbone": models[repo_id].backbone if repo_id in models else config["model_type"],
                "data": data if isinstance(data, str) else ", ".join(data),
                "bands": record.get("bands", []),
                "where": str(path.parent),
            }
        )
    return rows
