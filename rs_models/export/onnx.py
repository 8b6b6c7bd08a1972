"""ONNX files of backbones, classifiers and segmentation networks, checked against torch.

What is dynamic: the batch always; height and width for ResNet and ViT (whose position embeddings
are interpolated in the graph) and the heads over them. A Swin cuts its windows in Python, UperNet
pools to fixed grids: their files are for one size. Detectors choose boxes in Python and are not
exported.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import backbones
from ..errors import UserError
from ..files import written
from ..predict.model import Predictor, load_predictor
from ..tasks.classification import classify

OPSET = 18  # what torch's exporter writes without conversion
_TOLERANCE = 1e-4  # of the largest output
_OUTPUTS = {
    "embedding": ("pooled", "dense"),
    "classification": ("logits",),
    "segmentation": ("logits",),
}


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    Attributes:
        path: Path of the file.
        outputs: Names.
        size: (height, width) that a Swin's or UperNet's file is for; None takes any.
        difference: Largest difference to torch over the largest output, of those checked.
    """

    path: str
    outputs: tuple[str, ...]
    size: tuple[int, int] | None
    difference: float


class _Graph(nn.Module):
    """What is exported: normalised images in, tensors out."""

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.call = model, forward

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return self.call(pixel_values)


def export_onnx(
    source: str | Predictor,
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    opset: int = OPSET,
    revision: str | None = None,
) -> OnnxFile:
    """Writes a model as ONNX and compares onnxruntime's answers with torch's.

    The input is `pixel_values` (B, C, H, W) float32, normalised; the file's metadata say how
    (`rs_models`: bands, value_range, image_mean, image_std) and name the classes (`classes`).
    Outputs: `pooled` (B, D) and `dense` (B, D, h, w) of a backbone, `logits` (B, K) of a classifier
    or (B, K, H, W) of a segmentation network.

    Args:
        source: Folder, Hub id or timm name, as for `predict.load_predictor`.
        path: File to write.
        size: Side in pixels, of every image for a Swin or UperNet, of the checks for others; None
            is the training size.
        opset: ONNX operator set.
        revision: Commit or tag on the Hub.

    Raises:
        UserError: A detector, a model that is not ResNet, Swin or ViT or answers NaN, or
            onnxruntime is missing.
        RuntimeError: The file does not give torch's answers.
    """
    predictor = load_predictor(source, revision=revision) if isinstance(source, str) else source
    _check(predictor)
    predictor.to("cpu")
    native = _native(predictor).config
    # A Swin's windows, and UperNet's pooling to fixed grids, are numbers in the graph.
    fixed = backbones.family(native).onnx_fixed or predictor.model.config.model_type == "upernet"
    stride = backbones.output_stride(native)
    side = size or -(-predictor.preprocessing.train_size // stride) * stride
    graph = _graph(predictor).eval()
    probe = torch.zeros(1, len(predictor.preprocessing.bands), side, side)
    with torch.inference_mode():
        if not all(answer.isfinite().all() for answer in graph(probe)):
            raise UserError(
                f"{predictor.name} answers NaN or infinite values, so its weights are damaged or "
                "its training diverged: export an earlier checkpoint."
            )
    with written(path) as partial:
        _write(graph, partial, predictor, side, opset, fixed=fixed)
        difference = _compare(graph, partial, predictor, side, stride, fixed=fixed)
    outputs = _OUTPUTS[predictor.task]
    return OnnxFile(str(path), outputs, (side, side) if fixed else None, difference)


def _check(predictor: Predictor) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise UserError(f"ONNX files need {package}: pip install 'rs-models[onnx]'.") from error
    if predictor.task == "detection":
        raise UserError(
            f"{predictor.name} is a detector, which chooses its boxes outside of any graph: export "
            "its backbone."
        )
    if backbones.family_or_none(_native(predictor)) is None:
        titles = ", ".join(kind.title for kind in backbones.FAMILIES)
        raise UserError(
            f"{predictor.name} has no native backbone ({titles}): export it with the "
            "library that it comes from."
        )


def _native(predictor: Predictor) -> Any:
    """The backbone inside a model."""
    model = predictor.model
    if predictor.task == "embedding":
        return model
    return getattr(model, "backbone", None) or getattr(model, "base_model", None)


def _graph(predictor: Predictor) -> _Graph:
    model = predictor.model
    if hasattr(model, "set_attn_implementation"):
        # The fused attention's strides cannot be traced for a Swin.
        model.set_attn_implementation("eager")
    if predictor.task == "embedding":
        return _Graph(model, lambda x: backbones.pooled_and_dense(model, x))
    if predictor.task == "classification":
        return _Graph(model, lambda x: (classify(model, x),))
    return _Graph(model, lambda x: (model(pixel_values=x).logits,))


def _write(
    graph: _Graph, path: Path, predictor: Predictor, side: int, opset: int, *, fixed: bool
) -> None:
    import onnx

    dynamic: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if not fixed:
        dynamic |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    # Unlike sides, so that none is taken for a constant or for the other.
    width = side if fixed else 2 * side
    example = torch.randn(2, len(predictor.preprocessing.bands), side, width)
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes={"pixel_values": dynamic},
                input_names=["pixel_values"],
                output_names=list(_OUTPUTS[predictor.task]),
                opset_version=opset,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    content = program.model_proto
    # Tracing leaves paths of this machine in the file.
    for node in content.graph.node:
        del node.metadata_props[:]
    facts = {
        "rs_models": json.dumps(predictor.preprocessing.record()),
        "classes": json.dumps(predictor.names),
        "task": predictor.task,
        "model": predictor.name,
        "model_revision": predictor.revision,
    }
    del content.metadata_props[:]
    for key, value in facts.items():
        content.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(content)
    onnx.save(content, str(path))


def _compare(
    graph: _Graph, path: Path, predictor: Predictor, side: int, stride: int, *, fixed: bool
) -> float:
    """Largest relative difference over batches, and sizes where they are free."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes: Sequence[tuple[int, int, int]] = [(1, side, side), (3, side, side)]
    if not fixed:
        shapes = [*shapes, (2, side + stride, side), (1, side, side + 3 * stride)]
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in shapes:
        shape = batch, len(predictor.preprocessing.bands), height, width
        x = torch.randn(shape, generator=generator)
        with torch.inference_mode():
            wanted = graph(x)
        found = session.run(None, {"pixel_values": x.numpy()})
        for one, other in zip(found, wanted, strict=True):
            if one.shape != tuple(other.shape):
                raise RuntimeError(f"ONNX gives {one.shape} where torch gives {other.shape}.")
            gap = (torch.from_numpy(one) - other).abs().max() / other.abs().max().clamp_min(1e-6)
            worst = max(worst, float(gap))
    if not worst <= _TOLERANCE:
        raise RuntimeError(f"ONNX's answers differ from torch's by {worst:.2g} of the largest.")
    return worst
