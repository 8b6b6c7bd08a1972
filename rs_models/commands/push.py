"""`rs-models push`: a run, a data set or a Space goes to the Hub after a look at the plan."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import scratch
from ..publish.staging import check_folder, find_results, stage_model
from ..publish.upload import Plan, plan, publish
from ..settings import Options
from ..version import __version__
from ..zoo import namespace, run_name

_EXAMPLES = """examples:
  rs-models push outputs/tov-resnet18 --dry-run
  rs-models push outputs/tov-resnet18 --collection "rs_models zoo"
  rs-models push outputs/tov-resnet18 --pretraining --private
  rs-models push converted/uc-merced --repo-type dataset --namespace my-lab
  rs-models push spaces/compare --repo-type space

The plan (endpoint, repository, files) is shown before anything is sent. The token comes from
`hf auth login` or HF_TOKEN and is never an argument. Exit codes: 0 done, 1 network or server, 2 bad
input."""


def main(argv: Sequence[str]) -> int:
    """Publishes a folder from the command line; the exit code.

    Raises:
        UserError: Bad input.
        ServiceError: Network and server troubles.
    """
    for argument in argv:
        if argument.removeprefix("--token=").startswith("hf_") or argument.startswith("--token"):
            raise UserError(
                "A token must not be an argument, where others can read it: run `hf auth login`, "
                "or set HF_TOKEN."
            )
    options = parser().parse_args(argv)
    folder = Path(options.folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} to publish.")
    with scratch("rs_models-push") as staging:
        return _push(folder, options, staging)


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models push",
        description="Publish a model, a data set or a Space on the Hub: one commit, then the tag.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("folder", help="a run's folder, an exported model, a data set, a Space")
    options.add_argument("--repo-id", help="where to (default: namespace and the folder's name)")
    options.add_argument("--namespace", help="user or organisation (default: RS_MODELS_NAMESPACE)")
    options.add_argument("--repo-type", choices=("model", "dataset", "space"), default="model")
    options.add_argument(
        "--results", help="folder (default: the run's own and model_cards/results)"
    )
    options.add_argument(
        "--tag", default=f"v{__version__}", help="version to publish as (default: %(default)s)"
    )
    options.add_argument("--pretraining", action="store_true", help="the whole method")
    options.add_argument("--private", action="store_true", help="make the repository private")
    options.add_argument("--create-pr", action="store_true", help="propose the change only")
    options.add_argument("--collection", metavar="TITLE", help="add the repository to a collection")
    options.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    options.add_argument("--yes", action="store_true", help="do not ask")
    options.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return options


def _push(folder: Path, options: argparse.Namespace, staging: Path) -> int:
    repo_id, staged, sdk = repository_id(folder, options), folder, None
    if options.repo_type == "model":
        staged = stage_model(
            folder,
            staging,
            repo_id=repo_id,
            results=find_results(folder, options.results),
            pretraining=options.pretraining,
            tag=options.tag,
        )
    else:
        sdk = check_folder(folder, options.repo_type).get("sdk")
    tag = None if options.repo_type == "space" or options.create_pr else options.tag
    settings: dict[str, Any] = {"repo_type": options.repo_type, "private": options.private or None}
    found = plan(staged, repo_id, tag=tag, preview=options.dry_run, **settings)
    print(found.text(), file=sys.stderr)
    if options.dry_run:
        _tell(options, dry_run=True, **_planned(found))
        return 0
    if not options.yes:
        _ask(found)
    done = publish(
        staged,
        repo_id,
        tag=tag,
        create_pr=options.create_pr,
        collection=options.collection,
        space_sdk=sdk,
        **settings,
    )
    what = "published" if done.changed else "up to date already"
    if not options.json:
        print(f"{done.url}: {what}, commit {done.commit[:12]}" + (f", tag {tag}" if tag else ""))
    _tell(options, **dataclasses.asdict(done))
    return 0


def repository_id(folder: Path, options: argparse.Namespace) -> str:
    """Where a folder goes: what was asked for, or the namespace and the folder's name.

    Raises:
        UserError: A name that is none, or two namespaces.
    """
    given = options.repo_id
    if given is None:
        is_model = options.repo_type == "model"
        given = run_name(folder) if is_model else folder.resolve().name
        if options.pretraining:
            given += "-pretraining"
    if "/" not in given:
        given = f"{options.namespace or namespace()}/{given}"
    elif options.namespace and not given.startswith(f"{options.namespace}/"):
        raise UserError(f"--repo-id {given} is not under --namespace {options.namespace}.")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}", given):
        raise UserError(
            f"{given!r} is no repository name: use letters, digits, '-', '_' and '.', as in "
            "--repo-id rs/tov-resnet50."
        )
    return given


def _ask(found: Plan) -> None:
    if not sys.stdin.isatty():
        raise UserError("Nobody is there to confirm this plan: run it with --yes.")
    if input(f"Publish this to {found.endpoint}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was sent.")


def _planned(found: Plan) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "changed": found.changed}


def _tell(options: argparse.Namespace, **outcome: Any) -> None:
    if options.json:
        print(json.dumps(outcome, indent=2))
