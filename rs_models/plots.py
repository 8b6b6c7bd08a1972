"""What all pictures share: colours, markers, empty figures, and PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart with any colour vision (jfly.uni-koeln.de/color).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_DPI = 160
MARKERS = "osD^vPX*"


def style(number: int) -> dict[str, str]:
    """Colour and marker of the number-th of several things; no two of the first 64 share both."""
    rounds, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[(place + rounds) % len(MARKERS)]}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # White, so that it can be read on a dark page too.
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes_row(figure: Figure, count: int) -> list[Any]:
    """So many axes side by side, with a light grid and without a box."""
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, lw=0.6)
    return axes


def png(figure: Figure, colours: int = 64) -> bytes:
    """A small PNG that says neither when nor by what it was made.

    Args:
        figure: What is drawn.
        colours: Colours that it keeps, at most 256: more where many thin lines stand side by side.
    """
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", metadata={"Software": None})
    # By coverage: the median cut gives a colour of few pixels the one of its neighbours.
    few = Image.open(raw).convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE)
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def sheet(pictures: Sequence[np.ndarray], columns: int, gap: int = 4, rim: int = 0) -> np.ndarray:
    """Pictures of one size side by side on white, line by line.

    Args:
        pictures: (H, W, 3) uint8 each.
        columns: Pictures in a line.
        gap: Pixels between them.
        rim: Pixels around them all.
    """
    import numpy as np

    height, width = pictures[0].shape[:2]
    lines = -(-len(pictures) // columns)
    tall, wide = lines * (height + gap) - gap + 2 * rim, columns * (width + gap) - gap + 2 * rim
    page = np.full((tall, wide, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        line, column = divmod(number, columns)
        y, x = line * (height + gap) + rim, column * (width + gap) + rim
        page[y : y + height, x : x + width] = picture
    return page
