"""What windows are cut from scenes, and what was made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class WindowSettings:
    """How scenes are cut.

    Attributes:
        field: Property that names the class.
        task: "segmentation" gives masks, "detection" boxes.
        size: Side of a window in pixels.
        block: Side of a block in windows; a block belongs to one split as a whole.
        background: Class of pixels in no polygon; None ignores them.
        point_size: Side in pixels of the square that a point stands for.
        bands: Numbers of the bands to keep, from 1; None is the first three.
        seed: Seed of the split.
    """

    field: str
    task: Literal["segmentation", "detection"] = "segmentation"
    size: int = 256
    block: int = 4
    background: str | None = None
    point_size: int | None = None
    bands: tuple[int, ...] | None = None
    seed: int = 0


@dataclass
class Windows:
    """What was made.

    Attributes:
        output: Folder that was written.
        classes: Class names in the order of their numbers.
        rows: Split -> number of windows.
        counts: Split -> class -> pixels of masks, or boxes.
        left_out: Reason -> number of windows or features.
    """

    output: str
    classes: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
