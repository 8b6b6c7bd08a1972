"""`rs-models info`: what a model is, read from its small files; no weights are loaded."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ServiceError, UserError, http_error, load_error
from ..settings import Options
from ..zoo import ZOO, check_id, resolve, revision_of, run_name

_EPILOG = """examples:
  rs-models info outputs/quickstart/export
  rs-models info rs/rsisc-resnet18 --json
  rs-models info rsisc-resnet18

Exit codes: 0 done, 1 network or server, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models info",
        description="Tell what a model is: architecture, bands, origin, files, results.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("model", help="a folder, a run's folder, a Hub id, or a name of the zoo")
    options.add_argument("--revision", help="commit or tag on the Hub")
    options.add_argument("--results", default="model_cards/results", help="folder of results files")
    options.add_argument("--json", action="store_true", help="print JSON")
    return options


def main(argv: Sequence[str]) -> int:
    """Tells what a model is; the exit code.

    Raises:
        UserError: No model by that name.
        ServiceError: Network and server troubles.
    """
    options = parser().parse_args(argv)
    facts = describe(options.model, options.revision)
    results = Path(options.results)
    if results.is_dir():
        from ..evaluation.results import read_all

        name = facts["name"].rpartition("/")[2]
        facts["results"] = {
            f"{result.data} {result.protocol}": round(result.mean, 1)
            for result in read_all(results)
            if result.model.rpartition("/")[2] == name
        }
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, content in value.items():
                print(f"  {inner}: {_text(content)}")
        else:
            print(f"{key}: {_text(value)}")
    return 0


def describe(model: str, revision: str | None = None) -> dict[str, Any]:
    """What is known of a model.

    Args:
        model: A folder, a run's folder, a Hub id, or a name of the zoo.
        revision: Commit or tag on the Hub.

    Returns:
        `name`, `where`, `architecture`, `parameters` (numbers in the safetensors files), `origin`
        (the `rs_models` dict), `files` (name -> bytes).

    Raises:
        UserError: No model by that name.
        ServiceError: Network and server troubles.
    """
    source = resolve(model.removeprefix("hf-hub:"))
    folder, revision = Path(source), revision_of(source, revision)
    if os.path.isdir(source):
        part = folder / "export" if (folder / "export").is_dir() else folder
        return _of_folder(part)
    if "/" not in source:
        close = difflib.get_close_matches(model, [known.name for known in ZOO], n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"There is no folder {model}, and it is no Hub id (owner/name){meant}.")
    check_id(source)
    try:
        return _of_hub(source, revision)
    except UserError as error:
        ours = (m for m in ZOO if source in (m.repo_id, m.pretraining_id) and not m.published)
        zoo = next(ours, None)
        if zoo is None:
            raise
        raise UserError(
            f"{source} is not on the Hub yet: train it with 'rs-models pretrain --config "
            f"{zoo.recipe.removesuffix('.yaml')}', or set RS_MODELS_HUB_DIR to where it lies."
        ) from error


def _of_folder(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no model: there is no config.json.")
    config = _settings(path.read_bytes(), str(path))
    files = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    weights = [folder / name for name in files if Path(name).match("model*.safetensors")]
    count = sum(map(_parameters, weights))
    return _facts(run_name(folder), str(folder), config, count, files)


def _of_hub(repo_id: str, revision: str | None) -> dict[str, Any]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import SafetensorsParsingError

    from ..data.hub_faults import again

    # A body that is cut short, that is a page or that was flipped on its way is the server's.
    spoilt = (ValueError, LookupError, TypeError, SafetensorsParsingError)
    try:
        api = HfApi()
        info = again(lambda: api.model_info(repo_id, revision=revision, files_metadata=True))
        config = _settings(
            Path(hf_hub_download(repo_id, "config.json", revision=info.sha)).read_bytes(),
            f"config.json of {repo_id}",
            ServiceError,
        )
        files = {entry.rfilename: entry.size for entry in info.siblings or []}
        count = None
        if "model.safetensors" in files:
            header = api.parse_safetensors_file_metadata(
                repo_id, "model.safetensors", revision=info.sha
            )
            count = sum(header.parameter_count.values())
    except (ServiceError, UserError):
        raise
    except OSError as error:
        raise load_error(f"Reading {repo_id} failed", error) from error
    except http_error() as error:
        raise load_error(f"Reading {repo_id} failed", error) from error
    except spoilt as error:
        raise ServiceError(
            f"Reading {repo_id} failed: the server's answer is not what the Hub answers "
            f"({type(error).__name__}); check HF_ENDPOINT and try again later."
        ) from error
    return _facts(repo_id, f"Hub, revision {info.sha}", config, count, files)


def _settings(
    content: bytes, where: str, kind: type[UserError] | type[ServiceError] = UserError
) -> dict[str, Any]:
    """The settings in a config.json; `kind` is what is raised where it holds none."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise kind(f"{where} is not JSON ({type(error).__name__}): get it again.") from error
    if not isinstance(config, dict):
        raise kind(f"{where} is not an object of settings: it is no model's.")
    return config


def _facts(
    name: str, where: str, config: dict[str, Any], count: int | None, files: dict[str, Any]
) -> dict[str, Any]:
    classes = config.get("architectures") or [config.get("model_type")]
    return {
        "name": name,
        "where": where,
        "architecture": classes[0] if isinstance(classes, list) and classes else str(classes),
        "parameters": count,
        "origin": config.get("rs_models") or {},
        "files": files,
    }


def _parameters(path: Path) -> int:
    """How many numbers a safetensors file holds, by its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): get it again."
        ) from error


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
