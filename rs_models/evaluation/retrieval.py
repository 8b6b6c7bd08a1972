"""Image retrieval: do the nearest images show the same class? Nothing is trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def average_precision(
    gallery_x: np.ndarray | Tensor,
    gallery_y: np.ndarray | Tensor,
    query_x: np.ndarray | Tensor,
    query_y: np.ndarray | Tensor,
    *,
    k: int,
    chunk: int = 4096,
) -> np.ndarray:
    """Average precision of the k most similar images, for each query.

    That of torchmetrics' `RetrievalMAP(top_k=k)`: the mean of the precisions at the places among
    the first k where an image of the query's class stands, 0 where none does. Its mean over queries
    is mAP@k.

    Args:
        gallery_x: (N, D) features; lengths do not matter.
        gallery_y: (N,) class indices.
        query_x: (M, D).
        query_y: (M,).
        k: Images looked at; all N where there are fewer.
        chunk: Queries compared at a time, which bounds memory to `chunk * N` similarities.

    Returns:
        (M,) float64, from 0 to 1.
    """
    gallery = torch.nn.functional.normalize(torch.as_tensor(gallery_x).float())
    queries = torch.nn.functional.normalize(torch.as_tensor(query_x).float()).to(gallery)
    classes = torch.as_tensor(gallery_y).to(gallery.device)
    wanted = torch.as_tensor(query_y).to(gallery.device)
    k = min(k, len(gallery))
    places = torch.arange(1, k + 1, device=gallery.device, dtype=torch.float64)
    found = []
    for part, own in zip(queries.split(chunk), wanted.split(chunk), strict=True):
        nearest = (part @ gallery.T).topk(k, dim=1).indices  # (m, k), best first
        right = (classes[nearest] == own[:, None]).double()
        precision = right.cumsum(1) / places
        found.append((precision * right).sum(1) / right.sum(1).clamp_min(1))
    return torch.cat(found).cpu().numpy()
