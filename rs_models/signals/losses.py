"""Losses as pure functions of tensors: no state, scalars out.

Embeddings are (N, D) at any scale and are normalised inside. A loss takes this process's views and
gathers each view over the processes itself, so that the global layout stays
[all first views; all second views].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .gather import gather_with_grad, mean_over_processes


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

    Example:
        >>> z = torch.eye(2)  # two images, both views of each the same
        >>> round(nt_xent(z, z, temperature=0.5).item(), 4)
        0.2395
    """
    logits, anchor, partner = _global_logits(z1, z2, temperature)  # (2N, 2N)
    positive = logits[anchor, partner]  # (2N,)
    excluded = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if not positive_in_denominator:
        excluded[anchor, partner] = True
    return (logits.masked_fill(excluded, -torch.inf).logsumexp(dim=1) - positive).mean()


def _global_logits(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines over the temperature of the global batch, (2N, 2N) float32, and who pairs with whom.

    Returns:
        The logits, the anchors' rows (2N,) and their partners' columns (2N,).
    """
    if z1.shape != z2.shape or z1.ndim != 2:
        raise ValueError(f"Wanted two (N, D) views, not {tuple(z1.shape)} and {tuple(z2.shape)}.")
    # Float32 from here: a bfloat16 softmax over hundreds of negatives loses the small ones.
    z1, z2 = gather_with_grad(z1.float()), gather_with_grad(z2.float())
    z = F.normalize(torch.cat([z1, z2]), dim=1)  # (2N, D)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature
    anchor = torch.arange(len(z), device=z.device)
    return logits, anchor, (anchor + len(z1)) % len(z)


def false_negative_nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 0.5,
    confidence: float = 1.0,
    threshold: float = 0.9,
    scope: str = "batch",
) -> Tensor:
    """NT-Xent whose suspected false negatives count as positives (FALSE, arXiv 2211.07928).

    With e_ij = exp(cosine / temperature), an anchor i that has a suspected false negative m gets
    -log((e_ip + confidence * e_im) / denominator): what m adds to the numerator is taken from the
    negatives, so the denominator of NT-Xent stays.

    Args:
        z1: (N, D) embeddings of the first views on this process, any scale.
        z2: (N, D) embeddings of the second views, in the same order.
        temperature: Divides the cosine similarities, > 0.
        confidence: How far a suspected false negative is a positive, 0 (SimCLR) to 1.
        threshold: See `suspected_false_negatives`.
        scope: See `suspected_false_negatives`.

    Returns:
        Scalar float32, the mean over all 2N anchors of all processes.

    Raises:
        ValueError: If the two views differ in shape or the scope is unknown.
    """
    loss, _ = false_negative_nt_xent_with_suspects(
        z1, z2, temperature=temperature, confidence=confidence, threshold=threshold, scope=scope
    )
    return loss


def false_negative_nt_xent_with_suspects(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 0.5,
    confidence: float = 1.0,
    threshold: float = 0.9,
    scope: str = "batch",
) -> tuple[Tensor, Tensor]:
    """`false_negative_nt_xent` and the mask of `suspected_false_negatives` from one gather."""
    logits, anchor, partner = _global_logits(z1, z2, temperature)
    suspects = _suspects(
        logits.detach(), partner, temperature=temperature, threshold=threshold, scope=scope
    )
    same = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    denominator = logits.masked_fill(same, -torch.inf).logsumexp(dim=1)  # (2N,)
    if confidence == 0:
        return (denominator - logits[anchor, partner]).mean(), suspects
    numerator = (logits + math.log(confidence)).masked_fill(~suspects, -torch.inf)
    numerator = numerator.index_put((anchor, partner), logits[anchor, partner])
    return (denominator - numerator.logsumexp(dim=1)).mean(), suspects


@torch.no_grad()
def suspected_false_negatives(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 0.5,
    threshold: float = 0.9,
    scope: str = "batch",
) -> Tensor:
    """Which negatives of the global batch FALSE takes for false ones.

    Args:
        z1: (N, D) embeddings of the first views on this process, any scale.
        z2: (N, D) embeddings of the second views, in the same order.
        temperature: Temperature of the exponentials that are compared.
        threshold: An anchor is believed only if the cosine with its own positive reaches this.
        scope: `batch`, as released: among all pairs i < j of the batch the one whose exponential
            is closest to its anchor's positive one (all that tie). `row`: the closest of every
            anchor.

    Returns:
        (2N, 2N) bool over [all first views; all second views] of all processes, a row an anchor.

    Raises:
        ValueError: If the two views differ in shape or the scope is unknown.
    """
    logits, _, partner = _global_logits(z1, z2, temperature)
    return _suspects(logits, partner, temperature=temperature, threshold=threshold, scope=scope)


def _suspects(
    logits: Tensor, partner: Tensor, *, temperature: float, threshold: float, scope: str
) -> Tensor:
    """The mask of `suspected_false_negatives` from (2N, 2N) logits without gradient."""
    anchor = torch.arange(len(logits), device=logits.device)
    positive = logits[anchor, partner]  # (2N,)
    # Exponentials are compared as released, all divided by the largest there can be: at a small
    # temperature they would overflow.
    shift = 1 / temperature
    distance = ((logits - shift).exp() - (positive - shift).exp()[:, None]).abs()  # (2N, 2N)
    candidates = torch.ones_like(distance, dtype=torch.bool)
    candidates[anchor, anchor] = candidates[anchor, partner] = False
    if scope == "batch":
        distance = distance.masked_fill(~candidates.triu(), torch.inf)
        closest = distance == distance.min()
    elif scope == "row":
        distance = distance.masked_fill(~candidates, torch.inf)
        closest = torch.zeros_like(candidates)
        closest[anchor, distance.argmin(dim=1)] = True
    else:
        raise ValueError(f"The scope is {scope!r}: use 'batch' or 'row'.")
    return closest & candidates & (positive * temperature >= threshold)[:, None]


def queue_info_nce(
    query: Tensor, key: Tensor, queue: Tensor, *, temperature: float = 0.2
) -> Tensor:
    """InfoNCE against a queue of earlier keys (MoCo v2, arXiv 2003.04297).

    Args:
        query: (N, D) embeddings of this process, any scale.
        key: (N, D) embeddings of the same images by the momentum encoder, any scale, no gradient.
        queue: (D, K) unit vectors, the negatives of every query.
        temperature: Divides the cosine similarities, > 0. 0.2 is STICL's value.

    Returns:
        Scalar float32, the mean over the N queries of this process. All processes hold the same
        queue, so the mean over processes, which DistributedDataParallel takes of the gradients,
        is that of one process with the whole batch.
    """
    if query.shape != key.shape or query.ndim != 2 or queue.shape[:1] != query.shape[1:]:
        raise ValueError(
            "The loss queue_info_nce wants (N, D) queries and keys and a (D, K) queue, not "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(queue.shape)}."
        )
    q = F.normalize(query.float(), dim=1)
    k = F.normalize(key.detach().float(), dim=1)
    with torch.autocast(q.device.type, enabled=False):
        positive = (q * k).sum(dim=1, keepdim=True)  # (N, 1)
        logits = torch.cat([positive, q @ queue.detach().float()], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def region_nt_xent(regions1: Tensor, regions2: Tensor, *, temperature: float = 0.5) -> Tensor:
    """GLCNet's local loss (arXiv 2106.10605): NT-Xent over matching regions.

    Every other region of the batch is a negative, those of the same image too. The positive is
    left out of the denominator, as in the released code.

    Args:
        regions1: (N * R, D) embeddings of the regions in the first views on this process.
        regions2: (N * R, D) of the same ground in the second views, in the same order.
        temperature: Divides the cosine similarities, > 0.

    Returns:
        Scalar float32, the mean over all anchors of all processes; it can be negative.
    """
    return nt_xent(regions1, regions2, temperature=temperature, positive_in_denominator=False)


def self_distillation(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    num_global: int = 2,
) -> Tensor:
    """Cross entropy between the teacher's and the student's views of an image (DINO).

    Caron et al., 2021, arXiv 2104.14294: for every teacher view and every other student view.

    Args:
        student: (V * N, K) outputs of all views, view-major, the global views first.
        teacher: (num_global * N, K) outputs of the global views.
        center: (1, K) running mean of the teacher's outputs.
        student_temperature: Divides the student's outputs, > 0.
        teacher_temperature: Divides the teacher's centred outputs, > 0; smaller is sharper.
        num_global: Views of the teacher.

    Returns:
        Scalar float32, the mean over pairs of views and over the N images of this process.
    """
    views = len(student) * num_global // len(teacher)
    log_p = F.log_softmax(student.float() / student_temperature, dim=1)
    log_p = log_p.unflatten(0, (views, -1))  # (V, N, K)
    target = teacher_distribution(teacher, center, teacher_temperature)
    target = target.unflatten(0, (num_global, -1))  # (2, N, K)
    # The sum over all pairs without those of a view with itself: two products of sums.
    every = (target.sum(dim=0) * log_p.sum(dim=0)).sum(dim=1)  # (N,)
    itself = (target * log_p[:num_global]).sum(dim=(0, 2))  # (N,)
    return (itself - every).mean() / (num_global * (views - 1))


def teacher_distribution(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Centred and sharpened teacher outputs, (M, K) -> (M, K) float32 rows that sum to 1."""
    return ((teacher.detach().float() - center) / temperature).softmax(dim=1)


def region_distillation(
    student: list[Tensor],
    teacher: list[Tensor],
    student_features: list[Tensor],
    teacher_features: list[Tensor],
    center: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Region matching of EsViT (Li et al., 2021, arXiv 2106.09785).

    Every region of a student view learns from the region of the teacher view whose feature is most
    similar, whatever its place.

    Args:
        student: Per view (N, T_v, K) outputs of the region head; the views of the teacher first.
        teacher: Per global view (N, T, K) outputs.
        student_features: Per view (N, T_v, D) backbone features of the regions.
        teacher_features: Per global view (N, T, D).
        center: (1, K) running mean of the teacher's region outputs.
        student_temperature: Divides the student's outputs, > 0.
        teacher_temperature: Divides the teacher's centred outputs, > 0.

    Returns:
        Scalar float32, the mean over pairs of views, images and the student's regions.
    """
    log_p = [F.log_softmax(s.float() / student_temperature, dim=2) for s in student]
    mine = [F.normalize(f.detach().float(), dim=2) for f in student_features]
    total = center.new_zeros(())
    for g, (outputs, features) in enumerate(zip(teacher, teacher_features, strict=True)):
        target = teacher_distribution(outputs.flatten(0, 1), center, teacher_temperature)
        target = target.view_as(outputs)  # (N, T, K)
        theirs = F.normalize(features.float(), dim=2)
        for v, log_q in enumerate(log_p):
            if v == g:
                continue
            match = (mine[v] @ theirs.mT).argmax(dim=2)  # (N, T_v)
            matched = target.gather(1, match[..., None].expand_as(log_q))  # (N, T_v, K)
            total = total - (matched * log_q).sum(dim=2).mean()
    return total / (len(teacher) * (len(student) - 1))


def masked_reconstruction(
    output: Tensor, target: Tensor, mask: Tensor, *, visible_weight: float = 0.01
) -> Tensor:
    """Squared error inside and outside a mask, each by its own area (context encoders).

    Pathak et al., 2016, arXiv 1604.07379, as the 2020 paradigm weights it.

    Args:
        output: (N, C, H, W) reconstruction.
        target: (N, C, H, W) image on the same scale.
        mask: (N, 1, H, W) or (1, 1, H, W), 1 where the input was hidden, 0 elsewhere.
        visible_weight: Weight of the visible part, 0 to 1; the hidden part has the rest.

    Returns:
        Scalar float32, the mean over this process's images.
    """
    error = (output.float() - target.float()).square()  # (N, C, H, W)
    hidden = mask.to(error.dtype).expand_as(error)
    inside = (error * hidden).sum() / hidden.sum().clamp_min(1)
    outside = (error * (1 - hidden)).sum() / (1 - hidden).sum().clamp_min(1)
    return (1 - visible_weight) * inside + visible_weight * outside


def feature_distillation(prediction: Tensor, target: Tensor) -> Tensor:
    """How far predictions point away from a teacher's features.

    Features of a rectified network are all positive and alike, so that a constant would come close
    to them: they are standardised over the global batch, channel by channel, and what is compared
    is what tells its images apart.

    Args:
        prediction: (N, D) on this process.
        target: (N, D) features of a teacher of the same views, no gradient.

    Returns:
        Scalar float32, 1 minus the mean cosine of this process's pairs: 0 to 2, and 1 of a constant
        prediction.
    """
    target = target.detach().float()
    centred = target - mean_over_processes(target.mean(dim=0))
    spread = mean_over_processes(centred.square().mean(dim=0)).sqrt()
    # A channel that is silent in the whole batch is 0 over any spread.
    standard = centred / spread.clamp_min(1e-6)
    return 1 - F.cosine_similarity(prediction.float(), standard, dim=1).mean()
