"""The card of a fine-tuned model, from its result and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...evaluation.results import Result, table
from ..table import task

_OURS = ("DeepLabV3Plus", "Fcn", "FasterRcnn")
_BY_CLASS = {"iou": "IoU", "f1": "F1"}


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
    pipeline, auto = kind.pipeline, kind.auto_class
    name = re.sub(r"[^A-Za-z0-9._%-]+", "-", f"{result.model}-{result.data}-{result.protocol}")
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag=pipeline,
        base_model=result.model if "/" in result.model else None,
        tags=["remote-sensing", "few-label", "self-supervised-learning", "rs_models"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=pipeline,
                dataset_type=result.data,
                dataset_name=result.data,
                dataset_split="test",
                metric_type=result.metric,
                metric_name=f"{result.protocol} {result.metric}",
                metric_value=round(result.mean, 2),
            )
        ],
    )
    labels = used["runs"][0]["labelled_images"]
    origin = used["pretrained_on"]
    pretrained = ", ".join([origin] if isinstance(origin, str) else origin or [])
    first = "import rs_models  # registers the network\n" if architecture.startswith(_OURS) else ""
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"`{architecture}` for {used['task']} of {result.data}, fine-tuned from {result.model}"
        + (f" (pretrained without labels on {pretrained})" if pretrained else "")
        + f" on {labels} labelled images. Bands: {', '.join(used['bands'])}.",
        f"```python\n{first}from transformers import {auto}, AutoImageProcessor\n\n"
        f'model = {auto}.from_pretrained("FOLDER_OR_ID")\n'
        'processor = AutoImageProcessor.from_pretrained("FOLDER_OR_ID")\n```',
        f"```bash\nrs-models predict scene.tif --model FOLDER_OR_ID --output {kind.answer}\n```",
        "## Results",
        table([result]),
        f"± is the deviation over {len(result.values)} seeds, each with labels of its own"
        if len(result.values) > 1
        else "Brackets hold the 95 % bootstrap interval over the test images",
    ]
    parts[-1] += f"; {used['test_images']} test images, looked at once a seed. These weights are"
    parts[-1] += f" those of seed {used['seeds'][0]} ({result.values[0]:.1f})."
    parts += _by_class(result, classes)
    parts += [
        "## Training",
        f"Early stopping on: {used['validation']}. Command:",
        f"```bash\n{result.command}\n```",
        "What was learned from few labelled images of one source says little about other sources, "
        "seasons and sensors: measure on yours.",
    ]
    return "\n\n".join(parts) + "\n"


def _by_class(result: Result, classes: Sequence[str]) -> list[str]:
    """A table of the first seed's scores of each class, for masks and single classes."""
    there = {key: said for key, said in _BY_CLASS.items() if key in result.scores}
    scores = {said: result.scores[key][0] for key, said in there.items()}
    if not scores or any(len(values) != len(classes) for values in scores.values()):
        return []
    lines = [f"| class | {' | '.join(scores)} |", "|---" * (len(scores) + 1) + "|"]
    for number, name in enumerate(classes):
        cells = [
            "-" if values[number] is None else f"{100 * values[number]:.1f}"
            for values in scores.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return ["\n".join(lines)]
