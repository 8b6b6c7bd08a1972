"""Tables across data sets: few labels, all stages, and what a start gives masks and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..cards import markdown_table
from ..data.names import natural
from ..evaluation.results import Result, is_yardstick
from ..zoo import WITH_DECODER, ZOO

_FEW, _STAGES = "linear-n20", "@stages"
_TUNED = ("segmentation", "detection")
# Rows of the small table beside our own models: the free ones, and what ImageNet's labels reach.
_BESIDE = ("baseline:image-statistics", "baseline:random-convolutions", "baseline:random-resnet18")


def headline(results: Sequence[Result]) -> str:
    """Markdown table of accuracy with 20 labels a class: a row a model, a column a data set.

    Models that the zoo has no more are left out, and data sets that none of ours was measured on.
    The last column is the mean over all data sets, of models that were measured on each.

    Args:
        results: In any order.
    """
    ours = {model.name for model in ZOO}
    shown = [
        result
        for result in results
        if result.protocol == _FEW
        and (result.model in ours or result.model in _BESIDE or _is_imagenet(result.model))
    ]
    sets = {result.data for result in shown if result.model in ours}
    return _across([result for result in shown if result.data in sets])


def readouts(results: Sequence[Result]) -> str:
    """Markdown tables of what reading all stages gives over the last one, one a protocol.

    Args:
        results: In any order.
    """
    # A protocol that baselines alone have compares nothing.
    learned = [one for one in results if not one.model.startswith("baseline:")]
    found = {one.protocol for one in learned if one.protocol.endswith(_STAGES)}
    parts = []
    for protocol in sorted(found, key=lambda name: (name != _FEW + _STAGES, natural(name))):
        base = protocol.removesuffix(_STAGES)
        last = {(one.model, one.data): one.mean for one in results if one.protocol == base}
        shown = [one for one in results if one.protocol == protocol]
        parts.append(f"`{protocol}`:\n\n{_across(shown, before=last)}")
    return "\n\n".join(parts)


def starts(results: Sequence[Result]) -> str:
    """Markdown table of what a model gives fine-tuning over random weights of its backbone.

    A row for each model of the zoo, data set and number of labels that both were measured with. A
    gain or loss is bold where it is larger than the deviation over the seeds of either side.

    Args:
        results: In any order.
    """
    backbones = {model.name: model.backbone for model in ZOO}
    found = {result.key: result for result in results}
    rows = []
    for result in sorted(results, key=lambda one: (one.data, natural(one.protocol), one.model)):
        task, _, labels = result.protocol.partition("-")
        backbone = backbones.get(result.model.removesuffix(WITH_DECODER))
        other = found.get((f"baseline:random-{backbone}", result.data, result.protocol))
        if task not in _TUNED or other is None:
            continue
        gain = result.mean - other.mean
        told = f"{gain:+.1f}"
        if abs(gain) > max(result.std, other.std):
            told = f"**{told}**"
        sides = (f"{one.mean:.1f} ± {one.std:.1f}" for one in (other, result))
        rows.append((result.data, result.metric, labels, result.model, *sides, told))
    if not rows:
        return ""
    head = ("data", "metric", "labelled images", "model", "random weights", "the model's", "gain")
    return markdown_table(head, rows)


def plain(results: Sequence[Result]) -> list[Result]:
    """Results at the models' own size and read-out: those that one table compares."""
    return [result for result in results if "@" not in result.protocol]


def _is_imagenet(model: str) -> bool:
    return model.startswith("imagenet-")


def _across(
    results: Sequence[Result], before: Mapping[tuple[str, str], float] | None = None
) -> str:
    """A row a model, a column a data set; free baselines first, then by the mean.

    Args:
        results: Results of one protocol.
        before: (model, data) -> accuracy that a cell's gain is counted from.
    """
    means = {(result.model, result.data): result.mean for result in results}
    sets = sorted({result.data for result in results})
    if not sets:
        return ""
    averages = {}
    for model in {result.model for result in results}:
        values = [means[model, data] for data in sets if (model, data) in means]
        averages[model] = sum(values) / len(values) if len(values) == len(sets) else None
    models = sorted(
        averages, key=lambda name: (not is_yardstick(name), -(averages[name] or 0), name)
    )
    rows = []
    for model in models:
        cells = [_cell(means, before, model, data) for data in sets]
        mean = averages[model]
        rows.append((model, *cells, "-" if mean is None else f"{mean:.1f}"))
    return markdown_table(("model", *sets, "mean"), rows)


def _cell(
    means: Mapping[tuple[str, str], float],
    before: Mapping[tuple[str, str], float] | None,
    model: str,
    data: str,
) -> str:
    value = means.get((model, data))
    if value is None:
        return "-"
    start = (before or {}).get((model, data))
    return f"{value:.1f}" if start is None else f"{value:.1f} ({value - start:+.1f})"
