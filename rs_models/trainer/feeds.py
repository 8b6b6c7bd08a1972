"""From settings to the batches of a run, and what the method takes from their images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..bands import band_statistics, default_value_range, resolve_bands
from ..data import ImageCache, build_cache, load
from ..errors import UserError
from ..methods import method_classes
from .batches import CachedBatches, Feed
from .config import RunConfig
from .method import DataInfo, method_name

RGB = resolve_bands("rgb")


def build_feed(config: RunConfig, accelerator: Accelerator) -> tuple[Feed, DataInfo]:
    """The run's batches, and the statistics of its images.

    Raises:
        UserError: Whatever is wrong with the data, before any training.
    """
    data, bands = config.data, config.band_names
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


def streamed_feed(config: RunConfig, accelerator: Accelerator) -> tuple[Feed, DataInfo]:
    """The batches of a streamed set; statistics of other bands than RGB from its first batches."""
    from .streaming import StreamedBatches

    data, bands = config.data, config.band_names
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
    images = feed.first(1 if bands == RGB else 8)
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
            f"The setting data.{setting}={column!r} is not a column of the data; it has "
            f"{', '.join(rows.column_names)}."
        )
    skipped = {row for row, _ in cache.skipped}
    values = [v for row, v in enumerate(rows[column]) if row not in skipped]
    try:
        _, numbers = np.unique(np.asarray(values), return_inverse=True)
    except TypeError as error:
        raise UserError(
            f"The setting data.{setting}={column!r} has rows without a value."
        ) from error
    return numbers


def data_info(
    config: RunConfig,
    images: torch.Tensor,
    bands: tuple[str, ...],
    value_range: tuple[float, float],
) -> DataInfo:
    """Value range, and the mean and deviation that the run normalises with."""
    if (config.image_mean is None) != (config.image_std is None):
        raise UserError("Set image_mean and image_std together, or neither.")
    if config.image_mean is not None and config.image_std is not None:
        mean, std = config.image_mean, config.image_std
        for key, values in (("image_mean", mean), ("image_std", std)):
            if len(values) != len(bands):
                raise UserError(f"{key} has {len(values)} values for {len(bands)} bands.")
    elif bands == RGB and value_range[1] == 255:
        config_class, _ = method_classes(method_name(config))
        mean, std = list(config_class.image_mean), list(config_class.image_std)  # the released ones
    else:
        measured_mean, measured_std = band_statistics(images, value_range)
        mean, std = list(measured_mean), list(measured_std)
    return DataInfo(value_range, [float(v) for v in mean], [float(v) for v in std])
