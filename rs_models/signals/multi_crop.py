"""Contrast of many crops of an image: NT-Xent over pairs of a view and a global view.

Multi-crop is SwAV's (Caron et al., 2020, arXiv 2006.09882, section 3.2), where it also serves
SimCLR: every crop, small ones too, predicts the global views of its image, and small ones are
predicted by none. Its mean over pairs is kept; the term of a pair is that of NT-Xent.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .gather import gather_with_grad
from .losses import nt_xent


def multi_crop_nt_xent(
    z: Tensor,
    *,
    views: int,
    temperature: float = 0.5,
    suspects: Tensor | None = None,
    confidence: float = 1.0,
) -> Tensor:
    """NT-Xent of each view with each other global view of its image.

    The two global views come first. A view of image i has one global view of i as its positive, and
    the 2N - 2 global views of other images as negatives; with two views this is `nt_xent`.

    Args:
        z: (V*N, D) embeddings on this process, view-major, any scale.
        views: Views V of an image, 2 or more.
        temperature: Divides the cosine similarities, > 0.
        suspects: (2N, 2N) of all processes from `suspected_false_negatives`: what the other global
            view takes for a false negative a small view does too. None suspects nothing.
        confidence: How far a suspect is a positive, 0 to 1 (see `false_negative_nt_xent`).

    Returns:
        Scalar float32, the mean over the 2V - 2 pairs of views and all images of all processes.

    Raises:
        ValueError: If the embeddings are not those of so many views.
    """
    if views < 2 or z.ndim != 2 or len(z) % views:
        raise ValueError(f"Wanted (V*N, D) embeddings of V={views} views, not {tuple(z.shape)}.")
    if views == 2 and suspects is None:
        return nt_xent(*z.chunk(2), temperature=temperature)
    by_image = z.float().unflatten(0, (views, -1)).transpose(0, 1)  # (N, V, D)
    by_image = gather_with_grad(by_image.flatten(1)).unflatten(1, (views, -1))
    unit = F.normalize(by_image, dim=2).transpose(0, 1)  # (V, N, D) of all processes
    images = unit.shape[1]
    with torch.autocast(z.device.type, enabled=False):
        logits = unit @ unit[:2].flatten(0, 1).T / temperature  # (V, N, 2N)
    own = torch.eye(images, dtype=torch.bool, device=z.device).repeat(1, 2)  # (N, 2N)
    negatives = logits.masked_fill(own, -torch.inf).logsumexp(dim=2)  # (V, N)
    terms = []
    for positive in range(2):
        other = [view for view in range(views) if view != positive]
        match = logits[other, :, positive * images :].diagonal(dim1=1, dim2=2)  # (V - 1, N)
        numerator = match
        if suspects is not None and confidence > 0:
            believed = suspects.unflatten(0, (2, -1))[1 - positive]  # (N, 2N)
            also = logits[other].masked_fill(~believed, -torch.inf).logsumexp(dim=2)
            numerator = torch.logaddexp(match, also + math.log(confidence))
        terms.append(torch.logaddexp(negatives[other], match) - numerator)
    return torch.stack(terms).mean()
