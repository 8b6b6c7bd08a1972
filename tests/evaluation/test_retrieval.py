"""mAP@k as torchmetrics has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalMAP

from rs_models.evaluation.retrieval import average_precision


@pytest.mark.parametrize("k", [1, 5, 20])
def test_it_is_that_of_torchmetrics(k):
    rng = np.random.default_rng(0)
    gallery, query = rng.normal(size=(60, 8)), rng.normal(size=(17, 8))
    gallery_y, query_y = rng.integers(0, 4, 60), rng.integers(0, 5, 17)  # class 4: none there
    found = average_precision(gallery, gallery_y, query, query_y, k=k, chunk=5)
    unit = [torch.nn.functional.normalize(torch.from_numpy(x)) for x in (query, gallery)]
    similar = unit[0] @ unit[1].T
    metric = RetrievalMAP(top_k=k, empty_target_action="neg")
    metric.update(
        similar.flatten(),
        torch.from_numpy(query_y[:, None] == gallery_y[None]).flatten(),
        indexes=torch.arange(17).repeat_interleave(60),
    )
    assert found.mean() == pytest.approx(float(metric.compute()), abs=1e-6)
    assert found.shape == (17,)


def test_only_order_counts_and_a_small_gallery_is_looked_at_whole():
    gallery = np.asarray([[1.0, 0], [0.9, 0.1], [0, 1]])
    query = np.asarray([[2.0, 0]])
    found = average_precision(gallery, [0, 1, 0], query, [0], k=50)
    assert found == pytest.approx([(1 + 2 / 3) / 2])
    again = average_precision(gallery * 7, [0, 1, 0], query / 3, [0], k=50)
    np.testing.assert_array_equal(found, again)
