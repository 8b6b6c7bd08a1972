"""What was made of a file, for the caller and for the user's eyes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


def _counted(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in groups.items()) or "none"
