"""What a card says of the protocols that its results were measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.results import Result, protocol_order

# Metric -> the Hub's name for what it measures; accuracy is of images' classes.
TASK_TYPES = {
    "mIoU": "image-segmentation",
    "AP50": "object-detection",
    "mAP": "image-feature-extraction",
}


def protocols(results: Sequence[Result]) -> list[str]:
    """One phrase a protocol, with the settings that its results record."""
    said = {}
    for result in results:
        used, base = result.settings, result.protocol.partition("@")[0]
        if "tune" in used:
            said[result.protocol] = f"`{result.protocol}`: {_tuned(used)}"
        elif base.startswith("retrieval"):
            said[result.protocol] = (
                f"`{result.protocol}`: mAP of the {used['k']} most similar training images"
            )
        elif "source" in used:
            labels = f"{used['images_per_class']} labels a class" if "draws" in used else "labels"
            said[result.protocol] = (
                f"`{result.protocol}`: logistic regression on {labels} of {used['source']}, not of "
                f"{result.data}"
            )
        elif "places" in used:
            said[result.protocol] = (
                f"`{result.protocol}`: logistic regression on all places but the tested one"
            )
        elif base.startswith("knn"):
            vote = (
                f", temperature {used['temperature']}" if used.get("temperature") else ", counted"
            )
            said[result.protocol] = f"`{result.protocol}` votes of {used['k']} neighbours{vote}"
        elif "images_per_class" in used:
            said[result.protocol] = (
                f"`{result.protocol}`: logistic regression on {used['images_per_class']} labels a "
                f"class (C {used['c']:g})"
            )
        else:
            said[result.protocol] = f"`{result.protocol}`: logistic regression on all labels"
    return [said[key] for key in sorted(said, key=protocol_order)]


def _tuned(used: Mapping[str, Any]) -> str:
    """What a fine-tuning protocol trains on what."""
    what = {
        "full": "all weights tuned",
        "frozen": "the head alone trained",
        "layer_decay": "all weights tuned, the stem least",
    }[used["tune"]]
    head = {"deeplabv3plus": "DeepLabV3+", "fcn": "FCN", "upernet": "UperNet"}.get(
        used.get("head", ""), "Faster R-CNN" if used["task"] == "detection" else "a linear layer"
    )
    labels = str(used["labels"])
    if labels == "all":
        amount = "all labelled images"
    elif labels.endswith("/class"):
        amount = f"{labels.removesuffix('/class')} labels a class"
    else:
        amount = f"{labels} {'of the ' if '%' in labels else ''}labelled images"
    return f"{what}, with {head}, on {amount}"


def draws(results: Sequence[Result]) -> str:
    """What brackets and deviations of a table mean."""
    counts = {len(result.values) for result in results if len(result.values) > 1}
    interval = "the 95 % bootstrap interval over the test images"
    if not counts:
        return f"Brackets hold {interval}."
    draws = " or ".join(map(str, sorted(counts)))
    return f"Brackets hold {interval}; ± is the deviation of {draws} draws."


# Terms of sets that are on no Hub, by the name that weights record.
DERIVED_TERMS = {
    "aid96": (
        "all scenes of AID (Xia et al., 2017) reduced to 96 pixels; cut from Google Earth by the "
        "authors, who state no licence: for research only"
    ),
}
