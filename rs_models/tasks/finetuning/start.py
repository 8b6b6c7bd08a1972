"""What fine-tuning starts from, looked up before any data is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import backbones
from ...backbones.loading import read_config
from ...errors import UserError
from ...evaluation.baselines import PREFIX
from ...evaluation.loading import load_encoder
from ...preprocessing import Preprocessing
from ...zoo import WITH_DECODER, resolve, run_name
from ..segmenters import SEGMENTERS
from ..table import task
from .config import FinetuneConfig

_RANDOM = f"{PREFIX}random-"


@dataclass
class Start:
    """Where fine-tuning starts from, looked up before any data is read.

    Attributes:
        source: Folder, id, or timm name; the backbone's name where it is random.
        kind: "backbone", "random" or "segmentation" (a whole network, decoder included).
        name: For results.
        revision: For results; None where weights are drawn anew each seed.
        pretrained_on: For results.
        preprocessing: Preprocessing of the weights; None for random ones.
    """

    source: str
    kind: str
    name: str
    revision: str | None
    pretrained_on: Any
    preprocessing: Preprocessing | None


def find_start(config: FinetuneConfig) -> Start:
    """Looks the model up.

    Raises:
        UserError: Nothing by that name, or a network that does not fit the task.
    """
    name = config.model
    if name.startswith(_RANDOM):
        backbone = name.removeprefix(_RANDOM)
        backbones.backbone_config(backbone)  # refuses an unknown name
        return Start(backbone, "random", config.name or name, None, None, None)
    if name.startswith(PREFIX):
        raise UserError(
            f"The setting model={name} has no weights to fine-tune: use {_RANDOM}<backbone>."
        )
    source = resolve(name)
    folder = Path(source)
    if folder.is_dir():
        settings = read_config(source)
        if settings.get("model_type") in [kind.model_type for kind, _ in SEGMENTERS]:
            return _whole_network(config, source, settings)
    encoder: Any = load_encoder(name, revision=config.revision)
    return Start(
        source=name,
        kind="backbone",
        name=config.name or encoder.name,
        revision=encoder.revision,
        pretrained_on=encoder.pretrained_on,
        preprocessing=encoder.preprocessing,
    )


def _whole_network(config: FinetuneConfig, source: str, settings: dict[str, Any]) -> Start:
    if task(config.task).auto_class != "AutoModelForSemanticSegmentation":
        raise UserError(
            f"{config.model} is a segmentation network ({settings['model_type']}), task is "
            f"{config.task}: give the backbone, which a run keeps in `export`."
        )
    if config.head_settings:
        raise UserError(f"The head_settings are those of {config.model}: leave them out.")
    record = settings.get("rs_models") or (settings.get("backbone_config") or {}).get("rs_models")
    if record is None:
        raise UserError(f"{config.model} does not say how its images are normalised (rs_models).")
    return Start(
        source=source,
        kind="segmentation",
        name=config.name or f"{Path(run_name(source)).name}{WITH_DECODER}",
        revision=None,
        pretrained_on=record.get("data"),
        preprocessing=Preprocessing.of(record),
    )
