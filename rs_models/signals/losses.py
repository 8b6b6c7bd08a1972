"""Losses as pure functions of tensors: no state, scalars out.

Embeddings are (N, D) at any scale and are normalised inside. A loss takes this process's views and
gathers each view over the processes itself, so that the global layout stays
[all first views; all second views].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .gather import gather_with_grad


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 0.5,
    positive_in_denominator: bool = True,
) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al., 2020, arXiv 2002.05709).

    Each of the 2N embeddings is an anchor; its positive is the other view of the same image and
    its negatives are the other 2N - 2 embeddings of the global batch.

    Args:
        z1: (N, D) embeddings of the first views on this process, any scale.
        z2: (N, D) embeddings of the second views, in the same order.
        temperature: Divides the cosine similarities, > 0. 0.5 is the 2020 paradigm's value.
        positive_in_denominator: True is the standard loss. False leaves the positive out of the
            denominator (GLCNet's released code); that loss can be negative.

    Returns:
        Scalar float32, the mean over all 2N anchors of all processes.

    Raises:
        ValueError: If the two views differ in shape.
    """
    if z1.shape != z2.shape or z1.ndim != 2:
        raise ValueError(
            f"nt_xent wants two (N, D) views, not {tuple(z1.shape)} and {tuple(z2.shape)}"
        )
    # Float32 from here: a bfloat16 softmax over hundreds of negatives loses the small ones.
    z1, z2 = gather_with_grad(z1.float()), gather_with_grad(z2.float())
    z = F.normalize(torch.cat([z1, z2]), dim=1)  # (2N, D)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature  # (2N, 2N)
    n = len(z1)
    anchor = torch.arange(2 * n, device=z.device)
    partner = (anchor + n) % (2 * n)
    positive = logits[anchor, partner]  # (2N,)
    excluded = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    if not positive_in_denominator:
        excluded[anchor, partner] = True
    return (logits.masked_fill(excluded, -torch.inf).logsumexp(dim=1) - positive).mean()
