"""Networks around a native backbone: its config inside theirs, its weights copied into theirs."""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec

from ..errors import UserError
from .loading import load
from .native import backbone_config, copy_weights


@strict
class NestedBackboneConfig(PreTrainedConfig):
    """Settings of a network whose backbone has a config of its own.

    Args:
        backbone_config: Config of the native backbone; a ResNet-50 over RGB when none is given.
    """

    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet")
    }

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Builds the nested config: a copy, so that no config of a model in use changes."""
        given = self.backbone_config
        if given is None:
            given = self.default_backbone()
        settings = dict(given) if isinstance(given, dict) else given.to_dict()
        self.backbone_config = AutoConfig.for_model(
            settings.pop("model_type", "resnet"), **settings
        )
        self.settle()
        super().__post_init__(**kwargs)

    def default_backbone(self) -> PreTrainedConfig:
        """Config of the backbone where none is given."""
        return backbone_config("resnet50")

    def settle(self) -> None:
        """Brings the nested config and the network's own settings together."""

    @property
    def native(self) -> PreTrainedConfig:
        """The backbone's config, which is never a plain dict after construction."""
        return cast(PreTrainedConfig, self.backbone_config)


class OverBackbone:
    """Ways to build a network over a trained backbone; a mixin of `PreTrainedModel`s.

    The network has the backbone under `backbone`, and a `NestedBackboneConfig`.
    """

    config_class: Any
    backbone: Any

    @classmethod
    def from_backbone(
        cls, name_or_path: str, *, bands: str | Sequence[str] | None = None, **settings: Any
    ) -> Self:
        """A network with trained backbone and random new parts, in evaluation mode.

        Args:
            name_or_path: What `backbones.load` takes: a native folder, a Hub id or a timm name.
            bands: Bands of the images to come; the stem is adapted where the weights have others.
            **settings: Fields of the config, `num_labels` or `id2label` among them.

        Raises:
            UserError: An unknown setting, a backbone that does not fit the network, or whatever
                `backbones.load` says.
        """
        check_settings(cls.config_class, settings)  # before anything is loaded
        return cls.over(load(name_or_path, bands=bands), **settings)

    @classmethod
    def over(cls, backbone: PreTrainedModel, **settings: Any) -> Self:
        """The same over a native backbone in memory, whose weights are copied."""
        check_settings(cls.config_class, settings)
        cls.check_backbone(backbone.config)
        try:
            config = cls.config_class(backbone_config=backbone.config.to_dict(), **settings)
        except StrictDataclassError as error:
            reason = str(error.__cause__ or error).rstrip(".")
            raise UserError(f"{cls.config_class.__name__}: {reason}.") from error
        model: Any = cls(config)  # type: ignore[call-arg]  # a PreTrainedModel beside it
        model.load_backbone(backbone)
        return model.eval()

    @classmethod
    def check_backbone(cls, native: PreTrainedConfig) -> None:
        """Refuses a backbone that the network cannot stand on; by default none."""

    def load_backbone(self, trained: PreTrainedModel) -> None:
        """Copies a backbone's weights; what its features do not depend on stays behind."""
        copy_weights(trained, self.backbone)


def check_settings(config_class: type[PreTrainedConfig], settings: Mapping[str, Any]) -> None:
    """Refuses what is no field of a config.

    Raises:
        UserError: Naming the settings.
    """
    known = {field.name for field in dataclasses.fields(config_class)} | {"num_labels"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UserError(
            f"{config_class.__name__} has no setting {', '.join(unknown)}: see its docstring."
        )
