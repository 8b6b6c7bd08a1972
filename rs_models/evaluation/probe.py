"""`rs-models evaluate`: frozen encoders with few and many labels, by the named protocols."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..settings import Count, Length, Seed, Side, check_ranges

if TYPE_CHECKING:
    from .baselines import Baseline
    from .features import Encoder
    from .protocols import Elsewhere
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
        test_split: Split that is counted; not read where no protocol needs one.
        bands: Bands to read; an encoder takes its own from them by name.
        image_size: Side in pixels at which images are cached; null keeps the stored size.
        columns: Our column name to the data's, e.g. `{label: category}`.
        place: Column that says where an image is, for `leave-one-out`.
        strict: Stop at an image that cannot be read instead of leaving it out and counting it.
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
    strict: bool = False


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
            transfer-n20 (with `source`); leave-one-out (with `data.place`); torchgeo-bench-knn5,
            torchgeo-bench-linear (its split of rows without one); invariance-rotation,
            invariance-colour, invariance-scale, silhouette (of the features
            themselves); `@stages` for features of all stages, `@224` for another size.
        baselines: Measured beside the models, unless one of these is a baseline; `[]` for none.
        output_dir: Folder of the results files.
        readme: Markdown file whose blocks are rendered from `output_dir` afterwards; null: none.
        size: Side in pixels that images are brought to; null is each model's training size (for a
            baseline the stored size).
        seeds: Draws of the few-shot protocols.
        seed: Seed of the baselines' random weights.
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
    baselines: list[str] = field(
        default_factory=lambda: ["baseline:image-statistics", "baseline:random-convolutions"]
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
        command: Command that measures it again, for the results.
        progress: Show progress bars.

    Returns:
        Model by model, in the order of the protocols.

    Raises:
        UserError: Models, data or protocols that cannot be used; found before anything is measured
            where it can be.
    """
    from ..data import resolve_revision
    from ..data.cache import default_cache_dir
    from ..data.names import data_name
    from .protocols import check_protocols, run
    from .results import write

    check_ranges(config)
    data = config.data
    known = {"files"} | ({"places"} if data.place is not None else set())
    protocols = check_protocols(config.protocols, source=config.source is not None, known=known)
    needed = {split for protocol in protocols for split in (*protocol.needs, *protocol.may_use)}
    encoders = _encoders(config)
    folder = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    rows, train = _cached(data, data.train_split if "train" in needed else None, folder)
    validation = data.validation_split if "validation" in needed else None
    wanted = {protocol.wants for protocol in protocols}
    inputs: dict[str, Any] = {
        "validation": _cached(data, validation, folder)[1],
        "source": _elsewhere(config, folder) if "source" in needed else None,
        "places": _places(rows, train, data) if "places" in wanted else None,
        "files": _files(rows, train, data) if "files" in wanted else None,
    }
    test = _cached(data, data.test_split if "test" in needed else None, folder)[1]
    measured: list[Result] = []
    notes: set[str] = set()

    def note(sentence: str) -> None:
        if sentence not in notes:  # the same for every model
            notes.add(sentence)
            print(sentence, file=sys.stderr)

    for encoder in encoders:
        results = run(
            encoder,
            train,
            test,
            protocols=config.protocols,
            seeds=config.seeds,
            data=data.label or data_name(data.name),
            data_revision=resolve_revision(data.name, data.revision),
            command=command,
            batch_size=config.batch_size,
            device=config.device,
            precision=config.precision,
            cache_dir=folder / "features",
            progress=progress,
            note=note,
            **inputs,
        )
        for result in results:
            write(result, config.output_dir)
        measured += results
    return measured


def _encoders(config: ProbeConfig) -> list[Encoder | Baseline]:
    """What is measured; every name is looked up before anything is computed."""
    from ..errors import UserError
    from .baselines import PREFIX
    from .loading import load_encoder

    models = [config.model] if isinstance(config.model, str) else list(config.model)
    if config.names is not None and len(config.names) != len(models):
        raise UserError(
            f"The setting names has {len(config.names)} entries for {len(models)} models: give one "
            "a model."
        )
    beside = [] if any(model.startswith(PREFIX) for model in models) else config.baselines
    encoders = [
        load_encoder(model, revision=config.revision, size=config.size, seed=config.seed)
        for model in (*models, *beside)
    ]
    for encoder, name in zip(encoders, config.names or [], strict=False):
        encoder.name = name
    return encoders


def _cached(data: ProbeData, split: str | None, folder: Path) -> tuple[Any, Any]:
    """Rows of a split and their decoded images; None for no split."""
    from ..data import build_cache, load
    from ..data.labels import tell_unused

    if split is None:
        return None, None
    rows = load(data.name, split, bands=data.bands, revision=data.revision, columns=data.columns)
    images = build_cache(
        rows,
        bands=data.bands,
        image_size=data.image_size,
        cache_dir=folder / "images",
        strict=data.strict,
    )
    names = getattr(rows.features.get("label"), "names", None)
    if images.labels is not None:
        tell_unused(images.labels.unique().tolist(), names, f"{data.name} ({split})")
    return rows, images


def _elsewhere(config: ProbeConfig, folder: Path) -> Elsewhere:
    """The data set that `transfer` learns from."""
    from ..data.names import data_name
    from ..errors import UserError
    from .protocols import Elsewhere
    from .transfer import class_map

    source = config.source
    assert source is not None  # the protocols were checked
    if config.class_map is None:
        raise UserError(
            "The setting source.name needs class_map: {source class: target class, ...}."
        )
    images = _cached(source, source.train_split, folder)[1]
    return Elsewhere(source.label or data_name(source.name), images, class_map(config.class_map))


def _read(rows: Any, cache: Any, column: Any) -> list[str]:
    """A column of the cached images: those that could not be read are left out, as there."""
    skipped = {row for row, _ in cache.skipped}
    return [str(value) for row, value in enumerate(column) if row not in skipped]


def _places(rows: Any, cache: Any, data: ProbeData) -> list[str]:
    """Where each cached image is."""
    from ..errors import UserError

    if data.place not in rows.features:
        raise UserError(
            f"{data.name} has no column {data.place!r}: it has {', '.join(rows.features)}."
        )
    return _read(rows, cache, rows[data.place])


def _files(rows: Any, cache: Any, data: ProbeData) -> list[str]:
    """File name of each cached image: of the column `file`, or of the image itself."""
    from ..errors import UserError
    from .locations import file_names

    names = file_names(rows)
    if names is None:
        raise UserError(
            f"{data.name} does not tell its images' file names, by which torchgeo-bench splits "
            "them: use a folder of images, or a 'file' column."
        )
    return _read(rows, cache, names)
