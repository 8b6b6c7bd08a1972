"""What the authors' files look like and what is known of their weights, as data.

Read in the authors' code; a new method or layout is an entry here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_G_RSIM = "https://github.com/GeoX-Lab/G-RSIM"
_NO_LICENCE = (
    "{} has no licence file, so all rights are reserved by default: may you use and publish these "
    "weights? Ask the authors"
)
_BARE = ("state_dict", "")
_SWIN_BUFFERS = r"\.(relative_position_index|attn_mask)$"  # they follow from the window
_TOV_HEADS = (
    r"(^|\.)(fc|classifier|uplayer\d|projection|projector|predictor|projection_head)\."
    r"|^(target_network|encoder_k)\.|^queue(_ptr)?$"
)
# A backbone is there where one of these follows the prefix. GLCNet's `encoder.conv1.weight`, say,
# is no stem. A ResNet may have either end, so that what it lacks can be named, and some networks
# keep its layers in a Sequential (2020's jigsaw).
MARKS = {
    "resnet": (
        "layer1.0.conv1.weight",
        "layer4.0.conv1.weight",
        "4.0.conv1.weight",
        "7.0.conv1.weight",
    ),
    "vit": ("cls_token",),
    "swin": ("layers.0.blocks.0.attn.relative_position_bias_table",),
}
SEQUENTIAL = {"0": "conv1", "1": "bn1", **{str(3 + i): f"layer{i}" for i in range(1, 5)}}
# Names that a file may lack: counters, and buffers that follow from others.
OPTIONAL = re.compile(r"\.num_batches_tracked$")
IMPLIED = re.compile(_SWIN_BUFFERS)
# Decoders of the authors' fine-tuning: labels have moved the backbone below them.
FINE_TUNED = re.compile(r"^(module\.)?(decoder_ft|uplayer\d)\.")


@dataclass(frozen=True)
class Upstream:
    """What a method's authors say of their weights.

    Attributes:
        repository: Where the code lies.
        licence: The licence question that the user must settle, with the facts.
        mean: Mean after division by full scale; one number for any bands, or one a band.
        std: Standard deviation after division by full scale; one number, or one a band.
        epochs: Number of epochs of the released or described run; None where no run is described.
        data: Name of the training set, None where a file does not tell.
        stride: Image side over feature side of a ResNet, as trained.
        bands: Bands by their number, where that settles them.
        named: Pattern of the released files' names, for keys that do not tell the method.
    """

    repository: str
    licence: str
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5
    epochs: int | None = None
    data: str | None = None
    stride: int = 32
    bands: tuple[tuple[int, str], ...] = ((3, "rgb"),)
    named: str | None = None


# Statistics, epochs and strides as in the official code; see each method's module for its sources.
UPSTREAM = {
    "tov": Upstream(
        _G_RSIM,
        _NO_LICENCE.format("GeoX-Lab/G-RSIM"),
        epochs=800,
        data="TOV-RS-balanced",
        named=r"TOV-RS",  # ..._pretrained_on_TOV-RS-balanced_ep800.pth.tar
    ),
    # x / 255 * 3.2 - 1.6; Potsdam's tiles are read as red, green, blue, infrared.
    "glcnet": Upstream(
        _G_RSIM,
        _NO_LICENCE.format("GeoX-Lab/G-RSIM"),
        std=0.3125,
        epochs=400,
        stride=16,
        bands=((3, "rgb"), (4, "rgbn")),
    ),
    "sticl": Upstream(
        _G_RSIM,
        _NO_LICENCE.format("GeoX-Lab/G-RSIM"),
        *_IMAGENET,
        epochs=300,
        named=r"sti_\d+p",  # transfer probability, as in its README's sti_10p
    ),
    "false": Upstream(
        "https://github.com/GeoX-Lab/FALSE",
        "GeoX-Lab/FALSE deleted its licence file and embeds VISSL, whose MIT licence speaks for "
        "VISSL alone: may you use and publish these weights? Ask the authors",
        *_IMAGENET,
        epochs=200,
    ),
    "grass": Upstream(
        "https://github.com/GeoX-Lab/GraSS",
        _NO_LICENCE.format("GeoX-Lab/GraSS (it embeds VISSL, whose MIT licence is VISSL's alone)"),
        *_IMAGENET,
        epochs=350,
    ),
    "rsisc": Upstream(
        "https://github.com/ErenTuring/RSISC_SSL_Paradigm",
        "ErenTuring/RSISC_SSL_Paradigm is CC BY-NC 4.0: is your use non-commercial, and will you "
        "publish these weights under that licence, with attribution?",
        epochs=400,
    ),
    "last": Upstream(
        "https://github.com/wangxuying-emily/LaST",
        _NO_LICENCE.format("wangxuying-emily/LaST (which published neither code nor weights)"),
        *_IMAGENET,
    ),
    "dino": Upstream(
        "https://github.com/facebookresearch/dino",
        "facebookresearch/dino is Apache-2.0, which speaks for its own files and not for weights "
        "that others trained with it: who trained these, and under which licence?",
        *_IMAGENET,
    ),
}


@dataclass(frozen=True)
class Layout:
    """How one kind of file names its tensors.

    Attributes:
        methods: Whose files look so.
        containers: Dotted paths to the dictionary of tensors; "" is the file itself.
        prefixes: What leads the backbone's names, one of these.
        heads: Pattern of the names that belong to no backbone, searched in the whole name.
        sign: Pattern of a name that only files of this method have. Without one, the file's name or
            the user tells the method: a wrong provenance is worse than a question.
        trained_as: The method, where it is another than the one whose code wrote the file.
    """

    methods: tuple[str, ...]
    containers: tuple[str, ...]
    prefixes: tuple[str, ...]
    heads: str
    sign: str | None = None
    trained_as: str | None = None


LAYOUTS = (
    # DeepLabV3+ with two projectors; `decoder_ft` is that of fine-tuning.
    Layout(
        ("glcnet",),
        _BARE,
        ("backbone.", "module.backbone."),
        r"^(module\.)?(encoder|decoder|decoder_ft|proj|proj1)\.",
        sign=r"^(module\.)?encoder\.ASPP\.",
    ),
    # The MoCo v2 baseline in GLCNet's repository.
    Layout(
        ("glcnet",),
        _BARE,
        ("encoder_q.backbone.", "module.encoder_q.backbone."),
        r"^(module\.)?(encoder_q\.(encoder|decoder|proj|proj1)|encoder_k|proj|proj1)\."
        r"|^(module\.)?queue(_ptr)?$",
        sign=r"^(module\.)?encoder_q\.encoder\.ASPP\.",
        trained_as="moco_v2",
    ),
    # As MoCo's own training script writes them.
    Layout(
        ("sticl",),
        _BARE,
        ("module.encoder_q.", "encoder_q."),
        r"^(module\.)?(encoder_q\.fc|encoder_k)\.|^(module\.)?queue(_ptr)?$",
    ),
    # VISSL's, where the heads lie beside the trunk.
    Layout(
        ("false", "grass"),
        ("classy_state_dict.base_model.model.trunk", *_BARE),
        ("_feature_blocks.",),
        r"^heads\.",
    ),
    # The network (`classifier`) or, in files called `_full_`, the whole pretext model (`g`).
    Layout(("rsisc",), _BARE, ("feature.",), r"^(classifier|g)\.", sign=r"^feature\."),
    # DINO's; EsViT adds a dense head.
    Layout(
        ("dino", "last"),
        ("teacher",),
        ("module.backbone.", "backbone."),
        r"^(module\.)?head(_dense)?\.|" + _SWIN_BUFFERS,
    ),
    # What the official TOV code tidies up: its own networks and MoCo of Lightning-Bolts ...
    Layout(
        ("tov",),
        _BARE,
        ("features.", "model.features.", "encoder_q.features."),
        _TOV_HEADS,
        sign=r"^(model\.|encoder_q\.)?features\.",
    ),
    # ... and names that many programs write, TOV's released file among them.
    Layout(("tov",), _BARE, ("module.", "encoder.", "online_network.encoder."), _TOV_HEADS),
    Layout(("tov", "dino", "last"), _BARE, ("",), _TOV_HEADS + r"|^head\.|" + _SWIN_BUFFERS),
)
