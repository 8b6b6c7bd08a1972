"""Model cards, rendered from a model's facts, its results and its paper, and from nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..cards import CardData, render_card
from ..data.names import sets_of
from ..errors import UserError
from ..evaluation.results import Result, table
from ..files import complete, write_bytes, write_text
from ..papers import PAPERS, REVIEWS, Paper, Reference, bibtex
from ..version import __version__
from ..zoo import WITH_DECODER, ZOO, pinned_revision
from .facts import Facts, principal_components, read_facts, write_facts
from .phrases import (
    TASK_TYPES,
    Course,
    balances,
    beside_free,
    course,
    domains,
    draws,
    headline,
    learned,
    protocols,
    terms,
)

MODELS = Path("model_cards") / "models"
RENDERED = Path("model_cards") / "rendered"
WEIGHTS = Path("hub") / "rs"  # of a clone; each folder brings its card too
# What figures were drawn from; compared instead of pixels, which differ between matplotlibs.
STAMP = "figures/inputs.sha256"
# Of a ResNet as transformers and timm build it; dilated weights are loaded by rs_models.
_RESNET_STRIDE = 32


@dataclass(frozen=True, kw_only=True)
class ModelCard(CardData):
    """What the card of a pretrained model is filled from.

    Attributes:
        template: Template of this kind of card.
        repo_id: "<org>/<name>" of the card's repository.
        backbone_id: Repository of the backbone alone, the same where the card is the backbone's.
        pretraining: Whether the repository holds the whole method.
        tag: Version that the examples load; None where they are in the clone alone.
        paper: Paper of the method.
        first_author: Family name.
        architecture: The backbone, in words.
        size: Its parameters and the size of its file; empty where that is not known.
        headline: Its accuracy from few labels beside what costs nothing; empty where not measured.
        learns: What this run learned from.
        dilated: Whether rs_models must dilate the network for the features that were measured.
        facts: Provenance, the `rs_models` dict of config.json.
        bands: How many.
        processor_size: Side that the image processor resizes to; None where it does not say.
        timm: Whether timm loads the weights.
        data: Data sets of the pretraining, in their order.
        course: How the run went on from other weights.
        labels_unused: Whether no label was used, not even to draw by.
        run: Settings of the run; empty where it left none.
        recipe: The same, as YAML.
        figures: File names of the pictures that there are.
        protocols: What each protocol measures, a sentence each.
        draws: How often few-label protocols were drawn.
        beside_free: Where it is ahead of what costs nothing and where not; empty without baselines.
        table: The results, Markdown.
        domains: For each data set, whether pretraining saw its images, a sentence each.
        measured_on: Data sets of the results.
        terms: Terms of the training images, data set by data set.
        bibtex: Entry of the paper.
        reviews: The survey and the review that the method belongs to.
        decoder: Whether the repository has the segmentation network of its decoder.
    """

    template: ClassVar[str] = "model_card.md.j2"
    repo_id: str
    backbone_id: str
    pretraining: bool
    tag: str | None
    paper: Paper
    first_author: str
    architecture: str
    size: str
    headline: str
    learns: str
    dilated: bool
    facts: Mapping[str, Any]
    bands: int
    processor_size: int | None
    timm: bool
    data: Sequence[str]
    course: Course
    labels_unused: bool
    run: Mapping[str, Any]
    recipe: str
    figures: Sequence[str]
    protocols: Sequence[str]
    draws: str
    beside_free: str
    table: str
    domains: Sequence[str]
    measured_on: Sequence[str]
    terms: Sequence[str]
    bibtex: str
    reviews: Mapping[str, Reference]
    decoder: bool


def model_card(
    folder: str | os.PathLike[str],
    results: Sequence[Result],
    *,
    repo_id: str,
    pretraining: bool = False,
    tag: str | None = f"v{__version__}",
) -> dict[str, bytes]:
    """The card of a model and what belongs to it.

    Args:
        folder: A run's folder, a model's, or a folder of facts.
        results: Results of any models; those of this one and of the free baselines are shown.
        repo_id: "<org>/<name>"; results carry the name (without "-pretraining").
        pretraining: Whether the repository holds the whole method.
        tag: Version that the examples load; None for weights that lie in the clone alone.

    Returns:
        Path in the repository -> content: `README.md`, `.eval_results/*.yaml` for data sets with a
        Hub id, `figures/*.png`. The same bytes for the same input.

    Raises:
        UserError: No results, results of other weights, or incomplete facts.
    """
    facts = read_facts(folder, pretraining=pretraining)
    name = repo_id.rpartition("/")[2].removesuffix("-pretraining")
    names = (name, name + WITH_DECODER)
    mine = [result for result in results if result.model.rpartition("/")[2] in names]
    if not mine:
        raise UserError(
            f"There are no results of {name}, and a card without results is not rendered: measure "
            f"it with 'python training/probe.py --config training/configs/probe.yaml model=...'."
        )
    for result in mine:
        measured = result.model_revision
        own = not result.model.endswith(WITH_DECODER)  # or of other tensors, so of another hash
        if own and measured.startswith("sha256:") and measured != (facts.revision or measured):
            raise UserError(
                f"The result of {name} on {result.data} by {result.protocol} is of other weights "
                f"({measured}) than those in {folder} ({facts.revision}): measure it again."
            )
    shown = [*_baselines(facts, mine, results), *mine]
    from .figures import figures

    drawn = figures(facts, name, shown)
    if facts.look and not pretraining:
        drawn["look.webp"] = facts.look
    files = {f"figures/{key}": content for key, content in drawn.items()}
    card = _card(facts, mine, shown, repo_id, pretraining, tag, drawn)
    files["README.md"] = render_card(card).encode()
    if not pretraining:
        for data, text in _eval_results(mine).items():
            files[f".eval_results/{data.replace('/', '--')}.yaml"] = text.encode()
    return files


def collect(
    run: str | Path, target: str | Path, *, data: str | None = None, recipe: str | None = None
) -> None:
    """Keeps a run's small facts in a folder, to render its card without its weights.

    Args:
        run: The run's folder.
        target: Folder to write.
        data: Labelled data set whose test images the picture of features shows; None draws none.
        recipe: YAML file with the run's settings, for a run that left none.
    """
    facts = read_facts(run)
    if recipe is not None:
        from ..settings import read_yaml

        facts.run = read_yaml(recipe)
        facts.run.pop("output_dir", None)
    if data is not None:
        part = Path(run) / "export"
        facts.features = principal_components(str(part if part.is_dir() else run), data)
        # In the run too, so that a push of it has the picture.
        text = json.dumps(facts.features) + "\n"
        write_text(Path(run) / "features.json", text)
    write_facts(facts, target)


def _baselines(facts: Facts, mine: Sequence[Result], results: Sequence[Result]) -> list[Result]:
    """What costs nothing, on the same data: of the random networks only the same architecture."""
    wanted = {(result.data, result.protocol) for result in mine}
    own = f"baseline:random-{facts.run.get('backbone', '')}"
    return [
        result
        for result in results
        if result.model.startswith("baseline:")
        and (result.data, result.protocol) in wanted
        and (result.model in (own, "baseline:random-convolutions") or "random" not in result.model)
    ]


def _card(
    facts: Facts,
    mine: Sequence[Result],
    shown: Sequence[Result],
    repo_id: str,
    pretraining: bool,
    tag: str | None,
    drawn: Mapping[str, bytes],
) -> ModelCard:
    said, paper = facts.provenance, PAPERS.get(facts.provenance["method"])
    if paper is None:
        raise UserError(f"The method {said['method']!r} has no paper in rs_models/papers.py.")
    seen = [said["data"]] if isinstance(said["data"], str) else said["data"]
    data = [name for name, _ in itertools.groupby(seen)]
    backbone = facts.config.get("backbone_config") or facts.config
    name = repo_id.rpartition("/")[2]
    return ModelCard(
        metadata=_metadata(facts, mine, name.removesuffix("-pretraining"), pretraining),
        name=name,
        repo_id=repo_id,
        backbone_id=repo_id.removesuffix("-pretraining"),
        pretraining=pretraining,
        tag=tag,
        paper=paper,
        first_author=paper.authors[0].partition(",")[0],
        architecture=_architecture(backbone),
        size=facts.size,
        headline=headline(mine, shown, said),
        learns=learned(said["method"], facts.run),
        dilated=backbone["model_type"] == "resnet" and said["output_stride"] < _RESNET_STRIDE,
        facts=said,
        bands=len(said["bands"]),
        processor_size=facts.processor.get("size", {}).get("height"),
        timm="architecture" in facts.config,
        data=data,
        course=course(facts),
        labels_unused=not balances(facts.run),
        run=facts.run,
        recipe=_recipe(facts.run),
        figures=list(drawn),
        protocols=protocols(mine),
        draws=draws(mine),
        beside_free=beside_free(mine, shown),
        table=table(shown),
        domains=domains(mine, said),
        measured_on=sorted({result.data for result in mine}),
        terms=terms(data),
        bibtex=bibtex(said["method"]),
        reviews=REVIEWS,
        decoder=facts.decoder is not None,
    )


def _architecture(config: Mapping[str, Any]) -> str:
    from .. import backbones

    return backbones.family(config["model_type"]).describe(config)


def _recipe(run: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(
        dict(run), sort_keys=False, allow_unicode=True, default_flow_style=None
    ).strip()


def _metadata(facts: Facts, mine: Sequence[Result], name: str, pretraining: bool) -> Any:
    """What the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    said = facts.provenance
    data = [said["data"]] if isinstance(said["data"], str) else said["data"]
    started = facts.run.get("init_from")
    rows = [
        EvalResult(
            task_type=TASK_TYPES.get(result.metric, "image-classification"),
            dataset_type=result.data,
            dataset_name=result.data,
            dataset_split="test",
            dataset_revision=result.data_revision,
            metric_type=result.metric,
            metric_name=f"{result.protocol} {result.metric}",
            metric_value=round(result.mean, 2),
        )
        for result in mine
    ]
    return ModelCardData(
        license="apache-2.0",
        library_name="rs_models" if pretraining else "transformers",
        pipeline_tag=None if pretraining else "image-feature-extraction",
        tags=[
            *("remote-sensing", "self-supervised-learning", "earth-observation", "rs_models"),
            said["method"],
            *(["timm"] if "architecture" in facts.config and not pretraining else []),
        ],
        datasets=[own for name in data for own in sets_of(name) if "/" in own] or None,
        base_model=started if started and started.count("/") == 1 else None,
        metrics=sorted({result.metric for result in mine}),
        model_name=None if pretraining else name,
        eval_results=None if pretraining else rows,
    )


def _eval_results(mine: Sequence[Result]) -> dict[str, str]:
    """Data set's Hub id -> `.eval_results` YAML; a protocol is a task of the data set."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    found: dict[str, list[EvalResultEntry]] = {}
    for result in mine:
        if result.data.count("/") == 1:
            found.setdefault(result.data, []).append(
                EvalResultEntry(
                    dataset_id=result.data,
                    task_id=result.protocol,
                    value=round(result.mean, 2),
                    dataset_revision=result.data_revision,
                    date=result.date[:10],
                    notes=f"{result.metric} in %, {result.protocol}",
                )
            )
    return {
        data: yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        for data, entries in found.items()
    }


# --- command -------------------------------------------------------------------------------------


def render(folder: Path, output: Path, results: Sequence[Result], repo_id: str) -> bool:
    """Writes a card where its text or what its figures show changed; whether it did."""
    if (output / "README.md").exists() and not (output / STAMP).is_file():
        raise UserError(f"{output} holds a README.md that is no card of ours: name another folder.")
    files = model_card(folder, results, repo_id=repo_id, tag=_tag(repo_id))
    stamp = _stamp(folder, files)
    if _is_current(files, output, stamp):
        return False
    # First a stamp that fits nothing, which says whose the folder is, and last the one that fits:
    # a card that was cut short is known as ours, and redone.
    write_bytes(output / STAMP, b"")
    for name, content in {**files, STAMP: stamp}.items():
        write_bytes(output / name, content)
    return True


def check(folder: Path, output: Path, results: Sequence[Result], repo_id: str) -> None:
    """Refuses a rendered card that is not what the data say.

    Texts are compared to the byte, figures by a hash of what they are drawn from: another version
    of matplotlib draws other pixels.

    Raises:
        UserError: Naming the card.
    """
    files = model_card(folder, results, repo_id=repo_id, tag=_tag(repo_id))
    if not _is_current(files, output, _stamp(folder, files)):
        raise UserError(
            f"{output} does not show what the facts and results say: render it with "
            "'rs-models card --all' and do not edit it by hand."
        )


def _tag(repo_id: str) -> str | None:
    """The version that examples load: of our own models only one that is on the Hub."""
    ours = any(model.repo_id == repo_id for model in ZOO)
    return pinned_revision(repo_id) if ours else f"v{__version__}"


def _is_current(files: Mapping[str, bytes], output: Path, stamp: bytes) -> bool:
    expected = {STAMP: stamp, **{k: v for k, v in files.items() if not k.endswith(".png")}}
    texts = all(
        (output / name).is_file() and (output / name).read_bytes() == content
        for name, content in expected.items()
    )
    return texts and all((output / name).is_file() for name in files)


def _stamp(folder: Path, files: Mapping[str, bytes]) -> bytes:
    """Hash of the facts and of the README, whose tables hold every number that is drawn."""
    digest = hashlib.sha256(files["README.md"])
    for path in complete(folder, "*.json*"):
        digest.update(path.read_bytes())
    return f"{digest.hexdigest()}\n".encode()
