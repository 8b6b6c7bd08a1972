"""What a repository will hold, put together in a folder of its own and checked before a push."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..assets import asset, clone
from ..errors import UserError
from ..evaluation.results import Result, read_all
from ..export.places import DECODER, MODEL_FILES, decoder_of
from ..papers import PAPERS
from ..provenance import validate_provenance
from .card import MODELS, model_card
from .pages import RESULTS

# Formats that can run code when they are opened.
_CODE = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".joblib", ".npy")


def model_folder(source: str | os.PathLike[str], *, pretraining: bool = False) -> Path:
    """The folder with the weights: of a run, or the one given.

    Args:
        source: A run's folder (with `export/` and `pretraining/`, or of fine-tuning with `model/`),
            or one of those itself.
        pretraining: Whether the whole method is meant.

    Raises:
        UserError: There are no weights.
    """
    source = Path(source)
    part = source / ("pretraining" if pretraining else "export")
    if not pretraining and not part.is_dir() and (source / "finetune.yaml").is_file():
        part = source / "model"
    folder = part if part.is_dir() else source
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{source} holds no model: give a run's folder, its {part.name}/ folder, or any folder "
            "with config.json and model.safetensors."
        )
    return folder


def stage_model(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    repo_id: str,
    results: Sequence[Result],
    pretraining: bool = False,
    tag: str = "main",
) -> Path:
    """Copies a model's files and adds its licence and card.

    Args:
        source: As for `model_folder`.
        target: Empty folder.
        repo_id: Repository id that it will have.
        results: Measured results; the card shows those of this model.
        pretraining: Whether to stage the whole method instead of the backbone.
        tag: Version that the card's examples load.

    Returns:
        The target.

    Raises:
        UserError: A file that can run code or does not belong, incomplete provenance, weights that
            are not finite or would not load in float32, no results.
    """
    folder, target = model_folder(source, pretraining=pretraining), Path(target)
    decoder = None if pretraining else decoder_of(folder)
    places = [folder, *([decoder] if decoder else [])]
    files = [path for place in places for path in sorted(place.iterdir())]
    files = [path for path in files if not path.name.startswith(".")]
    for path in files:
        if path.suffix in _CODE:
            raise UserError(
                f"{path} can run code when it is opened and is never published: export the model "
                "to safetensors."
            )
        # A rendered card's, drawn again below, and the decoder's, whose files follow.
        if path.name in ("figures", DECODER) and path.is_dir():
            continue
        if not MODEL_FILES.fullmatch(path.name) and path.name not in ("README.md", "LICENSE"):
            raise UserError(f"{path} is no part of a model repository: move it out of the folder.")
    for place in places:
        _check_config(place, pretraining=pretraining)
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not any(path.name.startswith("model") for path in weights if path.parent == folder):
        raise UserError(f"{folder} has no model.safetensors: there is nothing to load.")
    for path in weights:
        check_weights(path)
    tuned = _is_tuned(folder)
    if tuned and not (folder / "README.md").is_file():
        raise UserError(f"{folder} has no README.md, which fine-tuning writes: run it again.")
    if tuned:
        pages = {"README.md": (folder / "README.md").read_bytes()}
    else:
        pages = model_card(
            _facts(source), results, repo_id=repo_id, pretraining=pretraining, tag=tag
        )
    for path in files:
        if MODEL_FILES.fullmatch(path.name):
            place = target / DECODER if path.parent == decoder else target
            place.mkdir(exist_ok=True)
            shutil.copyfile(path, place / path.name)
    shutil.copyfile(asset("LICENSE"), target / "LICENSE")
    for name, content in pages.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return target


def find_results(
    source: str | os.PathLike[str], given: str | os.PathLike[str] | None = None
) -> list[Result]:
    """The results that a model's card may show: those that were asked for, or all at hand.

    Args:
        source: A run's folder, or a model's.
        given: Folder of results files; None takes the run's own `results` and the repository's.

    Raises:
        UserError: The folder that was asked for is none, or there is none at all.
    """
    if given is not None:
        if not Path(given).is_dir():
            raise UserError(f"There is no folder {given} of results: name it (--results).")
        return read_all(given)
    root = Path(source).resolve()
    own = root.parent if root.name in ("export", "pretraining") else root
    places = [folder for folder in (Path(RESULTS), own / "results") if folder.is_dir()]
    if not places and (root / "config.json").is_file() and _is_tuned(root):
        return []  # its own card, which it brings, says what was measured
    if not places:
        raise UserError(
            f"{source} has no results and there is no folder {RESULTS}: measure the model with "
            "`rs-models evaluate`, and name the folder (--results)."
        )
    # The run's own come last and count: they were measured with its weights.
    newest = {result.key: result for folder in places for result in read_all(folder)}
    return list(newest.values())


def _facts(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Where a model's card takes its facts: for the clone's weights the fuller ones kept beside."""
    folder = Path(source).resolve()
    kept = clone() / MODELS / folder.name
    return kept if folder.is_relative_to(clone() / "hub") and kept.is_dir() else source


def _check_config(folder: Path, *, pretraining: bool) -> None:
    path, config = folder / "config.json", _config(folder)
    if "auto_map" in config:
        raise UserError(f"{path} asks for remote code (auto_map), which is never published.")
    if str(config.get("dtype", config.get("torch_dtype", "float32"))) != "float32":
        raise UserError(
            f"{path} says dtype {config.get('dtype')!r}, in which the weights would load: write "
            "float32."
        )
    is_method = str(config.get("model_type")).removeprefix("rs_") in PAPERS
    if pretraining and not is_method:
        raise UserError(f"{folder} holds a plain model and not a whole method.")
    if is_method and not pretraining:
        raise UserError(f"{folder} holds a whole method: push it with --pretraining.")
    if "finetuned" in config:  # its own card says what it comes from, which may be others' weights
        return
    if "rs_models" not in config:
        raise UserError(
            f"{path} does not say where the weights come from (key rs_models): export the model "
            "with `rs-models export`."
        )
    validate_provenance(config["rs_models"])


def _config(folder: Path) -> dict[str, Any]:
    """A model's settings.

    Raises:
        UserError: No JSON, or no object of settings.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): get it again.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not an object of settings: it is no model's.")
    return config


def _is_tuned(folder: Path) -> bool:
    """Whether fine-tuning made a model: its card is there and is not ours to render."""
    return "finetuned" in _config(folder)


def check_weights(path: Path) -> None:
    """Refuses a damaged file and weights that are not finite.

    Raises:
        UserError: Naming the file and the tensor.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():
                tensor = file.get_tensor(key)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise UserError(f"{path}: tensor {key} holds NaN or infinite values.")
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error


def check_folder(folder: str | os.PathLike[str], repo_type: str) -> dict[str, Any]:
    """Checks a data set's or a Space's folder; the metadata of its README.md.

    Raises:
        UserError: No README.md with YAML metadata, a data set with scripts or without data, a Space
            without its app.
    """
    import yaml

    folder = Path(folder)
    readme = folder / "README.md"
    if not readme.is_file():
        raise UserError(f"{folder} has no README.md: the Hub reads a repository's metadata there.")
    try:
        text = readme.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{readme} is not UTF-8 text: save it as such.") from error
    head, found, _ = text.removeprefix("---\n").partition("\n---")
    try:
        metadata = yaml.safe_load(head) if text.startswith("---\n") and found else None
    except yaml.YAMLError as error:
        raise UserError(f"{readme}: the metadata is not valid YAML: {error}") from error
    if not isinstance(metadata, dict):
        raise UserError(f"{readme} must begin with YAML metadata between two lines '---'.")
    if repo_type == "dataset":
        scripts = sorted(folder.rglob("*.py"))
        if scripts:
            raise UserError(f"{scripts[0]} is a script, and data sets hold none: remove it.")
        if not any(folder.rglob("*.parquet")):
            raise UserError(f"{folder} holds no Parquet file: make it with `convert-dataset`.")
    if repo_type == "space":
        app = str(metadata.get("app_file", "app.py"))
        if not (folder / app).is_file():
            raise UserError(f"{folder} has no {app}, which the Space would run.")
        if not metadata.get("sdk"):
            raise UserError(f"{readme} does not say the Space's sdk: add 'sdk: gradio'.")
    return metadata
