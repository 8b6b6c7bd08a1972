"""What whitens the stages of teachers, found before training: `method.teacher_readout=stages`."""

from __future__ import annotations

import numpy as np
import torch

from ..bands import band_indices
from ..data import ImageCache
from ..errors import UserError
from ..methods.distillation import DistillationConfig, Whitening

# Images that it is found on, at most. Two disjoint 5,000 of five data sets agree on what FALSE's
# ResNet-18 says of the other 4,800: a cosine of 0.998, and 0.994 at the least.
_FITTED = 5_000


def stage_whitenings(
    config: DistillationConfig, cache: ImageCache, *, size: int, device: torch.device
) -> list[Whitening]:
    """A whitening for each teacher, by what its stages say of whole images.

    Whitening brings out what the few largest variances hide.

    Args:
        config: Names the teachers.
        cache: Images that are trained on; of more than enough some are read.
        size: Side in pixels at which they are.
        device: Where to compute.

    Returns:
        (D,) mean and (D, D) matrix, float32 on the CPU, one of each a teacher.

    Raises:
        UserError: A teacher that cannot be loaded, that needs other bands, or that diverged.
    """
    from ..evaluation.loading import load_encoder
    from ..evaluation.readout import Whitening as Fitted
    from ..evaluation.readout import at_all_stages

    rows = np.sort(np.random.default_rng(0).permutation(len(cache))[:_FITTED])
    found = []
    for name in config.teachers:
        encoder = at_all_stages(load_encoder(name).fit(cache))
        order = band_indices(cache.bands, encoder.bands)
        encoder.model.eval().to(device)
        with torch.inference_mode():
            said = [
                encoder(cache.images[some][:, order].to(device), size=size).float().cpu()
                for some in torch.from_numpy(rows).split(256)
            ]
        stages = torch.cat(said)
        if not stages.isfinite().all():
            raise UserError(
                f"The teacher {name!r} says NaN or infinite values of these images: its weights "
                "diverged. Choose another teacher."
            )
        fitted = Fitted.fit(stages.numpy())
        found.append(
            (
                torch.from_numpy(fitted.mean.astype(np.float32)),
                torch.from_numpy(fitted.matrix.astype(np.float32)),
            )
        )
    return found
