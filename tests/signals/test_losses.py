"""The losses against the authors' numbers and against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rs_models.signals.losses import (
    false_negative_nt_xent,
    masked_reconstruction,
    nt_xent,
    queue_info_nce,
    self_distillation,
    suspected_false_negatives,
)


@pytest.fixture(scope="module")
def vectors(golden):
    return np.load(golden / "ntxent.npz")


@pytest.mark.parametrize("temperature", ["0.5", "0.2", "1.0", "0.07"])
@pytest.mark.parametrize(("name", "with_positive"), [("standard", True), ("glcnet", False)])
def test_equals_the_authors_values(vectors, temperature, name, with_positive):
    z1, z2 = torch.from_numpy(vectors["zi"]), torch.from_numpy(vectors["zj"])
    loss = nt_xent(z1, z2, temperature=float(temperature), positive_in_denominator=with_positive)
    key = f"{name}_loss_tau{temperature}" + ("_cos1" if name == "glcnet" else "")
    np.testing.assert_allclose(loss.item(), vectors[key], rtol=1e-5)


@pytest.mark.parametrize(("name", "with_positive"), [("standard", True), ("glcnet", False)])
def test_gradients_equal_the_authors(vectors, name, with_positive):
    z1 = torch.from_numpy(vectors["zi"]).requires_grad_()
    z2 = torch.from_numpy(vectors["zj"]).requires_grad_()
    nt_xent(z1, z2, temperature=0.5, positive_in_denominator=with_positive).backward()
    for z, view in ((z1, "zi"), (z2, "zj")):
        expected = vectors[f"{name}_grad_{view}_tau0.5"]
        np.testing.assert_allclose(z.grad.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_scale_of_the_embeddings_does_not_matter():
    z1, z2 = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nt_xent(z1, z2), nt_xent(3 * z1, 0.1 * z2))


def test_equal_views_that_differ_between_images_reach_the_lower_bound():
    z = torch.eye(4)
    # cos 1 with the partner, 0 with the other six: log(e^2 + 6) - 2 at temperature 0.5.
    torch.testing.assert_close(nt_xent(z, z), torch.tensor(np.log(np.exp(2) + 6) - 2).float())


def test_stays_finite_in_bfloat16_at_a_small_temperature():
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1))
    z1 = z1.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z1, z2.bfloat16(), temperature=0.02)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(z1.grad).all()


def test_refuses_views_of_different_shape():
    with pytest.raises(ValueError, match=r"\(3, 8\) and \(4, 8\)"):
        nt_xent(torch.zeros(3, 8), torch.zeros(4, 8))


# --- FALSE ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def false_vectors(golden):
    return np.load(golden / "false_loss.npz")


def views_of(vectors, case: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    raw = torch.from_numpy(vectors[f"{case}_raw"]).requires_grad_()
    return raw, raw[:5], raw[5:]


@pytest.mark.parametrize("case", ["close", "loose"])
@pytest.mark.parametrize("confidence", ["0.0", "0.5", "0.9", "1.0"])
@pytest.mark.parametrize("threshold", ["0.9", "-1.0"])
def test_false_equals_the_authors_values_and_gradients(false_vectors, case, confidence, threshold):
    raw, z1, z2 = views_of(false_vectors, case)
    how = {"temperature": 0.5, "confidence": float(confidence), "threshold": float(threshold)}
    loss = false_negative_nt_xent(z1, z2, **how)
    loss.backward()
    key = f"a{confidence}_t{threshold}"
    np.testing.assert_allclose(loss.item(), false_vectors[f"{case}_loss_{key}"], rtol=1e-5)
    expected = false_vectors[f"{case}_grad_{key}"]
    np.testing.assert_allclose(raw.grad.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["close", "loose"])
def test_false_suspects_the_pair_that_the_authors_select(false_vectors, case):
    _, z1, z2 = views_of(false_vectors, case)
    mask = suspected_false_negatives(z1, z2, threshold=-1.0)
    assert mask.nonzero().tolist() == false_vectors[f"{case}_selected_pairs"].tolist()
    gated = suspected_false_negatives(z1, z2, threshold=0.9)
    assert bool(gated.any()) == (case == "close")


@pytest.mark.parametrize("scope", ["batch", "row"])
@pytest.mark.parametrize("seed", range(5))
def test_false_equals_a_loop_over_the_anchors(scope, seed):
    """The definition written as loops, for both scopes."""
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(12, 5, generator=generator), dim=1)
    z[6:] = F.normalize(z[6:] * 0.2 + z[:6], dim=1)
    e = (z @ z.T / 0.5).exp()
    partner = [(i + 6) % 12 for i in range(12)]
    candidates = {
        (i, j): abs(float(e[i, j] - e[i, partner[i]]))
        for i in range(12)
        for j in range(12)
        if j not in (i, partner[i]) and (scope == "row" or j > i)
    }
    if scope == "batch":
        chosen = [min(candidates, key=candidates.get)]
    else:
        rows = [{p: d for p, d in candidates.items() if p[0] == i} for i in range(12)]
        chosen = [min(row, key=row.get) for row in rows]
    chosen = [(i, j) for i, j in chosen if float(z[i] @ z[partner[i]]) >= 0.9]
    total = 0.0
    for i in range(12):
        denominator = float(e[i].sum() - e[i, i])
        numerator = float(e[i, partner[i]]) + sum(0.7 * float(e[a, m]) for a, m in chosen if a == i)
        total -= np.log(numerator / denominator) / 12
    how = {"temperature": 0.5, "threshold": 0.9, "scope": scope}
    found = false_negative_nt_xent(z[:6], z[6:], confidence=0.7, **how)
    np.testing.assert_allclose(found.item(), total, rtol=1e-5)
    mask = suspected_false_negatives(z[:6], z[6:], **how)
    assert sorted(map(tuple, mask.nonzero().tolist())) == sorted(chosen)


def test_false_without_confidence_is_simclr():
    z1, z2 = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(3))
    for scope in ("batch", "row"):
        loss = false_negative_nt_xent(z1, z2, confidence=0.0, threshold=-1.0, scope=scope)
        torch.testing.assert_close(loss, nt_xent(z1, z2), rtol=1e-6, atol=0)


def test_false_refuses_an_unknown_scope():
    with pytest.raises(ValueError, match="'column'"):
        suspected_false_negatives(torch.zeros(3, 8), torch.zeros(3, 8), scope="column")


# --- the others ----------------------------------------------------------------------------------
def test_queue_loss_is_cross_entropy_over_positive_and_queue():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 6, generator=generator)
    queue = F.normalize(torch.randn(6, 9, generator=generator), dim=0)
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    rows = [
        -np.log(
            np.exp(float(q[i] @ k[i]) / 0.2)
            / (np.exp(float(q[i] @ k[i]) / 0.2) + (q[i] @ queue / 0.2).exp().sum().item())
        )
        for i in range(4)
    ]
    loss = queue_info_nce(query, key, queue, temperature=0.2)
    np.testing.assert_allclose(loss.item(), np.mean(rows), rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(6, 9\)"):
        queue_info_nce(query, key[:3], queue)


def test_queue_loss_has_no_gradient_to_keys():
    query, key = torch.randn(2, 4, 6).requires_grad_().unbind(0)
    key = key.detach().requires_grad_()
    queue_info_nce(query, key, torch.zeros(6, 3)).backward()
    assert key.grad is None


def test_self_distillation_is_a_loop_over_pairs_of_views():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(n * 3, 5, generator=generator) for n in (4, 2))
    center = torch.randn(1, 5, generator=generator)
    pairs = []
    for q in range(2):
        target = ((teacher[q * 3 : q * 3 + 3] - center) / 0.05).softmax(dim=1)
        for v in range(4):
            if v != q:
                log_p = (student[v * 3 : v * 3 + 3] / 0.1).log_softmax(dim=1)
                pairs.append(-(target * log_p).sum(dim=1).mean())
    loss = self_distillation(student, teacher, center, teacher_temperature=0.05)
    torch.testing.assert_close(loss, torch.stack(pairs).mean())


def test_reconstruction_weighs_each_part_by_its_own_area():
    output, target = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    target[..., :2, :2] = 3
    loss = masked_reconstruction(output, target, mask, visible_weight=0.25)
    torch.testing.assert_close(loss, torch.tensor(0.75 * 9 + 0.25))
