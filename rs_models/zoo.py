"""The models that we publish, as data, and where they are found."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .assets import clone
from .bands import SENSORS, resolve_bands
from .errors import UserError
from .papers import PAPERS

# Small models travel with the source tree, laid out as on the Hub.
CLONE = clone() / "hub"
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # no part of it leads out of a folder
# Folders of a run that hold a model; it is called by the run and not by them.
PARTS_OF_A_RUN = ("export", "pretraining", "segmentation")
# How results call a network that was tuned with its pretrained decoder.
WITH_DECODER = "-with-decoder"

# What a native backbone is loaded for; every head is transformers' or ours.
TASKS = ("feature-extraction", "classification", "segmentation", "detection")
# What the families of backbones serve for, by how their names begin. Feature pyramids need stages.
FAMILY_TASKS = {
    "resnet": TASKS,
    "swin": TASKS,
    "convnext": TASKS,
    "vit": TASKS[:3],
    "dinov2": TASKS[:3],
}
_RESISC, _AID = "timm/resisc45", "aid96"
# `data.mixture` makes one set of them, with every fourth image of EuroSAT, or every third.
_AERIAL = "aid96+resisc14_96+eurosat64+ucmerced128+rsscn7"
_OPEN = "eurosat64+ucmerced128+czech_ortho256+dubai256+naip_trees"  # no term that forbids anything


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo.

    Attributes:
        name: `<method>-<backbone>[-<data>]`, without namespace.
        method: Method that trained it, a key of `papers.PAPERS`.
        backbone: Name of the architecture, as for `backbones.build`.
        recipe: Config that trains it, in `training/configs`.
        data: What it learns from.
        bands: Names, in order.
        revision: Tag or commit that is loaded where nobody asks for another; None where the model
            is not on the Hub yet.
    """

    name: str
    method: str
    backbone: str
    recipe: str
    data: str
    bands: tuple[str, ...] = SENSORS["rgb"]
    revision: str | None = None

    @property
    def published(self) -> bool:
        """Whether the weights are on the Hub."""
        return self.revision is not None

    @property
    def repo_id(self) -> str:
        """Id of the backbone's repository."""
        return f"{namespace()}/{self.name}"

    @property
    def pretraining_id(self) -> str:
        """Id of the whole method's repository."""
        return f"{self.repo_id}-pretraining"

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be loaded for."""
        return next(
            tasks for family, tasks in FAMILY_TASKS.items() if self.backbone.startswith(family)
        )


ZOO: tuple[ZooModel, ...] = (
    ZooModel("rsisc-resnet50", "rsisc", "resnet50", "rsisc_resnet50.yaml", _RESISC),
    ZooModel("false-resnet50", "false", "resnet50", "false_resnet50.yaml", _RESISC),
    ZooModel("sticl-resnet50", "sticl", "resnet50", "sticl_resnet50.yaml", _RESISC),
    ZooModel("glcnet-resnet50", "glcnet", "resnet50", "glcnet_resnet50.yaml", _RESISC),
    ZooModel("last-swin-tiny", "last", "swin_tiny", "last_swin_tiny.yaml", _RESISC),
    ZooModel("rsisc-resnet-mini-aid", "rsisc", "resnet_mini", "rsisc_mini_aid.yaml", _AID),
    ZooModel("glcnet-resnet-mini-aid", "glcnet", "resnet_mini", "glcnet_mini_aid.yaml", _AID),
    ZooModel("last-vit-mini-aid", "last", "vit_mini_patch8", "last_vit_mini_aid.yaml", _AID),
    ZooModel("last-vit-mini", "last", "vit_mini_patch8", "last_vit_mini.yaml", _AERIAL),
    ZooModel("rsisc-resnet18", "rsisc", "resnet18", "rsisc_resnet18.yaml", _AERIAL),
    ZooModel("sticl-resnet18", "sticl", "resnet18", "sticl_resnet18.yaml", _AERIAL),
    ZooModel("false-resnet18", "false", "resnet18", "false_resnet18.yaml", _AERIAL),
    ZooModel("rsisc-resnet18-open", "rsisc", "resnet18", "rsisc_resnet18_open.yaml", _OPEN),
    ZooModel("tov-resnet50", "tov", "resnet50", "tov_resnet50_cores.yaml", _AERIAL),
)


def list_models(
    method: str | None = None,
    task: str | None = None,
    bands: str | Sequence[str] | None = None,
    published: bool | None = None,
) -> list[ZooModel]:
    """The models of the zoo that fit.

    Args:
        method: A key of `papers.PAPERS`, such as "tov".
        task: One of `TASKS`.
        bands: Bands that you have, by sensor or name; models that need no others.
        published: Whether the weights are on the Hub.

    Raises:
        UserError: A method, task or band that is none.
    """
    for what, value, known in (("method", method, tuple(PAPERS)), ("task", task, TASKS)):
        if value is not None and value not in known:
            raise UserError(f"{value!r} is no {what}: there are {', '.join(known)}.")
    have = set(resolve_bands(bands)) if bands is not None else None
    return [
        model
        for model in ZOO
        if method in (None, model.method)
        and (task is None or task in model.tasks)
        and (have is None or set(model.bands) <= have)
        and published in (None, model.published)
    ]


def namespace() -> str:
    """The organisation that our models are published under: `RS_MODELS_NAMESPACE`, or "rs"."""
    return os.environ.get("RS_MODELS_NAMESPACE") or "rs"


def method_of(name: str) -> str | None:
    """The method that trained one of our models, by its name `<method>-<backbone>[-<data>]`.

    Args:
        name: With or without organisation.

    Returns:
        A key of `PAPERS`; None for any other name.
    """
    method, dash, _ = name.rpartition("/")[2].partition("-")
    return method if dash and method in PAPERS else None


def resolve(name: str | os.PathLike[str]) -> str:
    """Where to load a model from: a folder that exists, or a Hub id.

    Args:
        name: A folder, "<org>/<name>", or one of our own names without organisation
            ("tov-resnet50"), which gets `namespace()`.

    Returns:
        The first of: `name` itself where it is a folder, `RS_MODELS_HUB_DIR/<org>/<name>` where
        that is one, a folder in it ("rs/glcnet-resnet50/segmentation"), the Hub id.
    """
    text = os.fspath(name)
    if os.path.isdir(os.path.expanduser(text)):  # unlike Path's, False for names that are too long
        return str(Path(text).expanduser())
    if "/" not in text and method_of(text):
        text = f"{namespace()}/{text}"
    whole, _, part = text.rpartition("/")
    repository = local_repository(whole) if part in PARTS_OF_A_RUN else None
    if repository is not None and (repository / part).is_dir():
        return str(repository / part)
    return str(local_repository(text) or text)


def check_id(source: str) -> None:
    """Refuses what is neither a folder nor a Hub id.

    Args:
        source: As `resolve` gives it.

    Raises:
        UserError: Naming it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if os.path.isdir(source):
        return
    try:
        validate_repo_id(source)
    except HFValidationError:
        raise UserError(
            f"No model at '{source}': there is no such folder, and it is no Hub id (owner/name)."
        ) from None


def pinned_revision(source: str) -> str | None:
    """The revision that we vouch for of one of our own models; None for anything else.

    Args:
        source: A Hub id, as `resolve` gives it.
    """
    for model in ZOO:
        if source in (model.repo_id, model.pretraining_id):
            return model.revision
    return None


def revision_of(source: str, asked: str | None) -> str | None:
    """The revision to load: what was asked for, else the one that we vouch for.

    Args:
        source: A folder or a Hub id, as `resolve` gives it.
        asked: Branch, tag or commit.

    Raises:
        UserError: A revision of a folder, which holds what it holds.
    """
    if asked is not None and os.path.isdir(source):
        raise UserError(f"{source} is a folder, which has no revisions: leave the revision out.")
    return asked or pinned_revision(source)


def local_repository(repo_id: str, *, datasets: bool = False) -> Path | None:
    """Where a Hub repository lies in the local hub folder.

    Args:
        repo_id: "<org>/<name>".
        datasets: Whether it is a data set, which may also lie under `datasets/`, as in the Hub's
            addresses.

    Returns:
        `RS_MODELS_HUB_DIR/<org>/<name>` where that is a folder, else `hub/<org>/<name>` of the
        clone that this package runs from; None where neither is there.
    """
    if not _ID.fullmatch(repo_id):
        return None
    places = (f"datasets/{repo_id}", repo_id) if datasets else (repo_id,)
    root = os.environ.get("RS_MODELS_HUB_DIR")
    roots = [Path(root).expanduser()] if root else []
    folders = (here / place for here in (*roots, CLONE) for place in places)
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def run_name(source: str | os.PathLike[str]) -> str:
    """What a model is called in records: a Hub id as it is, a folder by its own name.

    What a run keeps in `export`, `pretraining` or `segmentation` is called by the run.

    Args:
        source: Id, or folder.

    Example:
        >>> run_name("rs/tov-resnet50")
        'rs/tov-resnet50'
    """
    folder = Path(source)
    if not folder.is_dir():
        return str(source)
    folder = folder.resolve()
    return folder.parent.name if folder.name in PARTS_OF_A_RUN else folder.name


def cached_commit(repo_id: str, revision: str | None = None) -> str | None:
    """The commit that a model was just loaded at, by the clients' cache; asks no server.

    Args:
        repo_id: "<org>/<name>".
        revision: Revision that was asked for.

    Returns:
        40 hex digits; None for what is not in the cache.
    """
    from huggingface_hub import try_to_load_from_cache

    if repo_id.count("/") != 1 or Path(repo_id).is_dir():
        return None
    path = try_to_load_from_cache(repo_id, "config.json", revision=revision or "main")
    return Path(path).parent.name if isinstance(path, str) else None
