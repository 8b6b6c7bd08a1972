"""What a family of backbones is: all that differs between ResNet, Swin, ViT and their like.

One file a family (`resnet`, `swin`, `vit`, ...) holds one frozen object of a subclass, and
`families` lists them. Everything else asks the object and names no family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import UserError

# (pattern of a native name, timm's replacement), applied in order to the whole name.
Names = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Family:
    """A family of native backbones; methods that a family shares with most are here.

    Attributes:
        model_type: transformers' name of it, as config.json says.
        model_class: The native class.
        title: As a sentence calls it.
        long_title: As a card calls it.
        sizes: Name of a backbone -> what tells its size; the family alone reads it.
        stem: Path of the first convolution, whose slices are the bands.
        counts_bands: Path of the module that checks the number of bands, "" where none does.
        unused: Beginnings of names of weights that the features do not depend on.
        has_stages: Whether it has a pyramid of maps, which detectors and UperNet need.
        strides: Output strides that it can be dilated to; none where it cannot be.
        plain_stride: The stride of a network that can be dilated, where nothing dilates it.
        attends: Whether a class token attends to places, as pictures of attention need it.
        fixed_size: Whether timm builds it for one image size.
        onnx_fixed: Whether an ONNX file of it is for one image size.
        maps_prefix: What leads the backbone's names in transformers' class that gives maps.
        final: Beginning of the names that come after all layers.
        timm_names: How timm's names are made of the native ones.
        timm_first: timm's name of the first convolution.
        timm_classifier: timm's name of the classifier.
    """

    model_type: str
    model_class: type[PreTrainedModel]
    title: str
    long_title: str
    sizes: Mapping[str, Any]
    stem: str
    counts_bands: str = ""
    unused: tuple[str, ...] = ()
    has_stages: bool = True
    strides: tuple[int, ...] = ()
    plain_stride: int | None = None
    attends: bool = False
    fixed_size: bool = False
    onnx_fixed: bool = False
    maps_prefix: str = ""
    final: str = "layernorm."
    timm_names: Names = field(default=(), repr=False)
    timm_first: str = ""
    timm_classifier: str = "head"

    _depth: ClassVar[re.Pattern[str]] = re.compile(r"(?:stages|layers|layer)\.(\d+)\.")

    # --- building -------------------------------------------------------------------------------

    def config(self, name: str, num_channels: int, image_size: int) -> PreTrainedConfig:
        """The configuration of one of `sizes`."""
        raise NotImplementedError

    def prepare(self, model: PreTrainedModel, output_stride: int | None = None) -> None:
        """Does in place what the native class does not know of a model that was built or loaded.

        Args:
            model: A model of this family.
            output_stride: As the record of its weights says; None where there is none.
        """

    def drop_unused(self, model: PreTrainedModel) -> None:
        """Takes weights away that would get no gradient, which stops distributed training."""

    def dilate(self, model: PreTrainedModel, output_stride: int, first: bool) -> None:
        """Turns strides into dilations in place; `first` dilates a stage's first block too."""
        raise UserError(
            f"Only a ResNet can be dilated, not '{self.model_type}': drop output_stride."
        )

    def is_used(self, key: str) -> bool:
        """Whether the features depend on a weight."""
        return not key.startswith(self.unused) if self.unused else True

    # --- sizes ----------------------------------------------------------------------------------

    def feature_dim(self, config: Any) -> int:
        """Width D of pooled features."""
        return config.hidden_size

    def output_stride(self, config: Any) -> int:
        """Image side over the side of the last map."""
        raise NotImplementedError

    def stage_dims(self, config: Any) -> tuple[int, ...]:
        """Width of each stage's map."""
        raise UserError(
            f"A {self.title} has no stages, only one feature map: use a ResNet or a Swin."
        )

    def processor_size(self, config: Any, train_size: int) -> int:
        """Side in pixels that a plain model of transformers is fed with."""
        return train_size

    # --- features -------------------------------------------------------------------------------

    def forward(self, model: PreTrainedModel, x: Tensor, **outputs: bool) -> Any:
        """Native forward at any image size; `outputs` asks for more than the last map."""
        return model(x, **outputs)

    def pool(self, output: Any) -> Tensor:
        """(B, D) of a forward's output."""
        return output.pooler_output.flatten(1)

    def map(self, model: PreTrainedModel, x: Tensor, output: Any) -> Tensor:
        """(B, D, h, w) of a forward's output."""
        return output.last_hidden_state

    def stages(self, model: PreTrainedModel, x: Tensor) -> tuple[Tensor, ...]:
        """Each stage's map, from one forward."""
        return tuple(self.forward(model, x, output_hidden_states=True).hidden_states[1:])

    def classified(self, model: PreTrainedModel, x: Tensor) -> Tensor:
        """What transformers' own classifier of this family reads, (B, D) or wider."""
        return self.pool(self.forward(model, x))

    # --- fine-tuning ----------------------------------------------------------------------------

    def depths(self, names: Iterable[str]) -> dict[str, int]:
        """How deep each weight lies: 0 for the stem, then the layer's number from 1 on."""
        depths = {
            name: int(match[1]) + 1 if (match := self._depth.search(name)) else 0 for name in names
        }
        # A final norm belongs to no layer but comes after all of them.
        last = max(depths.values(), default=0)
        return {n: last if n.startswith(self.final) else depth for n, depth in depths.items()}

    # --- export and cards -----------------------------------------------------------------------

    def settle(self, config: Any, weights: dict[str, Tensor], train_size: int) -> None:
        """Fits configuration and weights in place to plain calls at the training size."""

    def describe(self, config: Mapping[str, Any]) -> str:
        """The architecture in words, of the contents of config.json."""
        raise NotImplementedError

    # --- timm -----------------------------------------------------------------------------------

    def timm_settings(self, config: Any) -> dict[str, Any]:
        """Timm's architecture, num_features and model_args."""
        raise NotImplementedError

    def native_config(self, timm_model: Any) -> PreTrainedConfig | None:
        """The configuration of a timm model; None where it is no plain one of this family."""
        raise NotImplementedError

    def timm_name(self, key: str) -> str:
        """Timm's name of a weight."""
        for pattern, replacement in self.timm_names:
            key = re.sub(pattern, replacement, key)
        return key

    def to_timm(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights under timm's names -> as timm holds them."""
        return weights

    def of_timm(self, weights: dict[str, Tensor], native: nn.Module) -> dict[str, Tensor]:
        """What timm holds -> the same names, as `to_timm` takes them."""
        return weights


def listed(values: Iterable[int]) -> str:
    """Numbers as a card writes them."""
    return "-".join(map(str, values))


def named_by_timm(
    architecture: str, num_features: int, given: dict[str, Any], standard: dict[str, Any]
) -> dict[str, Any]:
    """Timm's keys of an architecture: only what differs from its standard is an argument."""
    changed = {key: value for key, value in given.items() if value != standard[key]}
    keys: dict[str, Any] = {"architecture": architecture, "num_features": num_features}
    return {**keys, "model_args": changed} if changed else keys


# Names that timm's transformers share.
TIMM_ATTENTION: Names = (
    (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
)
