"""What a card says of the protocols that its results were measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.results import Result, protocol_order
from ..papers import PAPERS
from .facts import is_in_domain

# Metric -> the Hub's name for what it measures; accuracy is of images' classes.
TASK_TYPES = {
    "mIoU": "image-segmentation",
    "AP50": "object-detection",
    "mAP": "image-feature-extraction",
}

# Terms of sets that are on no Hub, by the name that weights record.
DERIVED_TERMS = {
    "aid96": (
        "all scenes of AID (Xia et al., 2017) reduced to 96 pixels; cut from Google Earth by the "
        "authors, who state no licence: for research only"
    ),
    "resisc14_96": (
        "14 of the 45 classes of NWPU-RESISC45 (Cheng et al., 2017) at 96 pixels; cut from Google "
        "Earth by the authors, who state no licence: for research only"
    ),
    "rsscn7": "RSSCN7 (Zou et al., 2015) at 128 pixels: for research only",
    "eurosat64": "EuroSAT (Helber et al., 2019): MIT, Copernicus Sentinel data",
    "ucmerced128": "UC Merced Land Use (Yang and Newsam, 2010) at 128 pixels: public domain, USGS",
    "naip_trees": "NAIP tiles of Ventura et al. (2024): CC BY 4.0",
    "dubai256": "aerial images of Dubai: CC0 1.0",
    "czech_ortho256": "Czech orthophotos (CUZK): CC BY 4.0; their masks were not used",
    "natural64": (
        "photographs of Tiny ImageNet, ImageNet and Intel's scenes at 64 pixels: for research only"
    ),
}

_VIEWS = "which two views show one image"
# RSISC's signal -> what its network learns.
_SIGNALS = {
    "instance_discrimination": _VIEWS,
    "inpainting": "the hidden centre of an image",
    "relative_position": "the order of an image's shuffled cells",
}


# What the headline of a card is of, where there is more than one: few labels, then neighbours.
_HEADLINES = {"linear-n20": "with 20 labels a class", "knn20": "by its nearest neighbours"}


def headline(mine: Sequence[Result], shown: Sequence[Result], said: Mapping[str, Any]) -> str:
    """A model's one number, beside what costs nothing on the same images.

    Args:
        mine: The model's results; on data that its pretraining did not see, where there are such.
        shown: Those of the free baselines too.
        said: The model's provenance.
    """
    for protocol, how in _HEADLINES.items():
        own = [result for result in mine if result.protocol == protocol]
        if not own:
            continue
        result = min(own, key=lambda one: (is_in_domain(one.data, said), one.data))
        free = sorted(
            (
                (other.mean, other.model.removeprefix("baseline:").replace("-", " "))
                for other in shown
                if other.model.startswith("baseline:")
                and (other.data, other.protocol) == (result.data, protocol)
            ),
            reverse=True,
        )
        beside = ", ".join(f"{name} {mean:.1f} %" for mean, name in free)
        told = f"**{result.mean:.1f} % on {result.data} {how}**, on frozen features"
        return f"{told}; what costs nothing: {beside}." if beside else f"{told}."
    return ""


def learned(method: str, run: Mapping[str, Any]) -> str:
    """What a run learned, by its own settings: not all that its paper can do.

    Args:
        method: Key of `papers.PAPERS`.
        run: The run's settings; what is not in them is the default.
    """
    settings = run.get("method", {})
    teachers = [str(name) for name in settings.get("teachers", ())]
    also = f"; and what {' and '.join(teachers)} see in an image" if teachers else ""
    return _own(method, run, settings) + also


def _own(method: str, run: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What a run learned by its method's own loss."""
    if method == "rsisc":
        return _SIGNALS[settings.get("signal", "instance_discrimination")]
    if method == "tov":
        return _VIEWS + _path(run)
    if method == "false" and settings.get("confidence", 1.0) == 0:
        return _VIEWS
    if method == "sticl" and settings.get("transfer_probability", 0.1) == 0:
        return "which view shows the same image among a queue of earlier ones"
    if method == "glcnet" and settings.get("global_weight", 0.5) in (0, 1):
        if settings["global_weight"] == 0:
            return "which regions of two views show the same ground"
        return f"{_VIEWS}, by mean and variance of their features"
    return PAPERS[method].learns_from


def _path(run: Mapping[str, Any]) -> str:
    """TOV's path from one set of images to another, and its balance, where a run had them."""
    stages = run.get("stages") or [{}]
    merged = [{**run.get("data", {}), **stage.get("data", {})} for stage in stages]
    names = list(dict.fromkeys(str(data.get("name", "synthetic")) for data in merged))
    path = f"; {', then '.join(names)}" if len(names) > 1 else ""
    balanced = any(data.get("sampling") == "class_balanced" for data in merged)
    return path + (", with categories balanced by their labels" if balanced else "")


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
