"""Views in batches of torch operations: any device, any number of bands, no synchronisation.

Resizing and blurring are matrix products with one small matrix a sample and axis. The matrices are
built on the device from the drawn numbers, which travel in one pinned copy.
"""

from __future__ import annotations

import torch

from .view_params import ViewParams
from .view_settings import View

# Samples go through in chunks of about this many bytes of float32 pixels.
_CHUNK_BYTES = 256 * 2**20


class TorchViews:
    """Makes views of uint8 or uint16 images where they are.

    Args:
        scale: (C,) the normalised value is `stored * scale + offset`.
        offset: (C,)
        value_range: Smallest and largest stored value, to which the colour map is clamped.
    """

    def __init__(
        self, scale: torch.Tensor, offset: torch.Tensor, value_range: tuple[float, float]
    ) -> None:
        """Holds the colour map."""
        self.scale = scale
        self.offset = offset
        self.value_range = value_range

    def __call__(
        self,
        images: torch.Tensor,
        view: View,
        params: ViewParams,
        colour: tuple[torch.Tensor, torch.Tensor],
        out: torch.Tensor,
    ) -> None:
        """Writes one view of each image.

        Args:
            images: (B, C, H, W) uint8 or uint16.
            view: For the size and the solarise threshold.
            params: The draw of the B samples, on the CPU.
            colour: Their colour maps, on the CPU.
            out: (B, C, size, size) float on the images' device, filled here.
        """
        batch, bands, height, width = images.shape
        steps = _Steps(params, colour, self.scale, self.offset, images.device)
        chunk = max(1, _CHUNK_BYTES // (4 * bands * max(height * width, view.size**2)))
        for start in range(0, batch, chunk):
            rows = slice(start, min(start + chunk, batch))
            out[rows] = steps.run(images[rows], rows, view, self.value_range)


class _Steps:
    """One view's numbers on the device, and the steps that use them."""

    def __init__(
        self,
        params: ViewParams,
        colour: tuple[torch.Tensor, torch.Tensor],
        scale: torch.Tensor,
        offset: torch.Tensor,
        device: torch.device,
    ) -> None:
        batch = len(params.grey)
        self.bands = len(scale)
        columns = [
            params.box.float(),
            params.flip_y.float()[:, None],
            params.flip_x.float()[:, None],
            params.transpose.float()[:, None],
            params.sigma[:, None],
            params.solarize.float()[:, None],
            colour[0].reshape(batch, -1),
            colour[1].reshape(batch, -1),
            torch.cat([scale, offset]).expand(batch, -1),
        ]
        packed = torch.cat(columns, dim=1)
        if device.type == "cuda":
            packed = packed.pin_memory()
        self.columns = packed.to(device, non_blocking=True).split(
            [column.shape[1] for column in columns], dim=1
        )
        # Known on the host, so steps that nobody drew cost nothing.
        self.any_transpose = bool(params.transpose.any())
        self.any_solarize = bool(params.solarize.any())
        self.sigma = params.sigma

    def run(
        self, images: torch.Tensor, rows: slice, view: View, value_range: tuple[float, float]
    ) -> torch.Tensor:
        """(B', C, H, W) stored values -> (B', C, size, size) normalised float32."""
        box, flip_y, flip_x, transpose, sigma, solarize, pixel, mean, normalise = (
            column[rows] for column in self.columns
        )
        height, width = images.shape[-2:]
        count, size = len(images), view.size
        down = _resize_matrix(box[:, 0], box[:, 2], flip_y, height, size)  # (B', size, H)
        across = _resize_matrix(box[:, 1], box[:, 3], flip_x, width, size)  # (B', size, W)
        x = images.float()
        x = down[:, None] @ x @ across[:, None].mT  # (B', C, size, size)
        if self.any_transpose:
            x = torch.where(transpose.view(count, 1, 1, 1) > 0, x.mT, x)

        flat = x.flatten(2)  # (B', C, size * size)
        middle = flat.mean(dim=2, keepdim=True)  # (B', C, 1)
        pixel = pixel.view(count, self.bands, self.bands)
        mean = mean.view(count, self.bands, self.bands)
        flat = torch.baddbmm(mean @ middle, pixel, flat).clamp_(*value_range)
        x = flat.view(count, self.bands, size, size)

        blurred = self.sigma[rows].nonzero().flatten()  # on the host
        if len(blurred):
            # The host's list goes over as a pinned copy too, or indexing would wait for the device.
            index = blurred.pin_memory() if x.is_cuda else blurred
            index = index.to(x.device, non_blocking=True)
            blur = _blur_matrix(sigma[index], size)[:, None]  # (b, 1, size, size)
            x.index_copy_(0, index, blur @ x[index] @ blur.mT)
        if self.any_solarize:
            low, high = value_range
            at = low + view.solarize_threshold * (high - low)
            turned = (solarize.view(count, 1, 1, 1) > 0) & (x >= at)
            x = torch.where(turned, low + high - x, x)
        scale, offset = normalise.view(count, 2, self.bands, 1, 1).unbind(1)
        return torch.addcmul(offset, x, scale)


def _resize_matrix(
    start: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, source: int, size: int
) -> torch.Tensor:
    """Rows that crop, flip and resize one axis with an antialiased triangle filter.

    The filter is that of torch's `interpolate(mode="bilinear", antialias=True)`.

    Args:
        start: (B, 1) or (B,) first pixel of the crop.
        length: Pixels of the crop.
        flip: (B, 1), above 0 where the axis is reversed.
        source: Pixels of the image along the axis.
        size: Pixels of the view.

    Returns:
        (B, size, source) float32.
    """
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    target = torch.arange(size, device=start.device, dtype=torch.float32).view(1, size, 1)
    target = torch.where(flip.view(-1, 1, 1) > 0, size - 1 - target, target)
    step = length / size
    centre = start + (target + 0.5) * step  # (B, size, 1)
    place = torch.arange(source, device=start.device, dtype=torch.float32) + 0.5  # (source,)
    weight = (1 - (place - centre).abs() / step.clamp(min=1)).clamp_(min=0)
    weight = weight * ((place > start) & (place < start + length))
    return weight / weight.sum(dim=2, keepdim=True)


def _blur_matrix(sigma: torch.Tensor, size: int) -> torch.Tensor:
    """Banded matrices of a Gaussian cut at three sigma, edges reflected without repeating them.

    Args:
        sigma: (B, 1), above 0.
        size: Pixels of the view.

    Returns:
        (B, size, size) float32; the blur is `matrix @ x @ matrix.mT`.
    """
    sigma = sigma.view(-1, 1, 1)
    radius = torch.ceil(3 * sigma)
    place = torch.arange(size, device=sigma.device, dtype=torch.float32)
    row, column = place.view(1, size, 1), place.view(1, 1, size)
    last = size - 1

    def gauss(distance: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= radius)

    weight = gauss(column - row)
    weight = weight + gauss(column + row) * (column > 0)  # mirrored at the first pixel
    weight = weight + gauss(2 * last - column - row) * (column < last)  # and at the last
    return weight / weight.sum(dim=2, keepdim=True)
