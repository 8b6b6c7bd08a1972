"""ResNet: He et al., CVPR 2016 (arXiv 1512.03385), "v1.5" as in torchvision and timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ResNetConfig, ResNetModel

from ..errors import UserError
from .family import Family, listed

# Sizes are those of the papers and of timm's and torchvision's models of the same name, so that
# weights convert both ways.
# name: (block, blocks a stage, channels a stage)
_SIZES = {
    "resnet18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet34": ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    # Ours, an eighth of a ResNet-18's work: for CPU cores and studies.
    "resnet_mini": ("basic", [1, 1, 1, 1], [32, 64, 128, 256]),
    "resnet_nano": ("basic", [1, 1, 1, 1], [16, 32, 64, 128]),
}
# timm architectures by the native settings that tell them apart; other sizes are given as arguments
# of the first of the family.
_TIMM = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
_PLANES = (64, 128, 256, 512)
_EXPANSION = 4  # of a bottleneck
_NAMES = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)


@dataclass(frozen=True)
class ResNet(Family):
    """Convolutions in four stages; the last ones may be dilated."""

    def config(self, name: str, num_channels: int, image_size: int) -> PreTrainedConfig:
        """The configuration of one of `sizes`; any image size fits."""
        layer_type, depths, hidden_sizes = self.sizes[name]
        return ResNetConfig(
            num_channels=num_channels,
            layer_type=layer_type,
            depths=list(depths),
            hidden_sizes=list(hidden_sizes),
            # The stride sits in the 3x3 convolution, as in torchvision and timm ("v1.5").
            downsample_in_bottleneck=False,
        )

    def prepare(self, model: PreTrainedModel, output_stride: int | None = None) -> None:
        """Dilates as the record of the weights or the configuration says."""
        config = model.config
        stride = output_stride or getattr(config, "output_stride", None)
        if stride:
            self.dilate(model, stride, getattr(config, "first_block_dilated", False))

    def dilate(self, model: PreTrainedModel, output_stride: int, first: bool) -> None:
        """Turns the strides of the last stages into dilations."""
        if output_stride not in self.strides:
            raise UserError(f"The setting output_stride is {output_stride}: use 8, 16 or 32.")
        # A block's stride sits in its first convolution, or in the 3x3 of a bottleneck ("v1.5").
        config = model.config
        in_first = config.layer_type == "basic" or config.downsample_in_bottleneck
        reached, dilation = 4, 1
        stages: Any = model.get_submodule("encoder.stages")
        for index, stage in enumerate(stages):
            stride = 2 if index or config.downsample_in_first_stage else 1
            before = dilation
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            for block_index, block in enumerate(stage.layers):
                # Only the first 3x3 convolution of a stage may keep the dilation of the stage
                # before.
                _dilate_block(block, dilation, before if block_index == 0 and not first else None)
                if block_index == 0:
                    convolutions = [layer.convolution for layer in block.layer]
                    convolutions[0 if in_first else 1].stride = (stride, stride)
                    if hasattr(block.shortcut, "convolution"):
                        block.shortcut.convolution.stride = (stride, stride)
        config.output_stride, config.first_block_dilated = output_stride, first

    def feature_dim(self, config: Any) -> int:
        """Channels of the last stage."""
        return config.hidden_sizes[-1]

    def output_stride(self, config: Any) -> int:
        """32, or less where it is dilated."""
        halvings = len(config.depths) - 1 + config.downsample_in_first_stage
        return getattr(config, "output_stride", None) or 4 * 2**halvings

    def stage_dims(self, config: Any) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(config.hidden_sizes)

    def describe(self, config: Mapping[str, Any]) -> str:
        """The name of a known one, else blocks and channels."""
        widths, depths = config["hidden_sizes"], config["depths"]
        for name, size in _SIZES.items():
            if size == (config["layer_type"], list(depths), list(widths)):
                return f"{self.long_title}-{name.removeprefix('resnet').removeprefix('_')}"
        return f"{self.long_title} of {listed(depths)} blocks with {listed(widths)} channels"

    def timm_settings(self, config: Any) -> dict[str, Any]:
        """A name of timm's, with arguments for other sizes than its own."""
        if (
            config.embedding_size != 64
            or config.downsample_in_first_stage
            or config.downsample_in_bottleneck
        ):
            raise UserError(
                "The library timm has no ResNet with this stem or with strides in the first 1x1: "
                "export with "
                "timm=False."
            )
        expansion = _EXPANSION if config.layer_type == "bottleneck" else 1
        planes = tuple(size // expansion for size in config.hidden_sizes)
        shape = (config.layer_type, tuple(config.depths))
        names = [name for name, known in _TIMM.items() if known == shape]
        if names and planes == _PLANES:
            return {"architecture": names[0], "num_features": config.hidden_sizes[-1]}
        return {
            "architecture": "resnet18" if config.layer_type == "basic" else "resnet50",
            "num_features": config.hidden_sizes[-1],
            "model_args": {"layers": list(config.depths), "channels": list(planes)},
        }

    def native_config(self, timm_model: Any) -> PreTrainedConfig | None:
        """Of a plain timm ResNet with a 7x7 stem."""
        from timm.models.resnet import BasicBlock, Bottleneck
        from timm.models.resnet import ResNet as TimmResNet

        if type(timm_model) is not TimmResNet or not isinstance(timm_model.conv1, nn.Conv2d):
            return None
        network: Any = timm_model
        stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        block = type(stages[0][0])
        if block not in (BasicBlock, Bottleneck):
            return None
        last = "conv2" if block is BasicBlock else "conv3"
        return ResNetConfig(
            num_channels=network.conv1.in_channels,
            embedding_size=network.conv1.out_channels,
            layer_type="basic" if block is BasicBlock else "bottleneck",
            depths=[len(stage) for stage in stages],
            hidden_sizes=[getattr(stage[-1], last).out_channels for stage in stages],
        )


def _dilate_block(block: Any, dilation: int, kept: int | None) -> None:
    """Dilates the 3x3 convolutions of a block; `kept` is the first one's, where it has another."""
    convolutions = [layer.convolution for layer in block.layer]
    spatial = [conv for conv in convolutions if conv.kernel_size == (3, 3)]
    for conv in spatial:
        rate = kept if kept is not None and conv is spatial[0] else dilation
        conv.dilation = conv.padding = (rate, rate)


RESNET = ResNet(
    model_type="resnet",
    model_class=ResNetModel,
    title="ResNet",
    long_title="ResNet",
    sizes=_SIZES,
    stem="embedder.embedder.convolution",
    counts_bands="embedder",
    strides=(8, 16, 32),
    plain_stride=32,
    timm_names=_NAMES,
    timm_first="conv1",
    timm_classifier="fc",
)
