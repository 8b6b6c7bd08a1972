"""From settings to the parts of a run: data, method, provenance, the k-NN beside it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .. import backbones
from ..assets import clone
from ..bands import band_statistics, default_value_range, resolve_bands
from ..data import ImageCache, build_cache, load, resolve_revision
from ..data.names import data_name
from ..errors import UserError
from ..methods import METHODS, method_classes
from ..methods.base import SslModel
from ..version import __version__
from ..zoo import resolve
from .batches import CachedBatches
from .config import RunConfig

Provenance = dict[str, Any]
# Fields of a method's config that the run's other settings and the data decide.
FROM_THE_RUN = {
    *("backbone_config", "bands", "value_range", "image_mean", "image_std", "image_size"),
}


@dataclass
class DataInfo:
    """What the method's config takes from the data."""

    value_range: tuple[float, float]
    image_mean: list[float]
    image_std: list[float]


def build_feed(config: RunConfig, accelerator: Accelerator) -> tuple[Any, DataInfo]:
    """The run's batches, and the statistics of its images.

    Raises:
        UserError: Whatever is wrong with the data, before any training.
    """
    data, bands = config.data, resolve_bands(config.bands)
    if data.streaming:
        return streamed_feed(config, accelerator)
    with accelerator.main_process_first():  # the others find the cache built
        rows = load(
            data.name,
            data.split,
            bands=bands,
            revision=data.revision,
            columns=data.columns,
            annotations=False,
        )
        cache = build_cache(
            rows,
            bands=bands,
            image_size=data.image_size,
            cache_dir=data.cache_dir,
            strict=data.strict,
            progress=accelerator.is_main_process,
        )
    if cache.skipped:
        row, reason = cache.skipped[0]
        accelerator.print(f"skipped {len(cache.skipped)} images, the first in row {row}: {reason}")
    chosen = np.arange(len(cache))
    if data.limit is not None and data.limit < len(cache):
        generator = np.random.default_rng(config.seed)
        chosen = np.sort(generator.permutation(len(cache))[: data.limit])
    guidance = None
    if data.sampling == "class_balanced":
        guidance = column_numbers(cache, rows, "guidance", data.guidance)
    places = None
    if data.place is not None:
        places = column_numbers(cache, rows, "place", data.place)
    feed = CachedBatches(
        cache,
        chosen,
        guidance=guidance,
        places=places,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
        device=accelerator.device,
        seed=config.seed,
    )
    return feed, data_info(config, cache.images, cache.bands, cache.value_range)


def streamed_feed(config: RunConfig, accelerator: Accelerator) -> tuple[Any, DataInfo]:
    """The batches of a streamed set; statistics of other bands than RGB from its first batches."""
    from .streaming import StreamedBatches

    data, bands = config.data, resolve_bands(config.bands)
    assert config.max_steps is not None  # RunConfig.check
    feed = StreamedBatches(
        load(
            data.name,
            data.split,
            bands=bands,
            revision=data.revision,
            columns=data.columns,
            streaming=True,
        ),
        bands=bands,
        image_size=data.image_size or config.image_size,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        accelerator=accelerator,
        total_steps=config.max_steps,
        seed=config.seed,
        strict=data.strict,
    )
    images = feed.first(1 if bands == resolve_bands("rgb") else 8)
    info = [data_info(config, images, bands, default_value_range(images.dtype, bands))]
    broadcast_object_list(info)  # each process has read other images: all use the first one's
    return feed, info[0]


def column_numbers(cache: ImageCache, rows: Any, setting: str, column: str) -> np.ndarray:
    """The values of a column as numbers from 0, one a cached image.

    Args:
        cache: For the images that were skipped.
        rows: The data set.
        setting: Key under `data.` that names the column, for the error.
        column: Its name.

    Raises:
        UserError: There is no such column, or it has rows without a value.
    """
    if column == "label" and cache.labels is not None:
        return cache.labels.numpy()
    if column not in rows.column_names:
        raise UserError(
            f"data.{setting}={column!r} is not a column of the data; it has "
            f"{', '.join(rows.column_names)}"
        )
    skipped = {row for row, _ in cache.skipped}
    values = [v for row, v in enumerate(rows[column]) if row not in skipped]
    try:
        _, numbers = np.unique(np.asarray(values), return_inverse=True)
    except TypeError as error:
        raise UserError(f"data.{setting}={column!r} has rows without a value") from error
    return numbers


def data_info(
    config: RunConfig,
    images: torch.Tensor,
    bands: tuple[str, ...],
    value_range: tuple[float, float],
) -> DataInfo:
    """Value range, and the mean and deviation that the run normalises with."""
    if (config.image_mean is None) != (config.image_std is None):
        raise UserError("set image_mean and image_std together, or neither")
    if config.image_mean is not None and config.image_std is not None:
        mean, std = config.image_mean, config.image_std
        for key, values in (("image_mean", mean), ("image_std", std)):
            if len(values) != len(bands):
                raise UserError(f"{key} has {len(values)} values for {len(bands)} bands")
    elif bands == resolve_bands("rgb") and value_range[1] == 255:
        config_class, _ = method_classes(method_name(config))
        mean, std = list(config_class.image_mean), list(config_class.image_std)  # the released ones
    else:
        measured_mean, measured_std = band_statistics(images, value_range)
        mean, std = list(measured_mean), list(measured_std)
    return DataInfo(value_range, [float(v) for v in mean], [float(v) for v in std])


def build_method(config: RunConfig, info: DataInfo, previous: Path | None) -> SslModel:
    """The method, with random weights, those of `init_from`, or all of the previous stage's.

    Raises:
        UserError: Unknown method, backbone or setting.
    """
    settings = dict(config.method)
    settings.pop("name")
    name = method_name(config)
    config_class, model_class = method_classes(name)
    # transformers' configs store unknown keywords silently: we check the names here.
    free = {field.name: field.type for field in fields(config_class)}
    shared = {field.name for field in fields(PreTrainedConfig)} | FROM_THE_RUN
    free = {key: kind for key, kind in free.items() if key not in shared}
    if unknown := sorted(set(settings) - set(free)):
        raise UserError(
            f"unknown setting method.{unknown[0]}; {name} has: {', '.join(sorted(free))}"
        )
    for key, value in settings.items():  # strict configs take no 0 for 0.0
        if free[key] is float and type(value) is int:
            settings[key] = float(value)
        elif type(value) is list and list[float] in get_args(free[key]):
            settings[key] = [float(v) if type(v) is int else v for v in value]
    bands = list(resolve_bands(config.bands))
    settings |= {
        "bands": bands,
        "value_range": list(info.value_range),
        "image_mean": info.image_mean,
        "image_std": info.image_std,
        "image_size": config.image_size,
    }
    try:
        if config.init_from:
            return model_class.from_backbone(config.init_from, **settings)
        trained = (
            None
            if previous is None
            else model_class.from_pretrained(previous, use_safetensors=True)
        )
        if trained is None:
            settings["backbone_config"] = backbones.backbone_config(
                config.backbone, bands=bands, image_size=config.image_size
            )
        else:
            settings["backbone_config"] = trained.config.backbone_config
        model = model_class(config_class(**settings))
        if trained is not None:
            model.load_state_dict(trained.state_dict())
        return model
    except UserError:
        raise
    except StrictDataclassError as error:
        # The sentence is in the cause; the error itself tells it over several lines.
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"method {name}: {reason}") from error


def method_name(config: RunConfig) -> str:
    """The method's short name; YAML reads the bare name `false` as a truth value."""
    name = config.method["name"]
    return "false" if name is False else name


@dataclass
class Origin:
    """What the weights had seen before this stage.

    Attributes:
        data: Names of data sets, first to last.
        revisions: Theirs; None where there is none.
        epochs: In all.
        revision: Of the data of this stage, as it was when the stage started.
        commit: Of the code, likewise.
    """

    data: list[str]
    revisions: list[str | None]
    epochs: float
    revision: str | None
    commit: str | None


def origin_of(config: RunConfig, previous: Path | None) -> Origin:
    """The history of the weights that a stage starts from: empty for random ones."""
    revision = resolve_revision(config.data.name, config.data.revision)
    now = {"revision": revision, "commit": source_commit()}
    start = config.init_from or (str(previous) if previous is not None else None)
    if start is None:
        return Origin([], [], 0.0, **now)
    try:
        settings, _ = PreTrainedConfig.get_config_dict(resolve(start))
    except (OSError, ValueError):
        settings = {}  # a timm name: its training data is its own
    said = settings.get("rs_models") or {}
    if "data" not in said:
        return Origin([start], [None], 0.0, **now)
    many = isinstance(said["data"], list)
    return Origin(
        data=list(said["data"]) if many else [said["data"]],
        revisions=list(said["data_revision"]) if many else [said["data_revision"]],
        epochs=float(said["epochs"]),
        **now,
    )


def provenance(config: RunConfig, method: SslModel, *, epochs: float, origin: Origin) -> Provenance:
    """The `rs_models` dict of `config.json` (the keys of the published schema).

    Args:
        config: The stage's settings.
        method: What was trained.
        epochs: Of this stage.
        origin: What the weights had seen before it; data sets are listed first to last.
    """
    name = next(k for k in METHODS if isinstance(method, method_classes(k)[1]))
    model = method.config
    here = f"{data_name(config.data.name)}:{config.data.split}"
    data, revisions = list(origin.data), list(origin.revisions)
    if data[-1:] != [here]:  # stages on the same images are one entry
        data.append(here)
        revisions.append(origin.revision)
    return {
        "method": name,
        "bands": list(model.bands),
        "value_range": list(model.value_range),
        "image_mean": list(model.image_mean),
        "image_std": list(model.image_std),
        "train_size": method.seen_size,
        "output_stride": backbones.output_stride(model.native),
        "data": data if len(data) > 1 else here,
        "data_revision": revisions if len(data) > 1 else revisions[0],
        "epochs": round(origin.epochs + epochs, 3),
        "version": __version__,
        "commit": origin.commit,
    }


def source_commit() -> str | None:
    """Commit of the source tree that this package runs from; None when installed from a wheel."""
    here = clone()
    if not (here / ".git").exists():
        return None
    asked = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None


def knn_caches(config: RunConfig, accelerator: Accelerator) -> tuple[ImageCache, ImageCache] | None:
    """Images of the k-NN during training; None (and a line) where the data cannot serve.

    Raises:
        UserError: `evaluation.name` was set and cannot be used, told before any training.
    """
    evaluation = config.evaluation
    try:
        with accelerator.main_process_first():
            train = evaluation_cache(config, evaluation.train_split)
            validation = evaluation_cache(config, evaluation.validation_split)
        labels_of(train), labels_of(validation)
    except UserError as error:
        if evaluation.name is not None:
            raise
        accelerator.print(f"no k-NN during training: {error}")
        return None
    return train, validation


def knn_of(method: SslModel, config: RunConfig, caches: tuple[ImageCache, ImageCache]) -> float:
    """k-NN accuracy in percent of the method's backbone, (train, validation) images."""
    from ..evaluation.features import Encoder, extract
    from ..evaluation.knn import knn_accuracy

    training = method.training
    model = method.config
    encoder = Encoder.from_model(
        method.exported,
        bands=model.bands,
        value_range=tuple(model.value_range),
        image_mean=model.image_mean,
        image_std=model.image_std,
        train_size=method.seen_size,
    )
    device = next(method.parameters()).device
    train, test = (
        extract(encoder, cache, device=device, precision=config.precision, progress=False)
        for cache in caches
    )
    method.train(training)
    labels = [labels_of(cache) for cache in caches]
    return float(knn_accuracy(train, labels[0], test, labels[1]))


def evaluation_cache(config: RunConfig, split: str) -> ImageCache:
    """Decoded images of an evaluation split."""
    same = config.evaluation.name is None
    name = config.data.name if same else str(config.evaluation.name)
    bands = resolve_bands(config.bands)
    rows = load(
        name,
        split,
        bands=bands,
        revision=config.data.revision if same else None,
        columns=config.data.columns if same else config.evaluation.columns,
        annotations=False,
    )
    if config.evaluation.limit is not None and len(rows) > config.evaluation.limit:
        rows = rows.shuffle(seed=0).select(range(config.evaluation.limit))
    return build_cache(
        rows,
        bands=bands,
        image_size=config.data.image_size,
        cache_dir=config.data.cache_dir,
        progress=False,
    )


def labels_of(cache: ImageCache) -> torch.Tensor:
    """The labels of an evaluation split.

    Raises:
        UserError: It has none.
    """
    if cache.labels is None:
        raise UserError("evaluation needs labels: set evaluation.name to a labelled data set")
    return cache.labels
