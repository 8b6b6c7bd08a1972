"""transformers' UperNet on a native backbone: one builder, no code of our own in the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, UperNetConfig, UperNetForSemanticSegmentation

from .. import backbones
from ..backbones.nested import check_settings
from ..data.names import IGNORE
from ..errors import UserError


def upernet(
    name_or_path: str,
    num_labels: int,
    *,
    bands: str | Sequence[str] | None = None,
    **settings: Any,
) -> UperNetForSemanticSegmentation:
    """An UperNet (Xiao et al., 2018, arXiv 1807.10221) with trained backbone and random decoder.

    It is saved and loaded by transformers alone. Give it sides that are multiples of 32 pixels.

    Args:
        name_or_path: What `backbones.load` takes: a native folder, a Hub id or a timm name.
        num_labels: Number of classes.
        bands: Bands of the images to come; the stem is adapted where the weights have others.
        **settings: Fields of `UperNetConfig`, `use_auxiliary_head` among them.

    Returns:
        In evaluation mode. `labels` (B, H, W) of 255 are left out of its loss.

    Raises:
        UserError: A ViT, which has one resolution only, or whatever `backbones.load` says.
    """
    return over(backbones.load(name_or_path, bands=bands), num_labels, **settings)


def over(
    trained: PreTrainedModel, num_labels: int, **settings: Any
) -> UperNetForSemanticSegmentation:
    """The same over a native backbone in memory, whose weights are copied."""
    dims = backbones.stage_dims(trained.config)  # refuses a ViT
    if backbones.output_stride(trained.config) != 32:
        raise UserError(
            "This backbone was trained dilated, which transformers' UperNet cannot be: use "
            "DeepLabV3PlusForSemanticSegmentation."
        )
    native = trained.config.to_dict()
    native["out_features"] = [f"stage{i + 1}" for i in range(len(dims))]
    native.pop("out_indices", None)
    chosen: dict[str, Any] = {"auxiliary_in_channels": dims[-2], "loss_ignore_index": IGNORE}
    check_settings(UperNetConfig, settings)
    config = UperNetConfig(
        backbone_config=native, **{"num_labels": num_labels, **chosen, **settings}
    )
    model = UperNetForSemanticSegmentation(config)
    there = model.backbone.state_dict()
    prefix = "swin." if any(key.startswith("swin.") for key in there) else ""
    weights = {
        f"{prefix}{key}": value
        for key, value in trained.state_dict().items()
        if not key.startswith(("pooler.", "layernorm."))
    }
    found = model.backbone.load_state_dict(weights, strict=False)
    # A Swin that gives maps has a norm after each stage, which starts as the identity, and keeps
    # the final one unused.
    left = [
        key
        for key in (*found.missing_keys, *found.unexpected_keys)
        if not key.startswith(("hidden_states_norms.", "swin.layernorm."))
    ]
    if left:
        raise UserError(f"The backbone's weights do not fit UperNet's: {', '.join(left[:3])}.")
    return model.eval()
