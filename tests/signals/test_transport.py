"""Scene transfer against the released code's numbers, brute force and arithmetic."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from rs_models.errors import UserError
from rs_models.signals.transport import (
    BATCH_SOLVERS,
    exact_plan,
    sample_positions,
    transfer_batch,
    transfer_scene,
)

SMALL = {"num_samples": 200}


@pytest.fixture(scope="module")
def vectors(golden):
    return dict(np.load(golden / "sticl_ot.npz"))


@pytest.fixture(scope="module")
def samples(vectors):
    """The sampled colours of the golden pair, (1000, 3) integers each."""
    content, scene = (vectors[f"{name}_256"].reshape(-1, 3) for name in ("content", "style"))
    return content[vectors["idx_content"]].astype(int), scene[vectors["idx_style"]].astype(int)


def textured(seed, bands=3, size=32, dtype=np.uint8, low=40, high=200):
    """(H, W, C) smooth colours with a few hard edges, within [low, high] of uint8's scale."""
    random = np.random.default_rng(seed)
    image = random.uniform(low, high, (4, 4, bands)).repeat(size // 4, 0).repeat(size // 4, 1)
    image += random.normal(0, 8, (size, size, bands))
    scale = 1 if dtype == np.uint8 else 40
    return (image.clip(low, high) * scale).astype(dtype)


def batch(*images):
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()


# --- the exact transfer ---------------------------------------------------------------------------


def test_draws_the_authors_positions(vectors):
    content, scene = sample_positions(256 * 256, 256 * 256, 1000, 42)
    np.testing.assert_array_equal(content, vectors["idx_content"])
    np.testing.assert_array_equal(scene, vectors["idx_style"])


@pytest.mark.parametrize("form", ["partners", "weights"])
def test_image_is_the_authors_when_given_their_plan(vectors, form):
    pairs = vectors["plan_pairs"]
    if form == "partners":
        plan = pairs[np.argsort(pairs[:, 0]), 1]
    else:
        plan = np.zeros((1000, 1000))
        plan[pairs[:, 0], pairs[:, 1]] = vectors["plan_weights"]
    moved = transfer_scene(vectors["content_256"], vectors["style_256"], plan=plan)
    np.testing.assert_array_equal(moved, vectors["output"])


def test_pot_solver_gives_the_authors_image(vectors):
    pytest.importorskip("ot")
    moved = transfer_scene(vectors["content_256"], vectors["style_256"], solver="pot")
    np.testing.assert_array_equal(moved, vectors["output"])


def test_plan_is_a_permutation_of_the_authors_cost(vectors, samples):
    source, target = samples
    plan = exact_plan(source, target)
    np.testing.assert_array_equal(np.sort(plan), np.arange(1000))
    cost = ((source - target[plan]) ** 2).sum(1).mean() / 256**2
    np.testing.assert_allclose(cost, vectors["emd_cost"], rtol=0, atol=1e-9)


def test_mapped_samples_are_the_authors(vectors, samples):
    # A sampled pixel goes to its partner, unless an earlier sample has the same colour.
    source, target = samples
    partner = vectors["plan_pairs"][:, 1]
    np.testing.assert_array_equal(target[partner] / 256, vectors["mapped_samples"])
    moved = transfer_scene(vectors["content_256"], vectors["style_256"], plan=partner)
    moved = moved.reshape(-1, 3)
    _, first = np.unique(source, axis=0, return_index=True)
    assert len(first) > 950
    expected = np.trunc(vectors["mapped_samples"][first] * 255)
    np.testing.assert_array_equal(moved[vectors["idx_content"][first]], expected)


@pytest.mark.parametrize("kind", ["content flat", "scene flat", "both flat", "half flat", "few"])
def test_plan_is_optimal_for_degenerate_colours(kind):
    random = np.random.default_rng(0)
    source, target = random.integers(0, 256, (2, 120, 3))
    if kind in ("content flat", "both flat"):
        source[:] = 7
    if kind in ("scene flat", "both flat"):
        target[:] = 250
    if kind == "half flat":
        source[:60], target[30:90] = 0, 0
    if kind == "few":
        source, target = source[:3], target[:3]
    cost = ((source[:, None] - target) ** 2).sum(2)
    rows, columns = linear_sum_assignment(cost)
    plan = exact_plan(source, target)
    np.testing.assert_array_equal(np.sort(plan), rows)
    assert cost[rows, plan].sum() == cost[rows, columns].sum()


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (9, np.uint8), (5, np.uint16)]
)
def test_equals_the_algorithm_written_plainly(bands, dtype):
    content = textured(1, bands, dtype=dtype)
    scene = textured(2, bands, size=48, dtype=dtype)  # another size
    moved = transfer_scene(content, scene, num_samples=150, seed=3)

    at, at_scene = sample_positions(32 * 32, 48 * 48, 150, 3)
    x = content.reshape(-1, bands).astype(np.int64)
    source = x[at]
    target = scene.reshape(-1, bands).astype(np.int64)[at_scene]
    # argmin takes the lowest index of several nearest samples, and here there are several.
    distance = ((x[:, None] - source) ** 2).sum(2)
    if bands <= 3:
        assert ((distance == distance.min(1, keepdims=True)).sum(1) > 1).mean() > 0.05
    displacement = target[exact_plan(source, target)] - source
    levels = np.iinfo(dtype).max
    expected = (x + displacement[distance.argmin(1)]) / (levels + 1)
    expected = (expected.clip(0, 1) * levels).astype(dtype).reshape(content.shape)
    np.testing.assert_array_equal(moved, expected)
    assert moved.dtype == dtype


@pytest.mark.parametrize("first", [10, 20])
def test_a_pixel_between_two_samples_follows_the_lowest(first):
    content = np.array([[[10], [20], [15]]], np.uint8)  # (1, 3, 1); 15 is as near to 10 as to 20
    scene = np.array([[[110], [220], [0]]], np.uint8)

    def draw(seed):
        at, at_scene = sample_positions(3, 3, 2, seed)
        return content[0, at, 0].tolist(), scene[0, at_scene, 0].tolist()

    seed = next(seed for seed in range(1000) if draw(seed) == ([first, 30 - first], [110, 220]))
    moved = transfer_scene(content, scene, num_samples=2, seed=seed, plan=np.array([0, 1]))
    assert moved[0, 2, 0] == (15 + 110 - first) * 255 // 256


def test_weights_of_a_plan_are_averaged():
    content, scene = textured(1), textured(2)
    moved = transfer_scene(content, scene, num_samples=50, plan=np.ones((50, 50)))
    at, at_scene = sample_positions(32 * 32, 32 * 32, 50, 42)
    mean = scene.reshape(-1, 3)[at_scene].mean(0)
    assert np.abs(moved.reshape(-1, 3)[at] - mean * 255 / 256).max() <= 1


def test_the_same_scene_changes_colours_only_slightly(vectors):
    image = vectors["content_256"]
    moved = transfer_scene(image, image)
    # The two samples of the image differ, so its colours move a little.
    assert np.abs(moved.astype(float) - image).mean() < 0.1 * image.std()


def test_a_transfer_that_moves_nothing_darkens_by_at_most_a_level():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    at, at_scene = sample_positions(256, 256, 1, 42)
    scene = image.copy()
    scene.reshape(-1)[at_scene] = image.reshape(-1)[at]
    moved = transfer_scene(image, scene, num_samples=1)
    np.testing.assert_array_equal(moved, (image.astype(int) * 255) // 256)


# --- batches --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """(4, 3, 32, 32) contents and scenes whose colours stay off the ends of the range."""
    contents = batch(*(textured(seed) for seed in range(4)))
    scenes = batch(*(textured(seed, low=90, high=150) for seed in range(10, 14)))
    return contents, scenes


def moments(images):
    x = images.flatten(2).double()
    centred = x - x.mean(2, keepdim=True)
    return x.mean(2), centred @ centred.mT / x.shape[2]


def wasserstein(a, b):
    """(B, C) mean distance between the sorted values of two batches of one size."""
    return (a.flatten(2).double().sort().values - b.flatten(2).double().sort().values).abs().mean(2)


def test_gaussian_takes_over_mean_and_covariance(pair):
    moved = transfer_batch(*pair, solver="gaussian")
    mean, covariance = moments(moved)
    scene_mean, scene_covariance = moments(pair[1])
    torch.testing.assert_close(mean, scene_mean, rtol=0, atol=0.2)
    error = (covariance - scene_covariance).abs().amax((1, 2))
    assert (error < 0.02 * scene_covariance.diagonal(dim1=1, dim2=2).amax(1)).all()


def test_gaussian_is_the_closed_form():
    x, y = batch(textured(1, 4)), batch(textured(2, 4, low=90, high=150))
    (mean_x, cov_x), (mean_y, cov_y) = moments(x), moments(y)
    root = sqrtm(cov_x[0].numpy()).real
    inverse = np.linalg.inv(root)
    matrix = inverse @ sqrtm(root @ cov_y[0].numpy() @ root).real @ inverse
    expected = matrix @ (x[0].flatten(1).numpy() - mean_x[0, :, None].numpy())
    expected += mean_y[0, :, None].numpy()
    moved = transfer_batch(x, y, solver="gaussian")[0].flatten(1).numpy()
    assert expected.min() > 0
    assert expected.max() < 255
    # Half a level of rounding, and what keeps flat images regular.
    assert np.abs(moved - expected).max() < 1


def test_sliced_takes_over_the_distribution_of_every_band(pair):
    before = wasserstein(*pair)  # (4, 3)
    after = wasserstein(transfer_batch(*pair, solver="sliced"), pair[1])
    assert (after < before / 5).all()
    assert (after.mean() < before.mean() / 10).item()


def test_sliced_follows_two_modes_that_one_affine_map_cannot():
    random = np.random.default_rng(0)
    content = batch(random.normal(128, 25, (64, 64, 3)).clip(0, 255).astype(np.uint8))
    modes = np.where(random.random((64, 64, 1)) < 0.3, 40, 200) + random.normal(0, 3, (64, 64, 3))
    scene = batch(modes.astype(np.uint8))
    after = {
        solver: wasserstein(transfer_batch(content, scene, solver=solver), scene).mean()
        for solver in ("gaussian", "sliced")
    }
    assert after["sliced"] < after["gaussian"] / 3


@pytest.mark.parametrize("solver", ["gaussian", "sliced"])
def test_fast_solvers_move_colours_about_as_far_as_the_exact_one(pair, solver):
    def moved_by(name):
        return (transfer_batch(*pair, solver=name).float() - pair[0].float()).square().mean()

    ratio = moved_by(solver) / moved_by("emd")
    assert 0.8 < ratio < 1.25


def test_exact_solver_on_a_batch_is_the_transfer_of_each_image(pair):
    moved = transfer_batch(*pair, solver="emd", **SMALL, seed=5, num_threads=2)
    for index in range(4):
        content, scene = (images[index].movedim(0, -1).numpy() for images in pair)
        expected = transfer_scene(content, scene, **SMALL, seed=5)
        np.testing.assert_array_equal(moved[index].movedim(0, -1).numpy(), expected)


@pytest.mark.parametrize("solver", ["gaussian", "sliced"])
def test_a_sample_does_not_depend_on_its_batch(pair, solver):
    whole = transfer_batch(*pair, solver=solver, **SMALL)
    alone = [
        transfer_batch(pair[0][i : i + 1], pair[1][i : i + 1], solver=solver, **SMALL)
        for i in range(4)
    ]
    difference = (whole.int() - torch.cat(alone).int()).abs()
    # Matrix products of another size may round the other way.
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("solver", ["gaussian", "sliced", "emd"])
@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, np.uint8), (4, np.uint8), (3, np.uint16), (13, np.uint16)]
)
def test_keeps_shape_and_type_for_any_bands_and_sizes(solver, bands, dtype):
    content = batch(textured(0, bands, dtype=dtype), textured(1, bands, dtype=dtype))
    scene = batch(*(textured(seed, bands, 48, dtype, 90, 150) for seed in (2, 3)))
    moved = transfer_batch(content, scene, solver=solver, **SMALL)
    assert (moved.shape, moved.dtype) == (content.shape, content.dtype)
    away = moments(content.int())[0] - moments(scene.int())[0]
    left = moments(moved.int())[0] - moments(scene.int())[0]
    assert left.abs().mean() < 0.35 * away.abs().mean()


def test_gaussian_leaves_an_image_with_its_own_scene_unchanged(pair):
    two_levels = np.eye(8, dtype=np.uint8)[..., None]
    for images in (pair[0], batch(textured(0, 6, dtype=np.uint16)), batch(two_levels)):
        assert torch.equal(transfer_batch(images, images, solver="gaussian"), images)


def test_sliced_hardly_changes_an_image_with_its_own_scene(pair):
    moved = transfer_batch(pair[0], pair[0], solver="sliced")
    assert (moved.float() - pair[0].float()).abs().mean() < 0.1 * pair[0].float().std()


@pytest.mark.parametrize("solver", ["gaussian", "sliced", "emd"])
def test_flat_images_stay_flat_and_finite(solver):
    flat, other = np.full((32, 32, 3), 30, np.uint8), np.full((32, 32, 3), 200, np.uint8)
    moved = transfer_batch(
        batch(flat, textured(0), flat), batch(textured(1), other, other), solver=solver, **SMALL
    ).float()
    assert moved[0].flatten(1).std(1).max() == 0  # one colour in, one colour out
    assert (moved[1:] - 200).abs().mean() < 5
    if solver != "emd":  # which sends all of one colour where the first sample goes
        mean = torch.from_numpy(textured(1)).float().mean((0, 1))
        assert (moved[0].mean((1, 2)) - mean).abs().max() < 12


@pytest.mark.parametrize("solver", ["sliced", "emd"])
def test_one_sample_is_enough(pair, solver):
    assert transfer_batch(*pair, solver=solver, num_samples=1).shape == pair[0].shape


@pytest.mark.parametrize("solver", ["gaussian", "sliced", "emd"])
def test_an_empty_batch_stays_empty(pair, solver):
    assert transfer_batch(pair[0][:0], pair[1][:0], solver=solver).shape == (0, 3, 32, 32)


def test_the_seed_decides(pair):
    first, again, other = (
        transfer_batch(*pair, solver="sliced", **SMALL, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("solver", ["gaussian", "sliced"])
def test_autocast_does_not_coarsen_the_colours(pair, solver):
    expected = transfer_batch(*pair, solver=solver)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transfer_batch(*pair, solver=solver), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("solver", ["gaussian", "sliced"])
def test_fast_solvers_agree_on_a_gpu_and_never_wait_for_it(pair, solver):
    on_device = [images.cuda() for images in pair]
    transfer_batch(*on_device, solver=solver)  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = transfer_batch(*on_device, solver=solver)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (moved.cpu().int() - transfer_batch(*pair, solver=solver).int()).abs()
    assert difference.max() <= 1


# --- what is refused ------------------------------------------------------------------------------


def test_refuses_unknown_solvers_and_no_samples(pair):
    image = textured(0)
    with pytest.raises(UserError, match=r"'sinkhorn'.*use emd, pot"):
        transfer_scene(image, image, solver="sinkhorn")
    with pytest.raises(UserError, match="'sinkhorn'.*use " + ", ".join(BATCH_SOLVERS)):
        transfer_batch(*pair, solver="sinkhorn")
    with pytest.raises(UserError, match="num_samples is 0"):
        transfer_scene(image, image, num_samples=0)


def test_says_how_to_get_a_solver_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(UserError, match="pip install POT"):
        transfer_scene(textured(0), textured(1), solver="pot", **SMALL)


@pytest.mark.parametrize(
    ("content", "scene", "message"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8), r"content must be \(H, W, C\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8), "scene must be .* pixels"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), "3 bands .* has 4"),
        (np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), "uint8 or both be uint16, not float64"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint16), "not uint8 and uint16"),
    ],
)
def test_refuses_images_that_do_not_fit(content, scene, message):
    with pytest.raises(ValueError, match=message):
        transfer_scene(content, scene)


@pytest.mark.parametrize(
    ("content", "scene", "message"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), r"content must be \(B, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8), "2 contents .* not 1"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 8), "3 bands .* has 4"),
    ],
)
def test_refuses_batches_that_do_not_fit(content, scene, message):
    with pytest.raises(ValueError, match=message):
        transfer_batch(content.to(torch.uint8), scene.to(torch.uint8))
    with pytest.raises(ValueError, match="uint8 or both be uint16, not float32"):
        transfer_batch(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (np.arange(5), r"The plan must be \(4,\) integers or \(4, 4\) weights"),
        (np.arange(4.0), r"not \(4,\) of float64"),
        (np.arange(1, 5), "samples from 0 to 3"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "a row of it sums to 0"),
    ],
)
def test_refuses_plans_that_do_not_fit(plan, message):
    with pytest.raises(ValueError, match=message):
        transfer_scene(textured(0), textured(1), num_samples=4, plan=plan)


# --- speed ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_is_three_times_faster_than_pots_domain_adaptation(vectors):
    ot = pytest.importorskip("ot")
    content, scene = vectors["content_256"], vectors["style_256"]

    def theirs():
        pixels, scene_pixels = content.reshape(-1, 3) / 256, scene.reshape(-1, 3) / 256
        mapping = ot.da.EMDTransport()
        mapping.fit(Xs=pixels[vectors["idx_content"]], Xt=scene_pixels[vectors["idx_style"]])
        return mapping.transform(Xs=pixels)

    def ours():
        return transfer_scene(content, scene)

    seconds = {theirs: [], ours: []}
    for _ in range(5):  # alternating, so that other work on the machine slows both
        for run, times in seconds.items():
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    ratio = np.median(seconds[theirs]) / np.median(seconds[ours])
    print(f"EMDTransport takes {ratio:.1f} times as long ({np.median(seconds[ours]):.3f} s)")
    assert ratio > 3
