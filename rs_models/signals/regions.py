"""GLCNet's regions: patches of two views that show the same ground, and their mean features.

Paper: Li et al., "Global and Local Contrastive Self-Supervised Learning for Semantic Segmentation
of HR Remote Sensing Images" (2022, arXiv 2106.10605). Official code: GeoX-Lab/G-RSIM, T-SS-GLCNet.

What differs: a view pixel stands for the source pixel under its centre, as in the views' own
resize (theirs: under its left and upper edge, half a pixel off, towards the other side after a
flip); views that share no ground are reported (theirs crash); the means are taken from the
decoder's small map through the weights of the upsampling, without the large one.

Crops, flips and quarter turns keep rows and columns apart. So what both views see is a set of
source rows times a set of source columns, from which patches cut rectangles, and nothing here
works pixel by pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from .view_params import ViewParams


def draw_regions(
    first: ViewParams,
    second: ViewParams,
    *,
    size: int,
    height: int,
    width: int,
    patch_size: int = 48,
    patches: int = 4,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draws patches around the same source pixels in two views of each image.

    A candidate is a source pixel that both views show at least half a patch away from their
    borders. For each patch one candidate is drawn uniformly, the patch of each view is put around
    the first view pixel in row-major order that shows it and has room, and the candidates inside
    the first view's patch are removed unless fewer than two would be left.

    Args:
        first: Draw of the first views of B images, on the CPU.
        second: Draw of the second views of the same images.
        size: Side of the square views in pixels.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        patch_size: Side of a patch in view pixels; its corner lies `patch_size // 2` above and left
            of its centre. GLCNet's released default is 48 at 224.
        patches: Patches an image, R. GLCNet's released default is 4.
        generator: A CPU generator; takes B x R numbers from it.

    Returns:
        boxes: (2, B, R, 4) int64 as x1, y1, x2, y2 in view pixels, ends inclusive.
        found: (B,) bool, False where the views share no candidate. Draw the crops of these images
            again; their boxes are in the middle of the views and match nothing.

    Raises:
        UserError: If a patch is larger than the view, or there is less than one patch or pixel.
        ValueError: If the views differ in number or a crop leaves the image.
    """
    if not 1 <= patch_size <= size:
        raise UserError(
            f"The patch_size must be from 1 to the view's {size} pixels, not {patch_size}."
        )
    if patches < 1:
        raise UserError(f"An image needs at least one patch, not {patches}.")
    if len(first.box) != len(second.box):
        raise ValueError(f"{len(first.box)} first views but {len(second.box)} second views.")
    numbers = torch.rand(len(first.box), patches, generator=generator, dtype=torch.float64)
    rows, columns = (
        _Axis(maps_1, maps_2, pixels, patch_size)
        for maps_1, maps_2, pixels in zip(
            _axis_maps(first, size, height, width),
            _axis_maps(second, size, height, width),
            (height, width),
            strict=True,
        )
    )
    matched = (rows.count > 0) & (columns.count > 0)  # (B,)

    taken = torch.zeros(len(matched), 0, 4, dtype=torch.int64)  # (B, patches so far, 4)
    free = _Free(rows.count, columns.count, taken)
    corners = []
    for number in numbers.unbind(1):
        row, column = free.draw(number)
        y, x = rows.corners(row), columns.corners(column)  # (2, B) each, before the transposition
        corners.append(torch.stack([x, y], dim=2))
        patch = torch.cat([rows.inside(y[0]), columns.inside(x[0])], dim=1)  # (B, 4)
        # An empty rectangle, the same as none, where too few candidates would be left.
        enough = _Free(rows.count, columns.count, torch.cat([taken, patch[:, None]], 1)).total > 1
        taken = torch.cat([taken, (patch * enough[:, None])[:, None]], dim=1)
        free = _Free(rows.count, columns.count, taken)

    corner = torch.stack(corners, dim=2)  # (2, B, R, 2) as x, y
    transpose = torch.stack([first.transpose, second.transpose])[..., None, None]
    corner = torch.where(transpose, corner.flip(3), corner)
    corner = torch.where(matched[:, None, None], corner, (size - patch_size) // 2)
    return torch.cat([corner, corner + patch_size - 1], dim=3), matched


def index_map(params: ViewParams, i: int, size: int, height: int, width: int) -> Tensor:
    """Which source pixel each pixel of a view shows.

    Args:
        params: Draw of the views.
        i: Sample.
        size: Side of the square view in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        (size, size) int64, row * width + column of the source pixel under the view pixel's centre.

    Raises:
        ValueError: If a crop leaves the image.
    """
    rows, columns = _axis_maps(params, size, height, width)
    index = rows[i][:, None] * width + columns[i]
    return index.T if params.transpose[i] else index


def pool_regions(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Mean feature of each region of the map upsampled to the view.

    Equals `interpolate(features, (size, size), mode="bilinear", align_corners=True)` and the mean
    over each box, but the large map is never made: both steps are linear and treat rows and columns
    alike, so a mean is a weighted sum of the small map with the product of a row and a column
    weight. Differentiable with respect to the features.

    Args:
        features: (B, C, h, w) maps of the views, any floating point type and memory format.
        boxes: (B, R, 4) x1, y1, x2, y2 in pixels of the view, ends inclusive. Of both views of
            `draw_regions`: `boxes.flatten(0, 1)`, if the features are view-major.
        size: Side of the square view in pixels.

    Returns:
        (B*R, C) float32, image-major: all regions of the first map, then of the second.

    Raises:
        ValueError: If the shapes do not fit, or a box leaves the view (looked at on the CPU only,
            not to wait for a device).
    """
    if features.ndim != 4 or boxes.ndim != 3 or boxes.shape[::2] != (len(features), 4):
        raise ValueError(
            "The function pool_regions wants (B, C, h, w) features and (B, R, 4) boxes, not "
            f"{tuple(features.shape)} and {tuple(boxes.shape)}."
        )
    if boxes.device.type == "cpu" and not _inside(boxes, size):
        raise ValueError(f"A box of pool_regions is empty or leaves the view of {size} pixels.")
    boxes = boxes.to(features.device, non_blocking=True)
    x1, y1, x2, y2 = boxes.long().unbind(2)  # (B, R)
    row = _mean_weights(y1, y2, size, features.shape[2])  # (B, R, h)
    column = _mean_weights(x1, x2, size, features.shape[3])  # (B, R, w)
    weight = (row[:, :, :, None] * column[:, :, None, :]).flatten(2)  # (B, R, h*w)
    with torch.autocast(features.device.type, enabled=False):
        pooled = weight @ features.float().flatten(2).mT  # (B, R, C)
    return pooled.flatten(0, 1)


class _Axis:
    """The rows, or the columns, of B images: which of them both views show, and where.

    Args:
        first: (B, size) source pixel at each place of the first view, rising or falling.
        second: (B, size) the same of the second view.
        pixels: Pixels of the images along the axis.
        patch_size: Pixels of a patch.

    Attributes:
        count: (B,) candidates along the axis.
    """

    def __init__(self, first: Tensor, second: Tensor, pixels: int, patch_size: int) -> None:
        self.maps = torch.stack([first, second])  # (2, B, size)
        self.pixels = pixels
        self.patch_size = patch_size
        size, half = first.shape[1], patch_size // 2
        # A patch of an even size that fills the view has one place, but the authors' window none.
        stop = max(size - half, half + 1)
        seen = torch.zeros(2, len(first), pixels, dtype=torch.bool)
        seen.scatter_(2, self.maps[:, :, half:stop], True)
        self.upto = seen.all(dim=0).cumsum(dim=1)  # (B, pixels) candidates up to each pixel
        self.before = torch.nn.functional.pad(self.upto, (1, 0))  # (B, pixels + 1)
        self.count = self.upto[:, -1]
        # The places where the middle of a patch with room can be.
        self.roomy = self.maps[:, :, half : size - patch_size + half + 1]

    def corners(self, rank: Tensor) -> Tensor:
        """Where the patches around a candidate begin, (2, B), from its (B,) rank."""
        pixel = torch.searchsorted(self.upto, rank[:, None] + 1).clamp(max=self.pixels - 1)
        # The first match; the roomy places begin half a patch in, so it is the corner as well.
        return (self.roomy == pixel).to(torch.uint8).argmax(dim=2)

    def inside(self, corner: Tensor) -> Tensor:
        """Ranks of the candidates that the first view's patch shows, (B, 2) first and past last."""
        ends = torch.stack([corner, corner + self.patch_size - 1], dim=1)
        low, high = self.maps[0].gather(1, ends).aminmax(dim=1)  # flips make the order fall
        return self.before.gather(1, torch.stack([low, high + 1], dim=1))


class _Free:
    """Rank pairs of a rows x columns grid outside some rectangles, counted and drawn exactly.

    The edges of k rectangles cut the grid into (2k + 1) x (2k + 1) cells that are free or taken as
    a whole.

    Args:
        rows: (B,) rows of the grid.
        columns: (B,) columns of the grid.
        taken: (B, k, 4) rectangles: first row, past the last row, first and past the last column.

    Attributes:
        total: (B,) free pairs.
    """

    def __init__(self, rows: Tensor, columns: Tensor, taken: Tensor) -> None:
        self.y = _edges(rows, taken[:, :, :2])  # (B, 2k + 2)
        self.x = _edges(columns, taken[:, :, 2:])
        y, x = self.y[:, :-1, None, None], self.x[:, None, :-1, None]
        y1, y2, x1, x2 = taken[:, None, None].unbind(4)  # (B, 1, 1, k)
        covered = ((y >= y1) & (y < y2) & (x >= x1) & (x < x2)).any(dim=3)
        area = self.y.diff()[:, :, None] * self.x.diff()[:, None, :]  # (B, 2k + 1, 2k + 1)
        self.upto = area.masked_fill(covered, 0).flatten(1).cumsum(dim=1)
        self.total = self.upto[:, -1]

    def draw(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """A row and a column of each grid, (B,) each, from (B,) uniform numbers below 1."""
        pick = (number * self.total).long()[:, None]  # (B, 1)
        # Where nothing is free the last cell and row 0: what is drawn there is not used.
        last = self.upto.shape[1] - 1
        cell = torch.searchsorted(self.upto, pick, right=True).clamp(max=last)
        before = torch.nn.functional.pad(self.upto, (1, 0)).gather(1, cell)
        along = self.x.shape[1] - 1
        i, j = cell // along, cell % along
        columns = self.x.diff().gather(1, j).clamp(min=1)
        row = self.y.gather(1, i) + (pick - before) // columns
        column = self.x.gather(1, j) + (pick - before) % columns
        return row[:, 0], column[:, 0]


def _edges(end: Tensor, spans: Tensor) -> Tensor:
    """Sorted (B, 2k + 2) edges along one side of the grids."""
    return torch.cat([torch.zeros_like(end)[:, None], spans.flatten(1), end[:, None]], 1).sort(1)[0]


def _axis_maps(params: ViewParams, size: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Source rows and source columns along the sides of the views before the transposition.

    Returns:
        Two (B, size) int64 tensors.
    """
    box = params.box
    if (box[:, :2] < 0).any() or (box[:, :2] + box[:, 2:] > torch.tensor([height, width])).any():
        raise ValueError(f"A crop leaves the image of {height} x {width} pixels.")
    place = torch.arange(size)
    maps = []
    for axis, flip in enumerate((params.flip_y, params.flip_x)):
        target = torch.where(flip[:, None], size - 1 - place, place)
        # The pixel under start + (target + 1/2) * length / size, in whole numbers.
        maps.append(box[:, axis, None] + (2 * target + 1) * box[:, axis + 2, None] // (2 * size))
    return maps[0], maps[1]


def _mean_weights(start: Tensor, stop: Tensor, size: int, length: int) -> Tensor:
    """Weights of a small map's pixels in the means over spans of the upsampled axis.

    Args:
        start: (B, R) first pixel of the spans on the large axis.
        stop: (B, R) last pixel, inclusive.
        size: Pixels of the large axis.
        length: Pixels of the small one.

    Returns:
        (B, R, length) float32.
    """
    # A difference of sums loses digits; Apple's devices have no float64.
    dtype = torch.float32 if start.device.type == "mps" else torch.float64
    place = torch.arange(size, device=start.device, dtype=dtype)
    place = place * ((length - 1) / max(size - 1, 1))  # align_corners=True
    knot = torch.arange(length, device=start.device, dtype=dtype)
    tent = (1 - (place[:, None] - knot).abs()).clamp(min=0)  # (size, length)
    before = torch.nn.functional.pad(tent.cumsum(dim=0), (0, 0, 1, 0))  # (size + 1, length)
    total = before[stop + 1] - before[start]  # (B, R, length)
    return (total / (stop - start + 1)[..., None]).float()


def _inside(boxes: Tensor, size: int) -> bool:
    first, last = boxes[..., :2], boxes[..., 2:]
    return bool(((first >= 0) & (first <= last) & (last < size)).all())
