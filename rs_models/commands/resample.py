"""`rs-models resample`: a representative, balanced subset of a collection, by its features."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..settings import Count, Seed

USAGE = """usage: rs-models resample --data NAME --model NAME --output DIR [--name value ...]

Draw images evenly over k-means clusters of their features (TOV's feature-guided resampling): what
repeats in a collection gives few, what is rare is kept. No label is used.

example:
  rs-models resample --data outputs/tiles --model rs/rsisc-resnet18 --n 5000 --output few

Exit codes: 0 done, 1 network or server, 2 bad input."""


@dataclass
class ResampleConfig:
    """What to draw.

    Attributes:
        data: Known set, Hub id or local folder.
        split: Split of the data set.
        model: Encoder whose features are clustered.
        n: Images to draw.
        clusters: Number of k-means clusters.
        seed: Seed of the clusters' starts and of the draw.
        output: Folder that gets the Parquet file.
    """

    data: str = ""
    split: str = "train"
    model: str = ""
    n: Count = 1000
    clusters: Count = 100
    seed: Seed = 0
    output: str = ""


def parser() -> argparse.ArgumentParser:
    """Settings of the command as options."""
    from ..settings import settings_parser

    return settings_parser("rs-models resample", ResampleConfig)


def main(argv: Sequence[str]) -> int:
    """Draws from the command line; the exit code.

    Raises:
        UserError: Bad input, or an output that exists.
    """
    from ..settings import parse

    config = parse(ResampleConfig, argv, usage=USAGE)
    from ..data import build_cache, load
    from ..data.cache import default_cache_dir
    from ..data.parquet import write_parquet
    from ..data.sampling import feature_balanced_draw
    from ..errors import UserError
    from ..evaluation.features import extract
    from ..evaluation.loading import load_encoder
    from ..files import new_folder

    for key in ("data", "model", "output"):
        if not getattr(config, key):
            raise UserError(f"{key} is not set: see rs-models resample --help.")
    output = Path(config.output)
    with new_folder(output) as folder:
        rows = load(config.data, config.split)
        cache = build_cache(rows, cache_dir=default_cache_dir() / "images")
        skipped = {row for row, _ in cache.skipped}
        there = [row for row in range(len(rows)) if row not in skipped]
        encoder = load_encoder(config.model).fit(cache)
        features = extract(encoder, cache)
        drawn = feature_balanced_draw(
            features, config.n, clusters=config.clusters, seed=config.seed
        )
        chosen = rows.select([there[i] for i in drawn])
        write_parquet(chosen, folder / "train-00000-of-00001.parquet")
    print(f"{output}: {len(drawn)} of {len(there)} images, of {config.clusters} clusters")
    print(f"Next: rs-models pretrain --config tov_resnet50 --data.name {output}")
    return 0
