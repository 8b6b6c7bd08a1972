"""The card of a fine-tuned model, from its result and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...cards import CardData, markdown_table, render_card
from ...evaluation.results import Result, table
from ..table import task

_OURS = ("DeepLabV3Plus", "Fcn", "FasterRcnn")
_BY_CLASS = {"iou": "IoU", "f1": "F1"}


@dataclass(frozen=True, kw_only=True)
class FinetunedCard(CardData):
    """What the card of a fine-tuned model is filled from.

    Attributes:
        template: Template of this kind of card.
        architecture: Class of the network.
        ours: Whether `import rs_models` must register that class first.
        auto_class: Class of transformers that loads it.
        task: Name of the task.
        data: Name of the data set.
        base: The model that was fine-tuned.
        pretrained_on: Data sets that it was pretrained on; empty where that is not known.
        labelled_images: How many it learned from.
        bands: In their order.
        answer: Name of the file that a prediction gives.
        table: The results, Markdown.
        trainings: How many the result is of.
        seed: Seed of the first training, whose weights these are.
        score: Score of the first training, in the result's metric.
        test_images: How many were looked at.
        by_class: The first training's scores of each class, Markdown; empty where there are none.
        validation: What early stopping looked at.
        command: Command that trains it again.
    """

    template: ClassVar[str] = "finetuned_card.md.j2"
    architecture: str
    ours: bool
    auto_class: str
    task: str
    data: str
    base: str
    pretrained_on: list[str]
    labelled_images: int
    bands: list[str]
    answer: str
    table: str
    trainings: int
    seed: int
    score: float
    test_images: int
    by_class: str
    validation: str
    command: str


def card(result: Result, classes: Sequence[str], architecture: str) -> str:
    """Markdown with the Hub's metadata.

    Args:
        result: Result of all seeds.
        classes: Names.
        architecture: Class of the network.

    Returns:
        The same text for the same input.
    """
    from huggingface_hub import EvalResult, ModelCardData

    used = result.settings
    kind = task(used["task"])
    name = re.sub(r"[^A-Za-z0-9._%-]+", "-", f"{result.model}-{result.data}-{result.protocol}")
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag=kind.pipeline,
        base_model=result.model if "/" in result.model else None,
        tags=["remote-sensing", "few-label", "self-supervised-learning", "rs_models"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=kind.pipeline,
                dataset_type=result.data,
                dataset_name=result.data,
                dataset_split="test",
                metric_type=result.metric,
                metric_name=f"{result.protocol} {result.metric}",
                metric_value=round(result.mean, 2),
            )
        ],
    )
    origin = used["pretrained_on"]
    return render_card(
        FinetunedCard(
            metadata=metadata,
            name=name,
            architecture=architecture,
            ours=architecture.startswith(_OURS),
            auto_class=kind.auto_class,
            task=used["task"],
            data=result.data,
            base=result.model,
            pretrained_on=[origin] if isinstance(origin, str) else origin or [],
            labelled_images=used["runs"][0]["labelled_images"],
            bands=used["bands"],
            answer=kind.answer,
            table=table([result]),
            trainings=len(result.values),
            seed=used["seeds"][0],
            score=result.values[0],
            test_images=used["test_images"],
            by_class=_by_class(result, classes),
            validation=used["validation"],
            command=result.command,
        )
    )


def _by_class(result: Result, classes: Sequence[str]) -> str:
    """A table of the first seed's scores of each class, for masks and single classes."""
    there = {key: title for key, title in _BY_CLASS.items() if key in result.scores}
    scores = {title: result.scores[key][0] for key, title in there.items()}
    if not scores or any(len(values) != len(classes) for values in scores.values()):
        return ""
    rows = [
        [
            name,
            *(
                "-" if values[number] is None else f"{100 * values[number]:.1f}"
                for values in scores.values()
            ),
        ]
        for number, name in enumerate(classes)
    ]
    return markdown_table(["class", *scores], rows)
