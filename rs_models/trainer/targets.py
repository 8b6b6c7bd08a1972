"""What teachers say of whole images, read once before a stage: `method.teacher_readout=stages`."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ..data import ImageCache
from ..data.cache import default_cache_dir
from ..methods.distillation import DistillationConfig


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
    from ..evaluation.readout import SCALES, Whitening, at_all_stages

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
        found.append(torch.from_numpy(_main_directions(Whitening.fit(x)(x), width)))
    return found


def _main_directions(x: np.ndarray, width: int) -> np.ndarray:
    """(N, D) features -> (N, width) of their strongest principal components, centred."""
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    _, basis = np.linalg.eigh(centred.T @ centred)  # the weakest first
    return (centred @ basis[:, ::-1][:, :width]).astype(np.float32)
