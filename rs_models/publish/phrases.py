"""What a card says of the protocols that its results were measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.names import sets_of
from ..evaluation.results import Result, protocol_order
from ..papers import PAPERS
from .facts import Facts, is_in_domain

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
    "autoencoder": "the image itself, by way of its features alone",
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
    merged = [{**settings, **stage.get("method", {})} for stage in stages(run)]
    teachers = list(dict.fromkeys(str(t) for own in merged for t in own.get("teachers") or ()))
    if not teachers:
        return _own(method, run, settings)
    stages_too = any(own.get("teacher_readout") == "stages" for own in merged)
    see, their = ("sees", "its") if len(teachers) == 1 else ("see", "their")
    how = f" in all {their} stages" if stages_too else ""
    return (
        f"{_own(method, run, settings)}; and what {' and '.join(teachers)} {see} in an image{how}"
    )


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
    merged = [{**run.get("data", {}), **stage.get("data", {})} for stage in stages(run)]
    names = list(dict.fromkeys(str(data.get("name", "synthetic")) for data in merged))
    path = f"; {', then '.join(names)}" if len(names) > 1 else ""
    return path + (", with categories balanced by their labels" if balances(run) else "")


def stages(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each stage of a run sets beside the run's settings; one empty where it has no stages."""
    return run.get("stages") or [{}]


def balances(run: Mapping[str, Any]) -> bool:
    """Whether a run drew its images by their labels, in any stage."""
    groups = [run, *stages(run)]
    return any(group.get("data", {}).get("sampling") == "class_balanced" for group in groups)


@dataclass(frozen=True)
class Course:
    """How weights came about.

    Attributes:
        data: What the run itself learned from, in its order; empty where its settings do not say.
        staged: Whether stages name data of their own.
        start: Weights that the run started from; empty for random ones.
        before: Epochs of these; None where it is not known.
        own: Epochs of the run itself; None where its settings do not say.
    """

    data: tuple[str, ...] = ()
    staged: bool = False
    start: str = ""
    before: float | None = None
    own: float | None = None


def course(facts: Facts) -> Course:
    """How a model's weights came about, by the run's settings and the weights' own words.

    Args:
        facts: What is known of the model; its provenance counts the epochs of earlier weights too.
    """
    run = facts.run
    starts = [stage.get("init_from") for stage in stages(run)]
    starts[0] = starts[0] or run.get("init_from")
    first = max((number for number, start in enumerate(starts) if start), default=0)
    own = [stage.get("data", {}).get("name") for stage in stages(run)[first:]]
    named = [name or run.get("data", {}).get("name") for name in own]
    data = tuple(dict.fromkeys(str(name) for name in named if name))
    if not starts[first]:
        return Course(data, any(own))
    lengths = [{**run, **stage} for stage in stages(run)[first:]]
    if not all(stage.get("epochs") and not stage.get("max_steps") for stage in lengths):
        return Course(data, any(own), str(starts[first]))
    epochs = round(sum(stage["epochs"] for stage in lengths), 2)
    # Weights of others do not count theirs; counted by steps, so that 77 epochs come as 76.99.
    before = round(facts.provenance["epochs"] - epochs, 1)
    return Course(data, any(own), str(starts[first]), before if before > 0 else None, epochs)


def beside_free(mine: Sequence[Result], shown: Sequence[Result]) -> str:
    """Where a model is ahead of what costs nothing and where it is not; empty without baselines.

    Args:
        mine: The model's results.
        shown: Those of the free baselines too.
    """
    free: dict[tuple[str, str], float] = {}
    for other in shown:
        if other.model.startswith("baseline:"):
            key = (other.data, other.protocol)
            free[key] = max(free.get(key, other.mean), other.mean)
    compared = [result for result in mine if (result.data, result.protocol) in free]
    if not compared:
        return ""
    behind: dict[str, list[str]] = {}
    for result in compared:
        if result.mean <= free[result.data, result.protocol]:
            behind.setdefault(result.protocol, []).append(result.data)
    told = "Baselines that cost nothing stand above the model. "
    if not behind:
        return told + "It is ahead of the best of them by every measure that both have."
    ahead = len(compared) - sum(map(len, behind.values()))
    where = "; ".join(
        f"by `{protocol}` on {', '.join(sorted(behind[protocol]))}"
        for protocol in sorted(behind, key=protocol_order)
    )
    return (
        f"{told}It is ahead of the best of them in {ahead} of {len(compared)} measures, and not "
        f"{where}: there what costs nothing does at least as well."
    )


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
        if "sides" in used:
            said[result.protocol] += _read_out(used)
        elif result.protocol.rpartition("@")[2].isdecimal():
            said[result.protocol] += f", on images brought to {used['image_size']} pixels"
    return [said[key] for key in sorted(said, key=protocol_order)]


def _read_out(used: Mapping[str, Any]) -> str:
    """What a protocol with another read-out than the last features adds."""
    sides = " and ".join(map(str, used["sides"]))
    whitened = f", whitened by {used['whitened_by']}" if used.get("whitened_by") else ""
    return f", over {used['readout']} at {sides} pixels{whitened}; the network is not trained"


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


def domains(results: Sequence[Result], said: Mapping[str, Any]) -> list[str]:
    """For each data set of results, whether pretraining saw its images, a sentence each."""
    lines = []
    for data in sorted({result.data for result in results}):
        count = max(r.settings.get("test_images", 0) for r in results if r.data == data)
        images = f"{count} test images" if count else "the test images"
        if is_in_domain(data, said):
            lines.append(
                f"{data} ({images}) is in-domain: pretraining saw the unlabelled images of its "
                "other splits, so this says little about other sources. The test images themselves "
                "were in no training."
            )
        else:
            lines.append(f"{data} ({images}) is transfer: pretraining saw none of its images.")
    return lines


def terms(data: Sequence[str]) -> list[str]:
    """Terms of the images that were learned from, data set by data set."""
    from ..data.registry import find

    names = list(dict.fromkeys(own for name in data for own in sets_of(name)))
    told = {name: entry.licence for name in names if (entry := find(name))}
    told |= {name: DERIVED_TERMS[name] for name in names if name in DERIVED_TERMS}
    return [f"{name}: {licence}" for name, licence in told.items()]
