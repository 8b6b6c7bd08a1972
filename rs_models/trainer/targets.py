"""What teachers say of whole images, read once before a stage: `method.teacher_readout=stages`."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ..data import ImageCache
from ..data.cache import default_cache_dir
from ..methods.distillation import DistillationConfig

_FITTED = 50_000  # images at most that the directions are found on: 1.5 GB for a ResNet-50's stages


def image_targets(
    config: DistillationConfig, cache: ImageCache, accelerator: Accelerator
) -> list[Tensor]:
    """The read-out of each teacher's stages, whitened on these images, in its main directions.

    Whitening brings out what the few largest variances hide; its weakest directions, which are
    mostly noise, are left out.

    Args:
        config: Names the teachers and the widths.
        cache: Images that are trained on.
        accelerator: Its device reads; its main process first, and the others find the features.

    Returns:
        One (N, width) float32 a teacher, on the CPU, centred.

    Raises:
        UserError: A teacher that cannot be loaded, or that needs other bands.
    """
    from ..evaluation.features import extract
    from ..evaluation.loading import load_encoder
    from ..evaluation.readout import SCALES, at_all_stages

    found = []
    for name, width in zip(config.teachers, config.teacher_widths or (), strict=True):
        encoder = at_all_stages(load_encoder(name).fit(cache), SCALES)
        with accelerator.main_process_first():
            x = extract(
                encoder,
                cache,
                device=accelerator.device,
                cache_dir=default_cache_dir() / "features",
                progress=accelerator.is_main_process,
            )
        found.append(torch.from_numpy(_main_directions(x, width)))
    return found


def _main_directions(x: np.ndarray, width: int) -> np.ndarray:
    """(N, D) features -> (N, width) of the strongest directions of the whitened ones, centred."""
    from ..evaluation.readout import Whitening

    some = x
    if len(x) > _FITTED:
        some = x[np.sort(np.random.default_rng(0).permutation(len(x))[:_FITTED])]
    whitening = Whitening.fit(some)
    white = whitening(some).astype(np.float64)
    mean = white.mean(0)
    _, basis = np.linalg.eigh((white - mean).T @ (white - mean))  # the weakest first
    main = basis[:, ::-1][:, :width]
    parts = np.array_split(x, max(1, len(x) // _FITTED))
    return np.concatenate([((whitening(part) - mean) @ main).astype(np.float32) for part in parts])
