"""From settings to the method that is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .. import backbones
from ..errors import UserError
from ..methods import method_classes
from ..methods.base import SslModel
from .config import RunConfig

# Fields of a method's config that the run's other settings and the data decide.
FROM_THE_RUN = {
    *("backbone_config", "bands", "value_range", "image_mean", "image_std", "image_size"),
}


@dataclass
class DataInfo:
    """What the method's config takes from the data."""

    value_range: tuple[float, float]
    image_mean: list[float]
    image_std: list[float]


def build_method(config: RunConfig, info: DataInfo, previous: Path | None) -> SslModel:
    """The method, with random weights, those of `init_from`, or all of the previous stage's.

    Raises:
        UserError: Unknown method, backbone or setting.
    """
    settings = dict(config.method)
    settings.pop("name")
    name = method_name(config)
    config_class, model_class = method_classes(name)
    # transformers' configs store unknown keywords silently: we check the names here.
    free = {field.name: field.type for field in fields(config_class)}
    shared = {field.name for field in fields(PreTrainedConfig)} | FROM_THE_RUN
    free = {key: kind for key, kind in free.items() if key not in shared}
    if unknown := sorted(set(settings) - set(free)):
        raise UserError(
            f"Unknown setting method.{unknown[0]}; {name} has: {', '.join(sorted(free))}."
        )
    for key, value in settings.items():  # strict configs take no 0 for 0.0
        if free[key] is float and type(value) is int:
            settings[key] = float(value)
        elif type(value) is list and list[float] in get_args(free[key]):
            settings[key] = [float(v) if type(v) is int else v for v in value]
    bands = list(config.band_names)
    settings |= {
        "bands": bands,
        "value_range": list(info.value_range),
        "image_mean": info.image_mean,
        "image_std": info.image_std,
        "image_size": config.image_size,
    }
    try:
        if config.init_from:
            return model_class.from_backbone(config.init_from, **settings)
        trained = (
            None
            if previous is None
            else model_class.from_pretrained(previous, use_safetensors=True)
        )
        if trained is None:
            settings["backbone_config"] = backbones.backbone_config(
                config.backbone, bands=bands, image_size=config.image_size
            )
        else:
            settings["backbone_config"] = trained.config.backbone_config
        model = model_class(config_class(**settings))
        if trained is not None:
            _hand_on(trained, model)
        return model
    except UserError:
        raise
    except StrictDataclassError as error:
        # The sentence is in the cause; the error itself tells it over several lines.
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise UserError(f"Method {name}: {reason}.") from error


def _hand_on(trained: SslModel, model: SslModel) -> None:
    """Gives a stage the weights of the last one; layers that are its own, of a teacher, start anew.

    Raises:
        UserError: Layers of another size.
    """
    weights = model.state_dict()
    for key, value in trained.state_dict().items():
        if key in weights and weights[key].shape != value.shape:
            raise UserError(
                f"A stage changes the size of {key}, from {tuple(value.shape)} to "
                f"{tuple(weights[key].shape)}: settings of layers are the same in all stages."
            )
        if key in weights:
            weights[key] = value
    model.load_state_dict(weights)


def method_name(config: RunConfig) -> str:
    """The method's short name; YAML reads the bare name `false` as a truth value."""
    name = config.method["name"]
    return "false" if name is False else name
