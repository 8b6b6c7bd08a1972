"""`rs-models evaluate`: frozen encoders with few and many labels, by the named protocols."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..settings import Count, Length, Seed, Side, check_ranges

if TYPE_CHECKING:
    from .results import Result


@dataclass
class ProbeData:
    """The labelled images.

    Attributes:
        name: Known set, Hub id, local folder or `synthetic`.
        label: Name in the results; null is the Hub id, or the last part of a path.
        revision: Commit or tag of a Hub data set.
        train_split: Split that the probes learn from.
        validation_split: Split that chooses C; null uses a tenth of the train split.
        test_split: Split that is counted.
        bands: Bands to read; an encoder takes its own from them by name.
        image_size: Side in pixels at which images are cached; null keeps the stored size.
        columns: Our column name to the data's, e.g. `{label: category}`.
        place: Column that says where an image is, for `leave-one-out`.
    """

    name: str = "synthetic"
    label: str | None = None
    revision: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str = "test"
    bands: str | list[str] = "rgb"
    image_size: Side | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    place: str | None = None


@dataclass
class ProbeConfig:
    """What to measure.

    Attributes:
        model: A folder, Hub id, timm name or `baseline:...`, or a list of them.
        names: Names in the results, one a model; null takes the encoders' own.
        revision: Commit or tag of the models on the Hub.
        data: The labelled images.
        source: Another data set, whose train split `transfer` learns from.
        class_map: Its classes to those of `data`, `{River: RiverLake, ...}`, or `aid-rsscn7`.
        protocols: knn20, knn5, linear, linear-n5, linear-n20, linear-n50, retrieval20; transfer,
            transfer-n20 (with `source`); leave-one-out (with `data.place`); `@224` for another
            size.
        output_dir: Folder of the results files.
        readme: Markdown file whose blocks are rendered from `output_dir` afterwards; null: none.
        size: Side in pixels that images are brought to; null is each model's training size (for a
            baseline the stored size).
        seeds: Draws of the few-shot protocols.
        seed: Of the baselines' random weights.
        batch_size: Images at a time.
        device: cpu, cuda, cuda:1, ...; null is a GPU where there is one.
        precision: `no` (float32) or `bf16`.
        cache_dir: Folder of decoded images and features; null is the user's cache folder.
        json: Print the results as JSON instead of a table.
    """

    model: str | Annotated[list[str], Length()] = field(
        default_factory=lambda: [
            "baseline:image-statistics",
            "baseline:random-convolutions",
            "baseline:random-resnet18",
        ]
    )
    names: list[str] | None = None
    revision: str | None = None
    data: ProbeData = field(default_factory=ProbeData)
    source: ProbeData | None = None
    class_map: str | dict[str, Any] | None = None
    protocols: Annotated[list[str], Length()] = field(
        default_factory=lambda: [
            "knn20",
            "knn5",
            "linear",
            "linear-n5",
            "linear-n20",
            "linear-n50",
        ]
    )
    output_dir: str = "outputs/results"
    readme: str | None = None
    size: Side | None = None
    seeds: Count = 5
    seed: Seed = 0
    batch_size: Count = 256
    device: str | None = None
    precision: Literal["no", "bf16"] = "no"
    cache_dir: str | None = None
    json: bool = False


def measure(
    config: ProbeConfig,
    *,
    command: str = "rs_models.evaluation.probe.measure",
    progress: bool = True,
) -> list[Result]:
    """Measures every model by every protocol and writes the results.

    Args:
        config: Settings.
        command: That measures it again, for the results.
        progress: Show progress bars.

    Returns:
        Model by model, in the order of the protocols.

    Raises:
        UserError: Models, data or protocols that cannot be used; found before anything is measured
            where it can be.
    """
    from ..data import build_cache, load, resolve_revision
    from ..data.cache import default_cache_dir
    from ..data.names import data_name
    from ..errors import UserError
    from .loading import load_encoder
    from .protocols import Elsewhere, check_protocols, run
    from .results import write
    from .transfer import class_map

    check_ranges(config)

    models = [config.model] if isinstance(config.model, str) else config.model
    if config.names is not None and len(config.names) != len(models):
        raise UserError(f"names has {len(config.names)} entries for {len(models)} models")
    data, source = config.data, config.source
    check_protocols(config.protocols, source=source is not None, places=data.place is not None)
    if source is not None and config.class_map is None:
        raise UserError("source.name needs class_map: {source class: target class, ...}.")
    # Every name is looked up before anything is measured.
    encoders = [
        load_encoder(model, revision=config.revision, size=config.size, seed=config.seed)
        for model in models
    ]
    for encoder, name in zip(encoders, config.names or [], strict=False):
        encoder.name = name

    folder = Path(config.cache_dir) if config.cache_dir else default_cache_dir()

    def cached(which: ProbeData, split: str | None) -> Any:
        if split is None:
            return None, None
        rows = load(
            which.name, split, bands=which.bands, revision=which.revision, columns=which.columns
        )
        cache = build_cache(
            rows, bands=which.bands, image_size=which.image_size, cache_dir=folder / "images"
        )
        return rows, cache

    rows, train = cached(data, data.train_split)
    validation, test = cached(data, data.validation_split)[1], cached(data, data.test_split)[1]
    places = _places(rows, train, data) if data.place is not None else None
    elsewhere = None
    if source is not None and config.class_map is not None:
        images = cached(source, source.train_split)[1]
        elsewhere = Elsewhere(
            source.label or data_name(source.name), images, class_map(config.class_map)
        )
    measured = []
    for encoder in encoders:
        results = run(
            encoder,
            train,
            test,
            validation=validation,
            protocols=config.protocols,
            seeds=config.seeds,
            source=elsewhere,
            places=places,
            data=data.label or data_name(data.name),
            data_revision=resolve_revision(data.name, data.revision),
            command=command,
            batch_size=config.batch_size,
            device=config.device,
            precision=config.precision,
            cache_dir=folder / "features",
            progress=progress,
        )
        for result in results:
            write(result, config.output_dir)
        measured += results
    return measured


def _places(rows: Any, cache: Any, data: ProbeData) -> list[str]:
    """Where each cached image is; those that could not be read are left out, as in the cache."""
    from ..errors import UserError

    if data.place not in rows.features:
        raise UserError(
            f"{data.name} has no column {data.place!r}: it has {', '.join(rows.features)}."
        )
    skipped = {row for row, _ in cache.skipped}
    return [str(p) for row, p in enumerate(rows[data.place]) if row not in skipped]
