"""Views on the CPU with OpenCV's uint8 kernels: one sample at a time, in cache, over threads.

Every step of a sample runs on a (size, size, C) uint8 array that stays in the core's cache; only
the finished float view is written out.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .view_params import ViewParams
from .view_settings import View

_MAX_BANDS = 4  # cv2.transform and torch's vectorised uint8 resize take no more
_VALUE_RANGE = (0.0, 255.0)  # OpenCV saturates uint8 here, which is the clamp after the colour map
_threads_lock = threading.Lock()
_threads_users = 0
_threads_before = 1


def supports(images: torch.Tensor, value_range: tuple[float, float]) -> bool:
    """Whether this backend can take the images."""
    return (
        images.device.type == "cpu"
        and images.dtype == torch.uint8
        and images.shape[1] <= _MAX_BANDS
        and tuple(value_range) == _VALUE_RANGE
    )


class OpenCVViews:
    """Makes views of uint8 images in main memory.

    Args:
        scale: (C,) the normalised value is `stored * scale + offset`.
        offset: (C,)
        num_threads: Samples in work at a time.
    """

    def __init__(self, scale: torch.Tensor, offset: torch.Tensor, num_threads: int) -> None:
        """Holds the colour map as one matrix, and no threads yet."""
        self.normalise = torch.cat([scale.diag(), offset[:, None]], dim=1).numpy()
        self.num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

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
            images: (B, C, H, W) uint8.
            view: For the size and the solarise threshold.
            params: The draw of the B samples.
            colour: Their colour maps.
            out: (B, C, size, size) float, channels-last strides, filled here.
        """
        channels_last = images.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C), most often as is
        work = _Work(channels_last, view, params, colour, self.normalise, out)
        count = len(images)
        workers = min(self.num_threads, count)
        with _one_opencv_thread():
            if workers == 1:
                work.run(range(count))
            else:
                bounds = [count * i // workers for i in range(workers + 1)]
                parts = [range(a, b) for a, b in itertools.pairwise(bounds)]
                list(self._threads().map(work.run, parts))

    def _threads(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork, so a forked data worker starts its own.
        if self._pool is None or self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="views")
            self._pool_process = os.getpid()
        return self._pool


class _Work:
    """One view of one batch, laid out for the loop over samples."""

    def __init__(
        self,
        images: torch.Tensor,
        view: View,
        params: ViewParams,
        colour: tuple[torch.Tensor, torch.Tensor],
        normalise: np.ndarray,
        out: torch.Tensor,
    ) -> None:
        self.images = images  # (B, H, W, C) uint8
        self.arrays = images.numpy()
        self.size = view.size
        self.boxes = params.box.tolist()
        # OpenCV's codes: 0 upside down, 1 left to right, -1 both.
        self.flips = [
            None if not (y or x) else (-1 if y and x else int(x))
            for y, x in zip(params.flip_y.tolist(), params.flip_x.tolist(), strict=True)
        ]
        self.transpose = params.transpose.tolist()
        pixel, self.mean = (part.numpy() for part in colour)
        # (B, C, C + 1) as cv2.transform takes it; the last column waits for the crop's mean.
        self.affine = np.concatenate([pixel, np.zeros_like(pixel[..., :1])], axis=2)
        self.coloured = (pixel != np.eye(pixel.shape[1])).any((1, 2)) | self.mean.any((1, 2))
        self.kernels = _gaussian_kernels(params.sigma)
        self.solarize = params.solarize.tolist()
        # Values v >= threshold * 255 become 255 - v.
        values = np.arange(256)
        self.solarized = np.where(
            values >= view.solarize_threshold * 255, 255 - values, values
        ).astype(np.uint8)
        self.normalise = normalise
        self.out = out.permute(0, 2, 3, 1)  # (B, size, size, C)
        self.float_out = self.out.numpy() if out.dtype == torch.float32 else None

    def run(self, samples: range) -> None:
        """Makes the views of some samples."""
        import cv2

        shape = self.out.shape[1:]
        bands = shape[-1]
        now, spare = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        floats, normalised = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for i in samples:
            self._crop(i, now, cv2)
            flip = self.flips[i]
            if flip is not None:
                cv2.flip(now, flip, dst=spare)
                now, spare = spare, now
            if self.transpose[i]:
                cv2.transpose(now, dst=spare)
                now, spare = spare, now
            if self.coloured[i]:
                matrix = self.affine[i]
                matrix[:, -1] = self.mean[i] @ cv2.mean(now)[:bands]
                cv2.transform(now, matrix, dst=spare)
                now, spare = spare, now
            kernel = self.kernels[i]
            if kernel is not None:
                cv2.sepFilter2D(now, -1, kernel, kernel, dst=spare)  # border: reflect, no repeat
                now, spare = spare, now
            if self.solarize[i]:
                cv2.LUT(now, self.solarized, dst=spare)
                now, spare = spare, now
            np.copyto(floats, now)
            if self.float_out is not None:
                cv2.transform(floats, self.normalise, dst=self.float_out[i])
            else:  # numpy has no bfloat16
                cv2.transform(floats, self.normalise, dst=normalised)
                self.out[i].copy_(torch.from_numpy(normalised))

    def _crop(self, i: int, target: np.ndarray, cv2: Any) -> None:
        """Writes the crop of sample `i` at the view's size, antialiased when it shrinks."""
        top, left, height, width = self.boxes[i]
        size = self.size
        if height <= size and width <= size:
            # Nothing shrinks, so there is nothing to antialias, and OpenCV is 3 times faster here.
            crop = self.arrays[i, top : top + height, left : left + width]
            cv2.resize(crop, (size, size), dst=target, interpolation=cv2.INTER_LINEAR)
            return
        part = self.images[i : i + 1, top : top + height, left : left + width]
        resized = functional.interpolate(
            part.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True
        )
        np.copyto(target, resized[0].permute(1, 2, 0).numpy())


def _gaussian_kernels(sigmas: torch.Tensor) -> list[np.ndarray | None]:
    """A normalised kernel for each sample, cut at three sigma; None where the sigma is 0."""
    sigma = sigmas.double().numpy()
    radii = np.ceil(3 * sigma).astype(int)
    reach = radii.max()
    distance = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (distance / np.where(sigma > 0, sigma, 1)[:, None]) ** 2)
    weights *= np.abs(distance) <= radii[:, None]
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return [
        row[reach - radius : reach + radius + 1] if radius else None
        for row, radius in zip(weights, radii.tolist(), strict=True)
    ]


@contextlib.contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Keeps OpenCV to one thread a call, since the samples are spread over threads already.

    The number is one global of the process: it is put back when the last user leaves.
    """
    import cv2

    global _threads_users, _threads_before
    with _threads_lock:
        if _threads_users == 0:
            _threads_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _threads_users += 1
    try:
        yield
    finally:
        with _threads_lock:
            _threads_users -= 1
            if _threads_users == 0:
                cv2.setNumThreads(_threads_before)
