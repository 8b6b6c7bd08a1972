"""GLCNet's files hold more than a backbone: the whole DeepLabV3+ is converted too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import backbones
from ..files import replaced
from ..settings import no_progress_bars
from .keys import check_fit, get
from .layouts import OPTIONAL

SEGMENTATION = "segmentation"  # folder of GLCNet's whole network in the repository
# Our names of GLCNet's modules -> the official ones.
_GLCNET_ENCODER = {
    **{f"branches.{i}": f"ASPP._atrous_convolution{i + 1}" for i in range(4)},
    "pool.0": "ASPP._image_pool.1",
    "pool.1": "ASPP._image_pool.2",
    "fuse.0": "conv1",
    "fuse.1": "bn1",
}
_GLCNET_DECODER = {
    "reduce.0": "conv1",
    "reduce.1": "bn1",
    "refine1.0": "conv2",
    "refine1.1": "bn2",
    "refine2.0": "conv3",
    "refine2.1": "bn3",
}


def segmentation_network(
    model: PreTrainedModel, tensors: Mapping[str, Tensor], prefix: str, file: Path
) -> tuple[PreTrainedModel | None, set[str]]:
    """GLCNet's DeepLabV3+ where the file holds it, and the keys that it took beside the backbone's.

    A pretraining file ends in features (`conv41`), which a random layer to two classes replaces; a
    fine-tuning file (`decoder_ft`) ends in classes (`conv4`), which are kept.
    """
    from ..backbones.decoders import AsppEncoder, DeepLabV3PlusDecoder
    from ..tasks.segmenters import from_pretraining_decoder

    lead = prefix.removesuffix("backbone.")
    encoder_lead = f"{lead}encoder."
    decoder_leads = [f"{lead}{name}." for name in ("decoder_ft", "decoder")]
    decoder_lead = next((name for name in decoder_leads if f"{name}conv1.weight" in tensors), None)
    fusion = tensors.get(f"{encoder_lead}conv1.weight")  # (256, 1280, 1, 1)
    if not prefix.endswith("backbone.") or fusion is None or decoder_lead is None:
        return None, set()
    reduction = tensors[f"{decoder_lead}conv1.weight"]  # (48, 256, 1, 1)
    last = "conv4" if f"{decoder_lead}conv4.weight" in tensors else "conv41"
    outputs = len(get(tensors, f"{decoder_lead}{last}.weight", file))
    width = len(fusion)
    # The output layer to classes starts at random: from the same numbers at every conversion.
    torch.manual_seed(0)
    encoder = AsppEncoder(backbones.feature_dim(model.config), width)
    decoder = DeepLabV3PlusDecoder(
        reduction.shape[1], outputs, channels=width, low_channels_out=len(reduction)
    )
    used = _fill(encoder, _GLCNET_ENCODER, tensors, encoder_lead, file)
    used |= _fill(decoder, {**_GLCNET_DECODER, "output": last}, tensors, decoder_lead, file)
    has_classes = last == "conv4"
    network = from_pretraining_decoder(
        model, encoder, decoder, num_labels=outputs if has_classes else 2
    )
    if has_classes:
        network.decoder.load_state_dict(decoder.state_dict())
        return network, used
    return network, {key for key in used if not key.startswith(f"{decoder_lead}{last}.")}


def _fill(
    module: nn.Module,
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    prefix: str,
    file: Path,
) -> set[str]:
    """Loads a module whose parts have other names in the file; the keys taken."""
    weights, used = module.state_dict(), set()
    for key, value in weights.items():
        ours = next(name for name in names if key.startswith(f"{name}."))
        official = prefix + names[ours] + key.removeprefix(ours)
        if OPTIONAL.search(official) and official not in tensors:
            continue
        found = get(tensors, official, file)
        check_fit(official, found, value, file, "GLCNet's segmentation network")
        weights[key] = found
        used.add(official)
    module.load_state_dict(weights)
    return used


def write_segmentation(network: PreTrainedModel, output: Path) -> None:
    """Adds a complete `segmentation` folder to the repository, for Auto classes' `subfolder`."""
    with no_progress_bars(), replaced(output / SEGMENTATION) as partial:
        network.save_pretrained(partial)
