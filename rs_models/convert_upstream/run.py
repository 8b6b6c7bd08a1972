"""One checkpoint -> one repository: find its layout, take its tensors, build, write, report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import backbones
from ..errors import UserError
from ..export import export
from ..files import sha256
from ..provenance import validate_provenance
from ..version import __version__
from .defaults import bands_of, epochs_of, statistics, value_range_of
from .files import check_output, read_checkpoint
from .keys import beside, find_layout, grouped, listed, method_of, split, tensors_at
from .layouts import FINE_TUNED, UPSTREAM, Upstream
from .networks import build
from .report import Conversion
from .segmentation import segmentation_network, write_segmentation


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
        epochs: Epochs that were trained, where you know more than the file.
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
    check_output(output, file)
    layout, container, prefix = find_layout(content, file, method)
    tensors = tensors_at(content, container)
    method = method or method_of(layout, tensors, file)
    facts = UPSTREAM[method]
    own, dropped, unmatched = split(tensors, prefix, layout.heads)
    if strict and unmatched:
        raise UserError(
            f"{file} holds {listed(unmatched)} that {method} files do not have: check the file, "
            "or convert without --strict."
        )
    with torch.random.fork_rng(devices=[]):
        model = build(own, file, heads)
    if facts.stride < (backbones.family(model).plain_stride or 0):
        backbones.dilate(model, facts.stride, first_block_dilated=True)
    named = bands_of(bands, model.config.num_channels, file, facts)
    tuned = any(FINE_TUNED.search(key) for key in tensors)
    trained_as = (layout.trained_as or method) + ("_finetuned" if tuned else "")
    provenance: dict[str, Any] = {
        "method": trained_as,
        "bands": list(named),
        "value_range": list(value_range or value_range_of(named, file)),
        **statistics(facts, named, file, method),
        "train_size": train_size or getattr(model.config, "image_size", 224),
        "output_stride": backbones.output_stride(model.config),
        "data": data or facts.data or "unknown (upstream file)",
        "data_revision": None,
        "epochs": epochs_of(epochs, facts, content, file),
        "version": __version__,
        "commit": None,
    }
    model.config.rs_models = validate_provenance(provenance)
    with torch.random.fork_rng(devices=[]):
        network, used = segmentation_network(model, tensors, prefix, file)
    dropped = tuple(key for key in dropped if key not in used)
    source = {
        **_origin(file, facts, method),
        "container": container,
        "prefix": prefix,
        "dropped": grouped(dropped, layout.heads),
        "unmatched": list(unmatched),
    }
    model.config.rs_models_source = source
    try:
        export(model, output, provenance=provenance)
        if network is not None:
            write_segmentation(network, output)
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
        beside=beside(content, container),
        source=source,
    )


def _origin(file: Path, facts: Upstream, method: str) -> dict[str, Any]:
    """Where a checkpoint came from."""
    return {
        "file": file.name,
        "sha256": sha256(file),
        "repository": facts.repository,
        "method": method,
        "licence_question": facts.licence,
    }
