"""The card of a classifier that was learned from the labels of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..cards import CardData, markdown_table, render_card
from .classify import Answers, calibration_error, wilson
from .head import softmax

# Tells where the card came from.
MARK = "<!-- rendered by rs-models classify -->"


@dataclass(frozen=True, kw_only=True)
class LabelledCard(CardData):
    """What the card is filled from.

    Attributes:
        template: Template of this kind of card.
        mark: Mark that tells a card of ours.
        architecture: Class of the network.
        base: Model that is the backbone.
        data: Images that the table was made of.
        labelled: Number of labelled tiles.
        classes: Names of the classes.
        bands: Bands that the model sees, in their order.
        accuracy: Estimated share of right answers, in percent.
        low: Lower end of its interval.
        high: Upper end of its interval.
        error: Expected calibration error, in percent.
        table: Labels and answers of each class, Markdown.
    """

    template: ClassVar[str] = "labelled_card.md.j2"
    mark: str
    architecture: str
    base: str
    data: str
    labelled: int
    classes: Sequence[str]
    bands: Sequence[str]
    accuracy: float
    low: float
    high: float
    error: float
    table: str


def classifier_card(answers: Answers, job: Mapping[str, Any], architecture: str) -> str:
    """README.md of a saved classifier.

    Args:
        answers: From `classify`; measured is the classifier alone, without neighbours' help.
        job: What the table holds, see `evaluation.embed.Job`.
        architecture: Class of the network.
    """
    from huggingface_hub import ModelCardData

    model = str(job["model"])
    name = f"Classes of {job['data']}"
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=model if "/" in model else None,
        tags=["remote-sensing", "earth-observation", "few-label", "rs_models"],
    )
    head = answers.head
    right = head.held_out.argmax(1) == head.classes
    held_out = softmax(head.held_out / head.temperature)
    labels = [int((head.classes == number).sum()) for number in range(len(answers.names))]
    rows = [(f"`{name}`", str(count)) for name, count in zip(answers.names, labels, strict=True)]
    low, high = wilson(int(right.sum()), len(right))
    return render_card(
        LabelledCard(
            metadata=metadata,
            name=name,
            mark=MARK,
            architecture=architecture,
            base=model,
            data=str(job["data"]),
            labelled=answers.labelled,
            classes=answers.names,
            bands=list(job["bands"]),
            accuracy=100 * float(right.mean()),
            low=low,
            high=high,
            error=calibration_error(held_out, head.classes),
            table=markdown_table(("class", "labels"), rows),
        )
    )
