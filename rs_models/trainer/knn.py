"""The k-NN beside a training: its images and its accuracy."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from ..data import ImageCache, build_cache, load
from ..errors import UserError
from ..methods.base import SslModel
from .config import RunConfig


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
    rows = load(
        name,
        split,
        bands=config.band_names,
        revision=config.data.revision if same else None,
        columns=config.data.columns if same else config.evaluation.columns,
        annotations=False,
    )
    if config.evaluation.limit is not None and len(rows) > config.evaluation.limit:
        rows = rows.shuffle(seed=0).select(range(config.evaluation.limit))
    return build_cache(
        rows,
        bands=config.band_names,
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
        raise UserError("The evaluation needs labels: set evaluation.name to a labelled data set.")
    return cache.labels
