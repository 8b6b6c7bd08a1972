"""The authors' released checkpoints -> the native repository that `export` writes.

python -m rs_models.convert_upstream FILE [--method tov] --output DIR

A file is only read as tensors, never as code; its layout is found from its keys; either every
tensor of the backbone finds its place or nothing is written. Where the file came from (name,
sha256, repository, what was left out) goes into `rs_models_source` of config.json. The layouts
below were read in the authors' code; the weights themselves lie on drives that need an account, so
the tests use dictionaries made from the official key lists.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)
from transformers.utils import logging

from . import __version__, backbones
from .bands import resolve_bands
from .errors import UserError
from .export import export
from .provenance import validate_provenance
from .timm_interop import from_timm, timm_config

SEGMENTATION = "segmentation"  # folder of GLCNet's whole network in the repository
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_G_RSIM = "https://github.com/GeoX-Lab/G-RSIM"
_NO_LICENCE = (
    "{} has no licence file, so all rights are reserved by default: may you use and publish these "
    "weights? Ask the authors"
)


@dataclass(frozen=True)
class Upstream:
    """What a method's authors say of their weights.

    Attributes:
        repository: Where the code lies.
        licence: The licence question that the user must settle, with the facts.
        mean: After division by full scale; one number for any bands, or one a band.
        std: Likewise.
        epochs: Of the released or described run; None where no run is described.
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


_BARE = ("state_dict", "")
_SWIN_BUFFERS = r"\.(relative_position_index|attn_mask)$"  # they follow from the window
_TOV_HEADS = (
    r"(^|\.)(fc|classifier|uplayer\d|projection|projector|predictor|projection_head)\."
    r"|^(target_network|encoder_k)\.|^queue(_ptr)?$"
)
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

# A backbone is there where one of these follows the prefix. GLCNet's `encoder.conv1.weight`, say,
# is no stem.
_MARKS = {
    "layer1.0.conv1.weight": "resnet",
    "4.0.conv1.weight": "resnet",
    "cls_token": "vit",
    "layers.0.blocks.0.attn.relative_position_bias_table": "swin",
}
# Some networks keep the layers of a ResNet in a Sequential (2020's jigsaw).
_SEQUENTIAL = {"0": "conv1", "1": "bn1", **{str(3 + i): f"layer{i}" for i in range(1, 5)}}
# Heads by width of DINO's ViTs (tiny, small, base); the weights do not tell their number.
_VIT_HEADS = {192: 3, 384: 6, 768: 12}
_OPTIONAL = re.compile(r"\.num_batches_tracked$")
_IMPLIED = re.compile(_SWIN_BUFFERS)
# Decoders of the authors' fine-tuning: labels have moved the backbone below them.
_FINE_TUNED = re.compile(r"^(module\.)?(decoder_ft|uplayer\d)\.")


@dataclass(frozen=True)
class Conversion:
    """What was made of a file.

    Attributes:
        output: The folder written.
        method: As recorded in the provenance; weights fine-tuned with labels say so.
        backbone: "resnet", "vit" or "swin".
        bands: Canonical names.
        container: Dotted path to the tensors in the file; "" is the file itself.
        prefix: What led the backbone's names.
        loaded: Keys, without the prefix, that found their place in the backbone.
        segmentation: Keys that found theirs in the encoder and decoder of the segmentation network;
            empty where none was written.
        dropped: Keys of heads, queues and momentum copies, as the layout expects them.
        unmatched: Keys outside the backbone that the layout does not expect.
        beside: Further dictionaries of tensors in the file, with their sizes.
        source: The `rs_models_source` of config.json.
    """

    output: Path
    method: str
    backbone: str
    bands: tuple[str, ...]
    container: str
    prefix: str
    loaded: tuple[str, ...]
    segmentation: tuple[str, ...]
    dropped: tuple[str, ...]
    unmatched: tuple[str, ...]
    beside: dict[str, int]
    source: dict[str, Any]

    def report(self) -> str:
        """Lines for the user: what was found, loaded, left out, and the licence question."""
        lines = [
            f"{self.source['file']} (sha256 {self.source['sha256']})",
            f"layout: {self.method}, tensors in {self.container or 'the file itself'}, prefix "
            f"{self.prefix or 'none'}",
            f"backbone: {self.backbone}, bands {', '.join(self.bands)}, all {len(self.loaded)} "
            "tensors loaded",
            f"segmentation: {len(self.segmentation) or 'no'} tensors of encoder and decoder",
            "dropped: " + _counted({**self.source["dropped"], **self.beside}),
            "unmatched: " + (", ".join(self.unmatched) or "none"),
            f"written: {self.output}",
            f"before you use or publish it: {self.source['licence_question']} "
            f"({self.source['repository']}).",
        ]
        return "\n".join(lines)


def convert(
    file: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    method: str | None = None,
    bands: str | Sequence[str] | None = None,
    data: str | None = None,
    epochs: int | None = None,
    train_size: int | None = None,
    value_range: tuple[float, float] | None = None,
    heads: int | None = None,
    strict: bool = False,
) -> Conversion:
    """Converts one checkpoint to a native repository.

    Args:
        file: A `torch.save` file (zip or the older format) or `.safetensors`.
        output: Folder to write; an older model there is replaced. GLCNet files also give the whole
            segmentation network, in its folder `SEGMENTATION`.
        method: One of `UPSTREAM`, needed where the keys do not tell.
        bands: Bands of the first convolution; RGB is taken for three channels, and
            red, green, blue, infrared for GLCNet's four.
        data: Training set, where you know more than the file.
        epochs: Likewise.
        train_size: Side of the training images in pixels. By default 224, for a ViT the side that
            its position embeddings are for.
        value_range: [black, full scale] as stored. By default (0, 255); needed for other bands
            than red, green, blue and infrared, whose scale in the authors' pipelines is not known.
        heads: Attention heads of a ViT of other widths than DINO's.
        strict: Whether keys that the layout does not expect are an error.

    Returns:
        What was loaded and left out.

    Raises:
        UserError: A file that is missing, cut short, no checkpoint or more than tensors; a layout
            that is not known or fits several methods; bands that do not fit; backbone tensors
            missing, left over or of other shapes; an output that is not a model's folder.
        RuntimeError: The written files do not give the features of the source.
    """
    file, output = Path(file), Path(output)
    if method is not None and method not in UPSTREAM:
        raise UserError(f"Unknown method '{method}': use one of {', '.join(UPSTREAM)}.")
    content = read_checkpoint(file)
    _check_output(output, file)
    layout, container, prefix = _find_layout(content, file, method)
    tensors = _at(content, container)
    method = method or _method_of(layout, tensors, file)
    facts = UPSTREAM[method]
    own, dropped, unmatched = _split(tensors, prefix, layout.heads)
    if strict and unmatched:
        raise UserError(
            f"{file} holds {_listed(unmatched)} that {method} files do not have: check the file, "
            "or convert without --strict."
        )
    with torch.random.fork_rng(devices=[]):
        model = _build(own, file, heads)
    resnet = model.config.model_type == "resnet"
    if resnet and facts.stride != 32:
        backbones.dilate(model, facts.stride, first_block_dilated=True)
    named = _bands(bands, model.config.num_channels, file, facts)
    trained_as = layout.trained_as or method
    if any(_FINE_TUNED.search(key) for key in tensors):
        trained_as += "_finetuned"
    provenance: dict[str, Any] = {
        "method": trained_as,
        "bands": list(named),
        "value_range": list(value_range or _value_range(named, file)),
        **_statistics(facts, named, file, method),
        "train_size": train_size or getattr(model.config, "image_size", 224),
        "output_stride": backbones.output_stride(model.config),
        "data": data or facts.data or "unknown (upstream file)",
        "data_revision": None,
        "epochs": _epochs(epochs, facts, content, file),
        "version": __version__,
        "commit": None,
    }
    model.config.rs_models = validate_provenance(provenance)
    with torch.random.fork_rng(devices=[]):
        network, used = _segmentation_network(model, tensors, prefix, file)
    dropped = tuple(key for key in dropped if key not in used)
    source = {
        "file": file.name,
        "sha256": _sha256(file),
        "repository": facts.repository,
        "method": method,
        "container": container,
        "prefix": prefix,
        "dropped": _grouped(dropped, layout.heads),
        "unmatched": list(unmatched),
        "licence_question": facts.licence,
    }
    model.config.rs_models_source = source
    try:
        export(model, output, provenance=provenance)
        if network is not None:
            _write_segmentation(network, output)
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror or error}.") from error
    return Conversion(
        output=output,
        method=trained_as,
        backbone=model.config.model_type,
        bands=named,
        container=container,
        prefix=prefix,
        loaded=tuple(own),
        segmentation=tuple(key for key in tensors if key in used),
        dropped=dropped,
        unmatched=unmatched,
        beside=_beside(content, container),
        source=source,
    )


# --- reading -------------------------------------------------------------------------------------


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in a checkpoint, on the CPU, without running anything in it.

    Args:
        file: `.safetensors`, or anything that `torch.save` wrote, by whatever name.

    Raises:
        UserError: The file is missing, cut short, no checkpoint, or holds objects other than
            tensors, numbers, text and plain containers of them.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} is not a file: give the checkpoint that the authors published.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(file)
        else:
            with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
                warnings.simplefilter("ignore")  # on pickle protocols: the error below says it
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers of broken files raise nearly every built-in type
        raise UserError(_why_unread(file, error)) from error
    if not isinstance(content, Mapping):
        raise UserError(
            f"{file} holds a {type(content).__name__} and not a dictionary of weights: save the "
            "model's state_dict."
        )
    return dict(content)


def _harmless() -> list[Any]:
    """Types, beside tensors and containers, that the authors' training scripts save.

    Options (`args` of DINO) and numpy numbers (a best accuracy). They hold values and nothing else:
    a Namespace sets attributes on itself, and a scalar reads its bytes as the number that the dtype
    says. torch names both kinds in its own advice. Nothing else is ever added here.
    """
    import numpy as np
    from numpy._core.multiarray import scalar  # what numbers pickle as

    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
    # numpy 1 pickled under the other name.
    return [argparse.Namespace, np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar"), *dtypes]


# Of the messages of torch's restricted reader: a name that is not on its list, or an object built
# from one.
_CODE = re.compile(r"GLOBAL (?P<name>[\w.]+)|Trying to (?!load)|Can only (?:create|build)")
# Pickle codes that it does not read: the frames of protocol 4 (149), and other ways to fetch a name
# (STACK_GLOBAL, INST, OBJ, NEWOBJ_EX, EXT1, EXT2, EXT4).
_UNREADABLE = re.compile(r"Unsupported operand (?:149|147|105|111|146|130|131|132)\b")


def _why_unread(file: Path, error: Exception) -> str:
    message = str(error) if isinstance(error, pickle.UnpicklingError) else ""
    code = _CODE.search(message)
    if code or _UNREADABLE.search(message):
        what = f" ({code['name']})" if code and code["name"] else ""
        return (
            f"{file} {'contains' if code else 'is pickled so that it may hide'} objects that would "
            f"run code when loaded{what}, so it was not loaded: ask its authors for a file of "
            "tensors only, or save the state_dict again with torch.save where you trust the file."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"Cannot read {file}: {error.strerror}."
    if ".tar format" in str(error):
        return (
            f"{file} is in torch's oldest format, which cannot be read without running code: save "
            "its state_dict again with torch.save where you trust the file."
        )
    return f"{file} is cut short or no checkpoint of torch or safetensors: download it again."


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- layout --------------------------------------------------------------------------------------


def _find_layout(
    content: Mapping[str, Any], file: Path, method: str | None
) -> tuple[Layout, str, str]:
    """The layout, container and prefix that the keys show; the method's own where one is given."""
    found = [
        (layout, container, prefix)
        for layout in LAYOUTS
        for container in layout.containers
        for prefix in layout.prefixes
        if any(prefix + mark in _at(content, container) for mark in _MARKS)
    ]
    fitting = [match for match in found if method is None or method in match[0].methods]
    if fitting:
        return fitting[0]
    if found:
        raise UserError(
            f"{file} is not laid out as {method} files are, but as those of "
            f"{' or '.join(found[0][0].methods)}: check --method."
        )
    tops = Counter(key.split(".")[0] for key in content if isinstance(key, str))
    raise UserError(
        f"{file} has no backbone where the files of {', '.join(UPSTREAM)} have theirs (it begins "
        f"with {', '.join(list(tops)[:6]) or 'nothing'}): only ResNet, ViT and Swin under the "
        "authors' names convert."
    )


def _method_of(layout: Layout, tensors: Mapping[str, Tensor], file: Path) -> str:
    """The method that the keys or the file's name tell."""
    if layout.sign and any(re.search(layout.sign, key) for key in tensors):
        return layout.methods[0]
    for candidate in layout.methods:
        pattern = UPSTREAM[candidate].named
        if pattern and re.search(pattern, file.name, re.IGNORECASE):
            return candidate
    raise UserError(
        f"The keys of {file} do not tell its method, other programs write the same: say "
        f"{' or '.join(f'--method {name}' for name in layout.methods)}."
    )


def _at(content: Mapping[str, Any], container: str) -> dict[str, Tensor]:
    """The tensors by name at a dotted path; empty where there is no such path."""
    inner: Any = content
    for part in container.split(".") if container else []:
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping):
        return {}
    return {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _split(
    tensors: Mapping[str, Tensor], prefix: str, heads: str
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """Backbone tensors by their plain names, names of heads, and other names.

    Only a leading prefix goes: the same letters inside a name stay (the official loaders replace
    them anywhere).
    """
    own: dict[str, Tensor] = {}
    dropped, unmatched = [], []
    for key, value in tensors.items():
        if re.search(heads, key):
            dropped.append(key)
        elif key.startswith(prefix):
            own[key.removeprefix(prefix)] = value
        else:
            unmatched.append(key)
    if "4.0.conv1.weight" in own:
        own = {_unnumbered(key): value for key, value in own.items()}
    return own, tuple(dropped), tuple(unmatched)


def _unnumbered(key: str) -> str:
    head, dot, rest = key.partition(".")
    return _SEQUENTIAL.get(head, head) + dot + rest


def _beside(content: Mapping[str, Any], container: str) -> dict[str, int]:
    """Other dictionaries of tensors in the file, as {"path.*": how many}."""

    def walk(inner: Mapping[Any, Any], path: str) -> Iterator[tuple[str, int]]:
        if path == container:
            return
        count = len(_at(inner, ""))
        if path and count:
            yield f"{path}.*", count
        for key, value in inner.items():
            # Optimizers number their parameters: those are no weights.
            if isinstance(key, str) and isinstance(value, Mapping):
                yield from walk(value, f"{path}.{key}" if path else key)

    return dict(walk(content, ""))


def _grouped(keys: Iterable[str], heads: str) -> dict[str, int]:
    """Dropped keys by what made them heads: {"module.encoder_k.*": 322, "module.queue": 1}."""
    groups: Counter[str] = Counter()
    for key in keys:
        found = re.search(heads, key)
        if found and found.end() < len(key):
            groups[f"{key[: found.end()]}*"] += 1
        else:
            groups[f"*{found[0]}" if found and found.start() else key] += 1
    return dict(groups)


# --- backbone ------------------------------------------------------------------------------------


def _build(own: Mapping[str, Tensor], file: Path, heads: int | None) -> PreTrainedModel:
    """The native model with these weights, which bear torchvision's or timm's names.

    It goes by way of timm's model of the same sizes, whose features are compared with the native
    one's: two implementations agree on what the weights mean.
    """
    import timm

    kinds = [kind for mark, kind in _MARKS.items() if mark in own]
    if not kinds:
        raise UserError(f"{file} has no backbone left once its heads are set aside.")
    if kinds[0] == "resnet":
        config: PreTrainedConfig = _resnet_config(own, file)
    elif kinds[0] == "vit":
        config = _vit_config(own, file, heads)
    else:
        own = _swin_names(own)
        config = _swin_config(own, file)
    settings = timm_config(config)
    arguments = dict(settings.get("model_args", {}))
    if kinds[0] != "resnet":
        arguments["img_size"] = config.image_size
    model = timm.create_model(
        settings["architecture"], num_classes=0, in_chans=config.num_channels, **arguments
    )
    expected = model.state_dict()
    missing = [
        key
        for key in expected
        if key not in own and not _OPTIONAL.search(key) and not _IMPLIED.search(key)
    ]
    left = [key for key in own if key not in expected]
    if missing or left:
        raise UserError(
            f"{file} does not fill a {kinds[0]}: missing {_listed(missing)}, unmatched "
            f"{_listed(left)}; a part of a backbone is never loaded."
        )
    for key, value in own.items():
        if value.shape != expected[key].shape:
            raise UserError(
                f"{file} does not fill a {kinds[0]}: {key} has shape {tuple(value.shape)}, "
                f"expected {tuple(expected[key].shape)}."
            )
        if not value.isfinite().all():
            raise UserError(f"{file} holds NaN or infinite values in {key}: its training diverged.")
    model.load_state_dict({**expected, **own})
    return from_timm(model, name=str(file))


def _resnet_config(own: Mapping[str, Tensor], file: Path) -> ResNetConfig:
    """Sizes of a ResNet under torchvision's names."""
    stem = _shape(own, "conv1.weight", file)
    if stem[2:] != (7, 7):
        raise UserError(
            f"The first convolution of {file} is {stem[2]}x{stem[3]}: only ResNets with the 7x7 "
            "stem have a native counterpart."
        )
    last = "conv3" if any(key.endswith(".conv3.weight") for key in own) else "conv2"
    depths, sizes = [], []
    for stage in range(1, 5):
        blocks = [int(m[1]) for key in own if (m := re.match(rf"layer{stage}\.(\d+)\.", key))]
        depths.append(max(blocks, default=0) + 1)
        # Of any block: should another one's be missing, it is listed with all that are.
        names = [f"layer{stage}.{block}.{last}.weight" for block in range(depths[-1])]
        sizes.append(_shape(own, next((n for n in names if n in own), names[0]), file)[0])
    return ResNetConfig(
        num_channels=stem[1],
        embedding_size=stem[0],
        layer_type="bottleneck" if last == "conv3" else "basic",
        depths=depths,
        hidden_sizes=sizes,
    )


def _vit_config(own: Mapping[str, Tensor], file: Path, heads: int | None) -> ViTConfig:
    """Sizes of a ViT under timm's names, which are DINO's too."""
    width, channels, patch, _ = _shape(own, "patch_embed.proj.weight", file)
    heads = heads or _VIT_HEADS.get(width)
    if heads is None or width % heads:
        raise UserError(
            f"The weights of a ViT {width} channels wide do not tell its attention heads: say "
            "--heads N, a divisor of the width."
        )
    blocks = [int(m[1]) for key in own if (m := re.match(r"blocks\.(\d+)\.", key))]
    grid = round((_shape(own, "pos_embed", file)[1] - 1) ** 0.5)
    return ViTConfig(
        num_channels=channels,
        image_size=grid * patch,
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=max(blocks, default=0) + 1,
        num_attention_heads=heads,
        intermediate_size=_shape(own, "blocks.0.mlp.fc1.weight", file)[0],
        qkv_bias="blocks.0.attn.qkv.bias" in own,
        layer_norm_eps=1e-6,  # DINO's and timm's
    )


def _swin_names(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official Swin merges patches at the end of a stage, timm at the start of the next."""
    at_end = any(key.startswith("layers.0.downsample.") for key in own)

    def moved(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + at_end}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", moved, k): v for k, v in own.items()}


def _swin_config(own: Mapping[str, Tensor], file: Path) -> SwinConfig:
    """Sizes of a Swin (v1) under timm's names."""
    width, channels, patch, _ = _shape(own, "patch_embed.proj.weight", file)
    stages = 1 + max(int(m[1]) for key in own if (m := re.match(r"layers\.(\d+)\.", key)))
    depths, num_heads, side = [], [], 0
    for stage in range(stages):
        blocks = [int(m[1]) for k in own if (m := re.match(rf"layers\.{stage}\.blocks\.(\d+)", k))]
        depths.append(max(blocks, default=0) + 1)
        table = f"layers.{stage}.blocks.0.attn.relative_position_bias_table"
        offsets, heads = _shape(own, table, file)
        num_heads.append(heads)
        side = round(offsets**0.5)  # 2 * window - 1
    return SwinConfig(
        num_channels=channels,
        image_size=224,
        patch_size=patch,
        embed_dim=width,
        depths=depths,
        num_heads=num_heads,
        window_size=(side + 1) // 2,
        mlp_ratio=_shape(own, "layers.0.blocks.0.mlp.fc1.weight", file)[0] / width,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in own,
    )


def _shape(own: Mapping[str, Tensor], key: str, file: Path) -> tuple[int, ...]:
    return tuple(_get(own, key, file).shape)


# --- provenance ----------------------------------------------------------------------------------


def _bands(
    given: str | Sequence[str] | None, channels: int, file: Path, facts: Upstream
) -> tuple[str, ...]:
    known = dict(facts.bands).get(channels)
    if given is None and known is None:
        raise UserError(
            f"The first convolution of {file} takes {channels} bands: say which with --bands, in "
            "channel order (rgbn, sentinel2 or names separated by commas)."
        )
    names = resolve_bands(given if given is not None else str(known))
    if len(names) != channels:
        raise UserError(
            f"The first convolution of {file} takes {channels} bands but --bands names "
            f"{len(names)}: {', '.join(names)}."
        )
    return names


def _value_range(bands: Sequence[str], file: Path) -> tuple[float, float]:
    if set(bands) <= set(resolve_bands("rgbn")):
        return (0, 255)
    raise UserError(
        f"How the authors of {file} scaled the bands {', '.join(bands)} is not known: say the "
        "stored values of black and full scale with --value-range LOW HIGH."
    )


def _statistics(
    facts: Upstream, bands: Sequence[str], file: Path, method: str
) -> dict[str, list[float]]:
    values = {}
    for key, value in (("image_mean", facts.mean), ("image_std", facts.std)):
        per_band = list(value) if isinstance(value, tuple) else [value] * len(bands)
        if len(per_band) != len(bands):
            raise UserError(
                f"{file} takes {len(bands)} bands, but the statistics of {method} are known for "
                f"{len(per_band)} only: its preprocessing cannot be written."
            )
        values[key] = per_band
    return values


def _epochs(
    given: int | None, facts: Upstream, content: Mapping[str, Any], file: Path
) -> int | float:
    """Of the user, else of the described run, else of the file (DINO writes the finished ones)."""
    epochs = given if given is not None else facts.epochs
    if epochs is None:
        epochs = content.get("epoch")
    if not isinstance(epochs, int | float):
        raise UserError(f"{file} does not say how long it was trained: say --epochs N.")
    return epochs


def _check_output(output: Path, file: Path) -> None:
    """Refuses to replace what is no model: `export` replaces whole folders."""
    if not output.exists():
        return
    if output.is_dir() and file.resolve().is_relative_to(output.resolve()):
        raise UserError(f"{file} lies in {output}, which would be replaced: give another --output.")
    if not output.is_dir() or (any(output.iterdir()) and not (output / "config.json").exists()):
        raise UserError(f"{output} exists and is no model's folder: give another --output.")


def _listed(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
    return f"{len(keys)} ({shown})" if keys else "none"


def _counted(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in groups.items()) or "none"


# --- segmentation --------------------------------------------------------------------------------

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


def _segmentation_network(
    model: PreTrainedModel, tensors: Mapping[str, Tensor], prefix: str, file: Path
) -> tuple[PreTrainedModel | None, set[str]]:
    """GLCNet's DeepLabV3+ where the file holds it, and the keys that it took beside the backbone's.

    A pretraining file ends in features (`conv41`), which a random layer to two classes replaces; a
    fine-tuning file (`decoder_ft`) ends in classes (`conv4`), which are kept.
    """
    from .decoders import AsppEncoder, DeepLabV3PlusDecoder
    from .tasks.segmentation import from_pretraining_decoder

    lead = prefix.removesuffix("backbone.")
    named = [f"{lead}{name}." for name in ("decoder_ft", "decoder")]
    leads = [name for name in named if f"{name}conv1.weight" in tensors]
    if not (prefix.endswith("backbone.") and f"{lead}encoder.conv1.weight" in tensors and leads):
        return None, set()
    reduction = tensors[f"{leads[0]}conv1.weight"]  # (48, 256, 1, 1)
    last = "conv4" if f"{leads[0]}conv4.weight" in tensors else "conv41"
    outputs = len(_get(tensors, f"{leads[0]}{last}.weight", file))
    width = len(tensors[f"{lead}encoder.conv1.weight"])
    # The output layer to classes starts at random: from the same numbers at every conversion.
    torch.manual_seed(0)
    encoder = AsppEncoder(backbones.feature_dim(model.config), width)
    decoder = DeepLabV3PlusDecoder(
        reduction.shape[1], outputs, channels=width, low_channels_out=len(reduction)
    )
    used = _fill(encoder, _GLCNET_ENCODER, tensors, f"{lead}encoder.", file)
    used |= _fill(decoder, {**_GLCNET_DECODER, "output": last}, tensors, leads[0], file)
    has_classes = last == "conv4"
    network = from_pretraining_decoder(
        model, encoder, decoder, num_labels=outputs if has_classes else 2
    )
    if has_classes:
        network.decoder.load_state_dict(decoder.state_dict())
        return network, used
    return network, {key for key in used if not key.startswith(f"{leads[0]}{last}.")}


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
        if _OPTIONAL.search(official) and official not in tensors:
            continue
        found = _get(tensors, official, file)
        if found.shape != value.shape:
            raise UserError(
                f"{file} does not fill GLCNet's segmentation network: {official} has shape "
                f"{tuple(found.shape)}, expected {tuple(value.shape)}."
            )
        weights[key] = found
        used.add(official)
    module.load_state_dict(weights)
    return used


def _get(tensors: Mapping[str, Tensor], key: str, file: Path) -> Tensor:
    if key not in tensors:
        raise UserError(f"{file} lacks {key}: a part of a network is never loaded.")
    return tensors[key]


def _write_segmentation(network: PreTrainedModel, output: Path) -> None:
    """Adds a complete `segmentation` folder to the repository, for Auto classes' `subfolder`."""
    partial = output / f".{SEGMENTATION}"
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network.save_pretrained(partial)
    finally:
        if shown:
            logging.enable_progress_bar()
    partial.rename(output / SEGMENTATION)


# --- command -------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Converts from the command line; the exit code (1: the written files failed their check).

    Raises:
        UserError: As `convert`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rs_models.convert_upstream",
        description="The authors' released checkpoint -> a native transformers and timm model.",
    )
    parser.add_argument("file", help="torch.save file (any suffix) or .safetensors")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--method", choices=UPSTREAM, help="where the keys do not tell it")
    parser.add_argument("--bands", help="of the first convolution (default rgb, GLCNet's 4: rgbn)")
    parser.add_argument("--data", help="training set, where you know it")
    parser.add_argument("--epochs", type=int, help="of the training (default: the papers')")
    parser.add_argument("--train-size", type=int, help="side of the training images (default 224)")
    parser.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="stored values of black and full scale (default 0 255)",
    )
    parser.add_argument("--heads", type=int, help="attention heads of a ViT of unusual width")
    parser.add_argument("--strict", action="store_true", help="refuse keys that are not expected")
    options = vars(parser.parse_args(argv))
    options["value_range"] = tuple(options["value_range"]) if options["value_range"] else None
    try:
        print(convert(options.pop("file"), options.pop("output"), **options).report())
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))
