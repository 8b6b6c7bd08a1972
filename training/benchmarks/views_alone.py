"""Two finished views of each image on one core, ours and lightly's in turn (see throughput.py)."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from speed_report import medians, ratio

from rs_models.data import build_cache, load
from rs_models.signals.views import ViewMaker, recipe_from_settings

# lightly's SimCLRTransform crops from 0.08 of the area; both sides do the same work.
VIEWS = {"scale": [0.08, 1.0]}
VIEW_BATCH = 64  # images of a call of our views


def measure_views(options: argparse.Namespace, have_lightly: bool) -> dict[str, Any]:
    """Two finished views of each image on one core, ours and lightly's in turn."""
    import datasets

    source = options.view_source_size
    rows = load(options.view_data, "train")
    rows = rows.select(range(min(options.view_images, len(rows))))
    jpegs = [encode(row["image"].convert("RGB").resize((source, source))) for row in rows]
    count = len(jpegs)
    recipe = recipe_from_settings("simclr", options.view_size, VIEWS)
    seconds: dict[str, list[float]] = {"ours": [], "ours_first_epoch": []}
    with one_core(), tempfile.TemporaryDirectory() as folder:
        made = datasets.Dataset.from_dict(
            {"image": [{"bytes": jpeg, "path": None} for jpeg in jpegs]},
            features=datasets.Features({"image": datasets.Image()}),
        )
        maker = ViewMaker(
            recipe,
            bands=("red", "green", "blue"),
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
            value_range=(0, 255),
            num_threads=1,
        )

        def ours(cache: Any, seed: int) -> None:
            images, batch = cache.images, None
            order = torch.randperm(count)
            for rows in order.split(VIEW_BATCH):
                batch = maker(images[rows], seed, out=batch)

        sides: dict[str, Callable[[int], None]] = {}
        if have_lightly:
            from lightly_side import JpegViews

            theirs = JpegViews(jpegs, options.view_size)
            seconds["lightly"] = []

            def lightly(seed: int) -> None:
                for i in range(count):
                    theirs[i]

            sides["lightly"] = lightly
        steady = build_cache(made, cache_dir=Path(folder) / "steady", progress=False)
        sides["ours"] = lambda seed: ours(steady, seed)

        def first_epoch(seed: int) -> None:
            place = Path(folder) / f"first-{seed}"
            ours(build_cache(made, cache_dir=place, progress=False), seed)

        sides["ours_first_epoch"] = first_epoch
        for number in range(options.rounds + 1):
            for name, run in sides.items():
                started = time.perf_counter()
                run(number)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
    speed = {name: [count / s for s in values] for name, values in seconds.items()}
    return {
        "views_over_lightly": ratio(speed, "ours", "lightly"),
        "views_over_lightly_first_epoch": ratio(speed, "ours_first_epoch", "lightly"),
        "views_images_per_second": medians(speed),
    }


@contextmanager
def one_core() -> Iterator[None]:
    """Bind this thread to one core and torch to one thread."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def encoded(rows: Any) -> list[bytes]:
    """The images of a data set as files: as they are stored, or as JPEG."""
    import datasets

    stored = rows.cast_column("image", datasets.Image(decode=False))
    return [
        row["bytes"] or encode(rows[i]["image"].convert("RGB"))
        for i, row in enumerate(stored["image"])
    ]


def encode(image: PIL.Image.Image) -> bytes:
    """An image as a JPEG file of quality 90."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
