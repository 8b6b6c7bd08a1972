"""Native transformers backbones: build them, and read their features.

Everything that users load is a plain model of transformers (`ResNetModel`, `SwinModel`, ...). They
differ in small ways (the shape of the pooled output, windows that do not fit a small image,
position embeddings of another size, a pooler with weights), which their family knows (`families`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, cat, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from ..bands import resolve_bands
from ..errors import UserError
from .families import family, family_of_name


def backbone_config(
    name: str, *, bands: str | Sequence[str] = "rgb", image_size: int = 224
) -> PreTrainedConfig:
    """Configuration of a backbone by name.

    Args:
        name: One of `BACKBONES`.
        bands: Band names or a group such as "rgb"; their number is the number of input channels.
        image_size: Side of the training images in pixels. It sets the position embeddings of a ViT;
            ResNet and Swin take any size anyway.

    Raises:
        UserError: Unknown name, or an image smaller than one patch.
    """
    num_channels = len(resolve_bands(bands))
    return family_of_name(name).config(name, num_channels, image_size)


def build(
    name: str, *, bands: str | Sequence[str] = "rgb", image_size: int = 224
) -> PreTrainedModel:
    """A randomly initialised native backbone; arguments and errors as `backbone_config`.

    Example:
        >>> from rs_models import backbones
        >>> backbone = backbones.build("resnet_nano", bands="rgbn")
        >>> type(backbone).__name__, backbone.config.num_channels
        ('ResNetModel', 4)
    """
    return from_config(backbone_config(name, bands=bands, image_size=image_size))


def from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A randomly initialised native backbone, dilated where its configuration says so.

    Unlike `AutoModel.from_config` it restores what the class itself does not know: the dilation
    recorded by `dilate` and the identity pooler of a ViT.

    Raises:
        UserError: The configuration is of no family that we know.
    """
    kind = family(config)
    model = AutoModel.from_config(config)
    kind.prepare(model)
    return model


def reset_pooler(model: PreTrainedModel) -> PreTrainedModel:
    """Makes a ViT's pooler the identity, frozen; other backbones stay as they are.

    Afterwards `pooler_output == last_hidden_state[:, 0]`.
    """
    family(model).prepare(model)
    return model


def copy_weights(source: PreTrainedModel, target: nn.Module) -> None:
    """Copies a backbone's weights into another of the same size, which may lack unused ones.

    Args:
        source: Native backbone.
        target: Native backbone, or the part of a larger network that is one.

    Raises:
        UserError: Weights that do not fit.
    """
    kind = family(source)
    weights = {key: value for key, value in source.state_dict().items() if kind.is_used(key)}
    result = target.load_state_dict(weights, strict=False)
    left = [*filter(kind.is_used, result.missing_keys), *result.unexpected_keys]
    if left:
        raise UserError(
            f"The backbone's weights do not fit its configuration: {', '.join(left[:3])}."
        )


def feature_dim(config: PreTrainedConfig) -> int:
    """Width D of `pooled` features for a native configuration."""
    return family(config).feature_dim(config)


def output_stride(config: PreTrainedConfig) -> int:
    """Image side over the side of the `dense` feature map, with a ResNet dilated as recorded."""
    return family(config).output_stride(config)


def pooled(model: PreTrainedModel, x: Tensor) -> Tensor:
    """One feature vector an image: global average (ResNet, Swin, ...) or class token (ViT).

    Args:
        model: Native backbone.
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        (B, D), in the dtype of the model (float32 outside autocast).

    Example:
        >>> import torch
        >>> from rs_models import backbones
        >>> backbone = backbones.build("resnet_nano").eval()
        >>> backbones.pooled(backbone, torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 128])
    """
    return family(model).pool(_forward(model, x))


def dense(model: PreTrainedModel, x: Tensor) -> Tensor:
    """The last feature map.

    Args:
        model: Native backbone.
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        (B, D, h, w), where h and w are the image's divided by the output stride (patch size for a
        ViT).
    """
    return family(model).map(model, x, _forward(model, x))


def pooled_and_dense(model: PreTrainedModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """What `pooled` and `dense` give, from one forward: (B, D) and (B, D, h, w)."""
    output = _forward(model, x)
    return family(model).pool(output), family(model).map(model, x, output)


def stages(model: PreTrainedModel, x: Tensor) -> tuple[Tensor, ...]:
    """The feature map after each stage, from one forward.

    Args:
        model: Native backbone with stages (a ResNet, dilated or not, or a Swin, but no ViT).
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        One (B, D_i, h_i, w_i) a stage, D_i as `stage_dims` says; the first has stride 4, and the
        last is that of `dense` (for a Swin after the final norm, the others before any).

    Raises:
        UserError: A ViT, which has one resolution only.
    """
    stage_dims(model.config)  # refuses a ViT
    _check_bands(model, x)
    return family(model).stages(model, x)


def stage_dims(config: PreTrainedConfig) -> tuple[int, ...]:
    """Width D_i of each map of `stages` for a native configuration.

    Raises:
        UserError: A ViT, which has one resolution only.
    """
    return family(config).stage_dims(config)


def stage_means(model: PreTrainedModel, x: Tensor) -> Tensor:
    """The means of all stages' maps one behind the other; of a ViT, class token and patches' mean.

    Args:
        model: Native backbone.
        x: Normalised images, (B, C, H, W), any size.

    Returns:
        (B, D), D as `stage_means_dim` says.
    """
    if _has_stages(model.config):
        return cat([stage.mean((2, 3)) for stage in stages(model, x)], dim=1)
    whole, patches = pooled_and_dense(model, x)
    return cat((whole, patches.mean((2, 3))), dim=1)


def stage_means_dim(config: PreTrainedConfig) -> int:
    """Width of `stage_means` for a native configuration."""
    return sum(stage_dims(config)) if _has_stages(config) else 2 * feature_dim(config)


def _has_stages(config: PreTrainedConfig) -> bool:
    try:
        stage_dims(config)
    except UserError:
        return False
    return True


def classifier_input(model: PreTrainedModel, x: Tensor) -> Tensor:
    """What transformers' classifier of this family reads, from images (B, C, H, W) of any size."""
    _check_bands(model, x)
    return family(model).classified(model, x)


def _forward(model: PreTrainedModel, x: Tensor) -> Any:
    _check_bands(model, x)
    return family(model).forward(model, x)


def _check_bands(model: PreTrainedModel, x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != model.config.num_channels:
        raise UserError(
            f"The backbone takes images (B, {model.config.num_channels}, H, W) but got "
            f"{tuple(x.shape)}: give it the bands that it was built for, or adapt its stem with "
            "`backbones.restem`."
        )
